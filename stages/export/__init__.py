"""stages.export."""
