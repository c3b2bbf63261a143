"""Word-order foils: the frozen file, and that it depends on nothing but its input."""

import json
import random
from pathlib import Path

import pytest
import yaml

from pipeline.artifact import file_sha256
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.order_foils import Tagger, freeze, textblob_tagger
from stages.text.word_order import PERTURBATIONS, perturb
from tests.stages.small_road import picture

CAPTIONS = [
    ("val2014/1.jpg", "A red cup sits near the old table, really."),
    ("val2014/2.jpg", "a dog"),
    ("2.jpg", "Dogs."),
]


def test_the_file_is_what_the_aro_reader_reads(tmp_path: Path) -> None:
    target = tmp_path / "aro/coco_order.json"
    record = freeze(CAPTIONS, target, source="abc", seed=3)
    picture(tmp_path / "aro/images/val2014/1.jpg", "red", "blue")
    (subset,) = benchmarks.load("aro", tmp_path, official=False)
    assert subset.rows[0].texts[0] == "a red cup sits near the old table really"
    assert all(len(row.texts) == 5 and len({len(text) for text in row.texts}) == 1 for row in subset.rows)
    assert subset.rows[0].texts[1].split()[3:5] == ["sits", "near"]  # neither noun nor adjective
    kept = yaml.safe_load(target.with_suffix(".yaml").read_text())
    assert kept == record and record["sha256"] == file_sha256(target)
    assert (record["source"], record["seed"], record["rows"]) == ("abc", 3, 3)
    assert record["tagger"]["name"] == "textblob.PatternTagger" and len(record["tagger"]["digest"]) == 16


def test_foils_that_equal_their_caption_are_counted_and_may_be_left_out(tmp_path: Path) -> None:
    """Three words are one trigram: the order of one trigram cannot change."""
    record = freeze(CAPTIONS, tmp_path / "coco_order.json")
    rows = json.loads((tmp_path / "coco_order.json").read_text())
    same = {
        kind: sum(row["caption_options"][0] == row["caption_options"][1 + place] for row in rows)
        for place, kind in enumerate(PERTURBATIONS)
    }
    assert record["equal_to_the_caption"] == same and same["trigrams"] >= 2
    dropped = freeze(CAPTIONS, tmp_path / "coco_order.json", drop_no_ops=True)
    left = json.loads((tmp_path / "coco_order.json").read_text())
    assert (dropped["rows"], dropped["dropped"]) == (len(left), 3 - len(left)) and len(left) < 3
    assert all(row["caption_options"][0] not in row["caption_options"][1:] for row in left)


def test_a_row_depends_on_its_caption_and_the_seed_alone(tmp_path: Path) -> None:
    freeze(CAPTIONS, tmp_path / "one.json")
    freeze(CAPTIONS[::-1], tmp_path / "two.json")
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one == two[::-1]
    freeze(CAPTIONS, tmp_path / "two.json", seed=1)
    assert one != json.loads((tmp_path / "two.json").read_text())


def test_another_tagger_decides_what_moves(tmp_path: Path) -> None:
    """Of a tagger to which only "sits" and "near" are nouns, the first foil moves nothing else."""
    tagger = Tagger("mine", "1", "d", lambda text: [(w, "NN" if w in ("sits", "near") else "X") for w in text.split()])
    freeze(CAPTIONS[:1], tmp_path / "one.json", tagger=tagger)
    (row,) = json.loads((tmp_path / "one.json").read_text())
    true, first, *_ = (option.split() for option in row["caption_options"])
    assert {index for index in range(len(true)) if true[index] != first[index]} <= {3, 4}


def test_the_frozen_foils_have_not_changed() -> None:
    """What a seed means must not drift: a set made today and one made next year are the same benchmark."""
    words = ["a", "red", "cup", "sits", "near", "the", "old", "table"]
    content = [False, True, True, False, False, False, True, True]
    found = [perturb(words, content, kind, random.Random(f"0/{kind}/1.jpg/x")) for kind in PERTURBATIONS]
    assert [" ".join(foil) for foil in found] == [
        "a cup old sits near the table red",
        "sits red cup near a the old table",
        "red a cup the sits near table old",
        "old table sits near the a red cup",
    ]


@pytest.mark.parametrize("text", ["", "!!!", "  "])
def test_captions_without_words_have_none(text: str) -> None:
    assert textblob_tagger().tag(text) == []
