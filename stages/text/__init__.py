"""English words, n-grams and word order."""
