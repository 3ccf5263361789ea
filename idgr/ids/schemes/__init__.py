"""IDs by other ways than Algorithm 1: of order, co-occurrence, metadata, chance, quantised text, trees of vectors."""
