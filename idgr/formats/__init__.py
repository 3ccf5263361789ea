"""What crosses between stages: records, JSON Lines, run information."""
