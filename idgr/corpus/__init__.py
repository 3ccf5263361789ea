"""Raw dumps to records: sources, filtering, splitting, item text."""
