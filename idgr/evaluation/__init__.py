"""Metrics, baselines, segments: what a list of recommendations is worth."""
