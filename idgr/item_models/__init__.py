"""Models that rank items by vectors: their training and ranking."""
