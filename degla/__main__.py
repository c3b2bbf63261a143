"""The `degla` command: `degla ...` or `python -m degla ...`."""

from flows.cli.main import main

if __name__ == "__main__":
    main()
