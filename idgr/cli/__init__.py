"""The front door: one file per command. Parse, check, call one function, write. No torch at import."""
