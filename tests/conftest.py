"""A tiny road for real: twelve pictures, the rules generator, a small CLIP from nothing, one epoch."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "box")


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    (root / "images").mkdir()
    lines = ["image,caption"]
    for i, colour in enumerate(COLOURS):
        for j, shape in enumerate(SHAPES):
            image = Image.new("RGB", (64, 64), "white")
            ImageDraw.Draw(image).ellipse((5 + 8 * j, 5 + 8 * i, 30, 50), fill=colour)
            image.save(root / "images" / f"{colour}-{shape}.png")
            other = COLOURS[(i + 1) % 4]
            lines.append(f"{colour}-{shape}.png,A {colour} {shape} stands beside a {other} house.")
            lines.append(f"{colour}-{shape}.png,The {other} house is near a large {colour} {shape}.")
    (root / "captions.csv").write_text("\n".join(lines) + "\n")
    settings: dict[str, Any] = {
        "description": "twelve pictures, for tests",
        "ingest": {"source": "csv", "root": str(root), "test_share": 0.3, "val_share": 0.0},
        "generate": {"backend": "rules", "max_reject_rate": 1.0},
        "assemble": {"tokenizer": "data/clip_tiny"},
        "train": {"model": "data/clip_tiny", "pretrained": None, "epochs": 1, "batch": 4, "warmup": 1, "workers": 0},
    }
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def skips(reasons: Iterable[str]) -> list[str]:
    """One line for each reason that tests were skipped for, the most frequent first."""
    counted = Counter(reason.removeprefix("Skipped: ") for reason in reasons)
    return [
        f"skipped {count}: {reason}" for reason, count in sorted(counted.items(), key=lambda one: (-one[1], one[0]))
    ]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """End the summary with what was skipped and why: a test that did not run has shown nothing."""
    for line in skips(report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line)
