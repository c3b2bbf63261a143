"""Binding splits: which rows get which label, and that the accuracies by label are re-reads of the scores."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import tables
from pipeline.schema import SCORES
from pipeline.stage import silent
from stages.benchmarks.rows import ImageRef, Row, Subset
from stages.evaluate import STAGE, Config
from stages.evaluate.bindings import captions, label, labelled, splits
from tests.stages.evaluate.vectors import images
from tests.stages.small_road import SmallRoad, build

TRAINING = ("A red ball beside a blue box.", "The dog is black.", "A man rides a horse.")


def subset(*texts: tuple[str, ...], rule: Any = "choice", benchmark: str = "sugarcrepe", name: str = "all") -> Subset:
    rows = tuple(Row(str(i), str(i), image, one) for i, (image, one) in enumerate(zip(images(9), texts, strict=False)))
    return Subset(benchmark, name, rule, "wrong", "d", rows)


def attribute_labels(*texts: tuple[str, ...], rule: Any = "choice") -> list[str]:
    labels, _ = label([subset(*texts, rule=rule)], TRAINING)
    return [one["attribute_bindings"] for one in labels.values()]


def test_a_row_is_labelled_by_the_bindings_of_all_its_texts() -> None:
    found = attribute_labels(
        ("Red balls and a black dog", "a red ball"),
        ("a red ball", "a blue ball"),
        ("a blue ball", "a red box"),
        ("a ball", "a box"),
        ("a ball", "a black dog"),
    )
    assert found == ["seen", "mixed", "unseen", "without", "seen"]


def test_relations_are_labelled_apart_from_attributes() -> None:
    labels, _ = label([subset(("A tall man riding horses", "A horse rides a tall man"))], TRAINING)
    assert labels == {("sugarcrepe", "all", "0"): {"attribute_bindings": "unseen", "relation_bindings": "mixed"}}


def test_rows_that_do_not_choose_between_sentences_of_their_own_have_no_label() -> None:
    order = subset(("a red ball", "ball red a", "red a ball"))
    classes = subset((), rule="classify")
    query = subset(("a red ball",), rule="text_to_image")
    assert label([order, classes, query], TRAINING)[0] == {}
    two_images = subset(("a red ball", "a blue ball"), rule="square")
    (found,) = label([two_images], TRAINING)[0].values()
    assert found["attribute_bindings"] == "mixed"


def test_overlap_tells_how_familiar_true_texts_and_foils_are() -> None:
    rows = subset(("a red ball", "a blue ball"), ("a black dog and a red box", "a blue box"))
    _, overlap = label([rows], TRAINING)
    assert overlap["sugarcrepe"]["attributes"] == {"true": pytest.approx(2 / 3), "foil": 0.5}
    assert overlap["sugarcrepe"]["relations"] == {"true": None, "foil": None}
    one_wrong = subset(("a red ball", "a black dog", "a blue ball"), rule="both")
    assert label([one_wrong], TRAINING)[1]["sugarcrepe"]["attributes"] == {"true": 1.0, "foil": 0.0}


words = st.sampled_from(["red", "blue", "black"])
things = st.sampled_from(["ball", "box", "dog"])
phrases = st.tuples(words, things).map(lambda both: "a {} {}".format(*both))


@settings(max_examples=80, deadline=None)
@given(st.lists(phrases, max_size=4), phrases, phrases)
def test_labels_agree_with_set_arithmetic_and_more_captions_never_unsee(
    training: list[str], true: str, foil: str
) -> None:
    known = {true in training, foil in training}
    expected = "mixed" if len(known) == 2 else "seen" if known == {True} else "unseen"
    rows = [subset((true, foil))]
    found = label(rows, training)[0]["sugarcrepe", "all", "0"]["attribute_bindings"]
    assert found == expected
    later = label(rows, [*training, true, foil])[0]["sugarcrepe", "all", "0"]["attribute_bindings"]
    assert later == "seen"


def table(models: dict[str, list[float]], labels: list[str | None]) -> pa.Table:
    rows = [
        {"model": model, "benchmark": "sugarcrepe", "subset": "swap_att" if i % 2 else "add_att", "row_id": str(i),
         "image_key": str(i), "group": None, "similarities": [1.0, 0.0], "correct": right, "tie": False,
         "leaked": False, "attribute_bindings": one, "relation_bindings": None, "protocol": "p"}
        for model, outcomes in models.items()
        for i, (right, one) in enumerate(zip(outcomes, labels, strict=True))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, SCORES)


def test_splits_are_means_over_the_rows_of_a_label_beside_the_blind_judges() -> None:
    labels = ["seen", "seen", "seen", "mixed", "unseen", "unseen", None]
    models = {
        "before": [1.0, 0, 0, 1, 0, 1, 1],
        "after": [1.0, 1, 0, 0, 0, 1, 0],
        "blind:rule": [0.0, 0, 1, 1, 1, 1, 0],
    }
    found = splits(table(models, labels), seed=0)
    assert {name: one["n"] for name, one in found.items()} == {
        "sugarcrepe.attributes.seen": 3, "sugarcrepe.attributes.mixed": 1, "sugarcrepe.attributes.unseen": 2,
    }  # fmt: skip
    seen = found["sugarcrepe.attributes.seen"]
    assert (seen["before"]["value"], seen["after"]["value"]) == pytest.approx((1 / 3, 2 / 3))
    assert seen["difference"]["value"] == pytest.approx(1 / 3)
    assert seen["blind"]["rule"]["value"] == pytest.approx(1 / 3)
    assert found["sugarcrepe.attributes.unseen"]["blind"]["rule"]["value"] == 1
    assert all(one["subset"] is None and one["headline"] is None for one in found.values())
    assert not any("p_holm" in one["difference"] for one in found.values())


def test_without_labels_there_are_no_splits() -> None:
    scores = table({"a": [1.0, 0.0]}, [None, None])
    assert splits(scores, seed=0) == {}
    rows = [{"benchmark": "zeroshot", "subset": "x", "row_id": "0"}]
    assert labelled(rows, label([subset(("a red ball", "a dog"))], TRAINING)[0]) == rows


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> SmallRoad:
    return build(tmp_path_factory.mktemp("home"))


def test_only_the_train_split_counts_as_training_captions(road: SmallRoad) -> None:
    dataset = tables.read(road.artifacts["dataset"].table_folder("dataset"))
    train = set(dataset.filter(pc.equal(dataset["split"].cast(pa.string()), "train"))["caption"].to_pylist())
    found = list(captions(road.artifacts["dataset"]))
    assert set(found) == train and len(found) == len(train)
    assert train < set(dataset["caption"].to_pylist())


def test_a_run_labels_its_scores_and_every_split_is_a_reread(road: SmallRoad, tmp_path: Path) -> None:
    meta = STAGE.run(Config(), road.artifacts, tmp_path, silent)
    scores = tables.read(tmp_path)
    assert meta["bindings"]["splits"] == splits(scores, seed=0)
    assert {name.partition(".")[0] for name in meta["bindings"]["splits"]} == {"sugarcrepe", "valse", "aro", "heldout"}
    with tables.connect({"scores": tmp_path}) as sql:
        again = sql.execute(
            """select benchmark || '.attributes.' || attribute_bindings, count(*), avg(correct) from scores
               where model = 'after' and attribute_bindings is not null group by all"""
        ).fetchall()
        asked = sql.execute(
            "select distinct benchmark, subset from scores where attribute_bindings is null order by all"
        ).fetchall()
    attributes = {name: one for name, one in meta["bindings"]["splits"].items() if ".attributes." in name}
    assert {name: (n, pytest.approx(mean)) for name, n, mean in again} == {
        name: (one["n"], one["after"]["value"]) for name, one in attributes.items()
    }
    assert len(attributes) > 4
    assert ("aro", "coco_order") in asked and ("zeroshot", "circles") in asked
    assert {benchmark for benchmark, _ in asked} == {"aro", "zeroshot", "retrieval"}


def test_a_row_keeps_its_label_whoever_scores_it(road: SmallRoad, tmp_path: Path) -> None:
    STAGE.run(Config(benchmarks=("sugarcrepe",)), road.artifacts, tmp_path, silent)
    with tables.connect({"scores": tmp_path}) as sql:
        assert sql.execute(
            """select count(distinct model), max(labels) from (
                 select model, count(distinct (attribute_bindings, relation_bindings))
                        over (partition by subset, row_id) as labels from scores)"""
        ).fetchone() == (4, 1)


def test_rows_without_an_image_path_are_labelled_alike() -> None:
    """A label rests on texts alone: an absent image changes nothing."""
    one = Row("0", "0", ImageRef(Path("nowhere.png")), ("a red ball", "a blue box"))
    found, _ = label([Subset("valse", "existence", "choice", "wrong", "d", (one,))], TRAINING)
    assert found["valse", "existence", "0"]["attribute_bindings"] == "seen"
