"""The report: one page with plots, from run folders."""
