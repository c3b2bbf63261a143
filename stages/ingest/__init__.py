"""ingest: images and captions to pairs."""
