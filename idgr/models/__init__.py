"""Backbones and tokenizers: load, make, save."""
