"""Prompt templates and their rendering by joining token lists."""
