"""stages.benchmarks."""
