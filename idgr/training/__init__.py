"""Training of the recommender and of the ID generator."""
