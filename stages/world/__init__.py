"""The built-in world: scenes, its language, its datasets."""
