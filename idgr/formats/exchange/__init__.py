"""A split, recommendations and keys in the files of other programs, one module for each."""
