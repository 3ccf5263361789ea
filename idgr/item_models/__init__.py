"""Models that rank items by vectors or texts: their training and ranking."""
