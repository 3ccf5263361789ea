"""What commands print of what their stages made: results on standard output, tables on standard error."""
