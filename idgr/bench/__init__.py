"""Benchmarks: contenders side by side in one run, each measured in a process of its own."""
