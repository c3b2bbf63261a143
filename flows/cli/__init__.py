"""The `degla` command line."""
