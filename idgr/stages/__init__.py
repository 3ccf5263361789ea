"""Stages: for each, a dataclass of its options and a function that runs it."""
