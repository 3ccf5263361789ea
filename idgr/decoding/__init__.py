"""Prefix trees over item IDs and the searches that walk them."""
