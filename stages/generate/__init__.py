"""generate: captions to hard negatives."""
