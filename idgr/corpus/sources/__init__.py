"""One module per platform whose dumps `idgr prep` reads."""
