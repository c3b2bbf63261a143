"""stages.train."""
