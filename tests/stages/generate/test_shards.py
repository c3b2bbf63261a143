from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import tables
from pipeline.errors import UserError
from pipeline.schema import PAIRS_NEGATIVES
from stages.generate import shards
from stages.generate.responses import caption_key
from tests.stages.generate.canned import captions, pairs

ODD = ("é", "e\u0301", "İi", "👩‍🚀 on the moon", "a 'quoted' \"dog\"", "\u2028\u200f", "ﬁ ﬀ", "\U0010ffff", "a\nb", " ")


def test_every_caption_is_in_the_shard_that_its_key_belongs_to(tmp_path: Path) -> None:
    plan = shards.make(pairs(tmp_path, captions(60)), tmp_path / "plan.parquet", 10)
    assert (plan.count, plan.captions) == (8, 60)
    bounds = [plan.bounds(index) for index in range(plan.count)]
    assert bounds[0][0] == "0" * 16 and bounds[-1][1] == "f" * 16
    assert all(int(a[1], 16) + 1 == int(b[0], 16) for a, b in pairwise(bounds))
    found = []
    for index, (first, last) in enumerate(bounds):
        entries = plan.read(index)
        assert [entry.key for entry in entries] == sorted(entry.key for entry in entries)
        assert all(first <= entry.key <= last for entry in entries)
        found += [entry.caption for entry in entries]
    assert sorted(found) == sorted(caption for _, caption in captions(60))


def test_an_entry_has_every_pair_of_its_caption_and_what_else_is_said_of_the_images(tmp_path: Path) -> None:
    plan = shards.make(
        pairs(tmp_path, [("p", "A dog."), ("q", "A dog."), ("q", "A cat.")]), tmp_path / "plan.parquet", 100
    )
    entries = {entry.caption: entry for entry in plan.read(0)}
    assert plan.count == 1 and set(entries) == {"A dog.", "A cat."}
    siblings = {pair.image_key: pair.siblings for pair in entries["A dog."].pairs}
    assert siblings == {"p": ["A dog."], "q": ["A cat.", "A dog."]}
    assert all(pair.given == [] for pair in entries["A dog."].pairs)


def test_a_sample_is_of_distinct_captions(tmp_path: Path) -> None:
    rows = [(f"p{i}", caption) for i, (_, caption) in enumerate(captions(30) + captions(30))]
    plan = shards.make(pairs(tmp_path, rows), tmp_path / "plan.parquet", 100)
    sample = list(plan.sample(20))
    assert len(sample) == len(set(sample)) == 20
    assert sorted(plan.sample(100)) == sorted(caption for _, caption in captions(30))


def test_folders_with_quotes_are_folders(tmp_path: Path) -> None:
    home = tmp_path / 'it\'s "mine"'
    artifact = pairs(home, [("p", "A dog chases a cat.")])
    row = {"pair_id": caption_key("p\0A dog chases a cat."), "text": "A cat chases a dog.", "origin": "x"}
    tables.write(tables.part(artifact.path / "pairs_negatives", 0), [row], PAIRS_NEGATIVES)
    for given_too, brought in ((False, []), (True, ["A cat chases a dog."])):
        plan = shards.make(artifact, home / "it's.parquet", 100, given=given_too)
        assert plan.read(0)[0].pairs[0].given == brought


def test_pairs_that_brought_no_negatives(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="brought no negatives"):
        shards.make(pairs(tmp_path, captions(4)), tmp_path / "plan.parquet", 10, given=True)
    assert not (tmp_path / "plan.parquet").exists()


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
        min_size=1, max_size=8,
    )
)  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sql_and_python_give_a_caption_the_same_key(tmp_path: Path, texts: list[str]) -> None:
    rows = [("p", caption) for caption in {*texts, *ODD}]
    plan = shards.make(pairs(tmp_path, rows), tmp_path / "plan.parquet", 1000)
    entries = plan.read(0)
    assert {entry.caption for entry in entries} == {caption for _, caption in rows}
    assert all(entry.key == caption_key(entry.caption) for entry in entries)
