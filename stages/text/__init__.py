"""stages.text."""
