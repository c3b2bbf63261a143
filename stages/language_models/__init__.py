"""stages.language_models."""
