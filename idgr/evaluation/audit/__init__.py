"""What `idgr audit` looks at: data sets, IDs, models and results, and what of the held-out items is in them."""
