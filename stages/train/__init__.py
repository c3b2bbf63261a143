"""train: the training set to a fine-tuned CLIP."""
