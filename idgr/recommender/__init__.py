"""The recommender of textual IDs: its prompts, its ranking, its training."""
