"""report: everything to one page."""
