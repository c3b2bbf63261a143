"""stages.evaluate."""
