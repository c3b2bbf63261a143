"""Where degla's own files are: the folder that holds `data/`, the same in a checkout and in an installed wheel."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout, or the folder `degla` of an installed wheel; names such as `data/starting_clip` are looked up here."""

DATA = ROOT / "data"
"""Committed assets: recipes, prompts, templates, small models."""

IMPORT_ROOT = Path(__file__).resolve().parents[__name__.count(".")]
"""What a child process needs on its path to import this package by the same name."""
