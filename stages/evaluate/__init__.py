"""evaluate: a CLIP to scores, before and after."""
