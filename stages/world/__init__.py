"""stages.world."""
