"""`degla try`: real requests to a real server, real checks; what is shown, what it costs, and what it leaves behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.road import Run
from tests.conftest import SHAPES
from tests.flows.cli.test_main import degla
from tests.stages.language_models.serving import Answer, completion, serving


def swapped(caption: str, before: int) -> Answer:
    """At first the caption as it is, which the checks reject, then with its two nouns exchanged."""
    words = caption.removesuffix(".").split()
    if before:
        nouns = [place for place, word in enumerate(words) if word in ("house", *SHAPES)]
        words[nouns[0]], words[nouns[1]] = words[nouns[1]], words[nouns[0]]
    return 200, {}, completion(" ".join(words) + ".")


def settings(url: str) -> list[str]:
    pairs = {
        "backend": "openai", "base_url": url, "model": "m", "types": "[swap_nouns]", "price_per_hour": 3600,
        "concurrency": 4,
    }  # fmt: skip
    return [word for key, value in pairs.items() for word in ("--set", f"generate.{key}={value}")]


def test_a_few_captions_are_shown_with_what_all_would_cost(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(swapped) as (url, bodies):
        command = ("try", str(tiny_recipe), "--n", "4", *settings(url))
        status, out, err = degla(tmp_path, monkeypatch, capsys, *command, "--json")
        assert status == 0, err
        assert len(bodies) == 8, "four captions, each asked again once"
        found: dict[str, Any] = json.loads(out)
        assert len(found["rows"]) == 4
        for row in found["rows"]:
            one = row["types"]["swap_nouns"]
            assert one["rejected"] == [{"text": row["caption"], "reason": "identical"}]
            assert one["accepted"] == json.loads(swapped(row["caption"], 1)[2])["choices"][0]["message"]["content"]
        tried, everything = found["tried"], found["all"]
        assert (tried["captions"], tried["replies"], tried["prompt_tokens"], tried["reply_tokens"]) == (4, 8, 56, 24)
        assert (everything["captions"], everything["replies"], everything["prompt_tokens"]) == (24, 48, 336)
        assert everything["seconds"] == pytest.approx(6 * tried["seconds"], abs=0.4)
        assert everything["money"] == pytest.approx(everything["seconds"], abs=0.06), "3600 an hour"
        page = Path(found["page"]).read_text()
        assert "<mark>" in page and "identical" in page and "24</td><td>48</td>" in page

        status, out, err = degla(tmp_path, monkeypatch, capsys, *command)
        assert status == 0 and len(bodies) == 8, "the responses are kept"
        assert found["rows"][0]["types"]["swap_nouns"]["accepted"] in out and "(identical)" in out
        assert "tried: 4" in out and "all: 24" in out
        status, out, err = degla(tmp_path, monkeypatch, capsys, "try", str(tiny_recipe), "--n", "6", *settings(url))
        assert status == 0 and len(bodies) == 12, "a larger draw begins with the smaller"

    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["replies", "store", "tiny-try.html"], (
        "no run is left"
    )
    assert [path.name for path in (tmp_path / "store" / "negatives").glob("*/")] == []
    overrides = [word for word in settings(url) if word != "--set"]
    run = Run.open("tiny", overrides, recipe=str(tiny_recipe), home=tmp_path)
    assert run.make("ingest").reused


def test_a_run_that_is_there_stays_as_it_is(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.open("tiny", recipe=str(tiny_recipe), home=tmp_path)
    run.make("ingest")
    recipe = (tmp_path / "tiny" / "recipe.yaml").read_bytes()
    status, out, err = degla(
        tmp_path, monkeypatch, capsys, "try", "tiny", "--set", "ingest.split_seed=3", "--set", "generate.seed=5"
    )
    assert status == 0 and "all: 24" in out, err
    assert (tmp_path / "tiny" / "recipe.yaml").read_bytes() == recipe
    assert Run.open("tiny", home=tmp_path).status()[0].state == "current"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nope"], "recipe: cannot read 'nope'"),
        (["photos"], "ingest: no folder given"),
        (["demo", "--set", "generate.types=[]"], "try: generate.types is empty"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    status, _, err = degla(tmp_path, monkeypatch, capsys, "try", *words)
    assert status == 2 and err.startswith(says) and err.count("\n") == 1
