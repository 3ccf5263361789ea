"""Generative recommendation with learned textual item IDs."""

__version__ = "0.1.0"
