"""stages.ingest."""
