"""Item text to short, unique, textual item IDs."""
