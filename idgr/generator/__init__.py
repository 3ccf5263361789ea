"""The ID generator: its first training, and its training through a frozen recommender."""
