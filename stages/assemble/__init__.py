"""assemble: pairs and negatives to the training set."""
