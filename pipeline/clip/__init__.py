"""pipeline.clip."""
