"""Generator and recommender trained in turns."""
