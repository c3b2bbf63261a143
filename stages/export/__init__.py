"""A run's dataset and model in the formats of other projects."""
