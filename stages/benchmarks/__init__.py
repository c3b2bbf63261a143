"""Benchmarks: reading each set in its own format, and the means that are reported of it."""
