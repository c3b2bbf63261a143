"""stages.report."""
