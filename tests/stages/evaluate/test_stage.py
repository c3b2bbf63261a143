import dataclasses
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import clip, tables
from pipeline.errors import UserError
from pipeline.schema import SCORES
from pipeline.stage import silent
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.loaders import Picture, Row, Subset
from stages.evaluate import blind
from stages.evaluate import stage as evaluate
from stages.evaluate.aggregates import PHENOMENA, aggregate, definitions
from stages.evaluate.encoder import Encoder
from stages.evaluate.scoring import margin, score
from stages.evaluate.stage import Config, measure
from tests.paths import real
from tests.stages.small_road import SmallRoad, build, model_folder, write_benchmarks


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> SmallRoad:
    return build(tmp_path_factory.mktemp("home"))


def run(road: SmallRoad, out: Path, **config: Any) -> tuple[pa.Table, dict[str, Any]]:
    out.mkdir(exist_ok=True)
    meta = evaluate.run(Config(resamples=200, **config), road.artifacts, out, silent)
    return tables.read(out), meta


def alone(student: str, root: Path, **config: Any) -> evaluate.Measured:
    return measure({"model": partial(clip.load, student)}, Config(root=root, official=False, resamples=100, **config))


# -- the stage ---------------------------------------------------------------------------------------------------------


def test_the_stage_scores_both_models_on_everything_there_is(road: SmallRoad, tmp_path: Path) -> None:
    scores, meta = run(road, tmp_path)
    assert scores.schema.equals(SCORES)
    there = {"sugarcrepe", "valse", "aro", "zeroshot", "retrieval", "heldout"}
    assert set(scores["benchmark"].unique().to_pylist()) == there
    rows = {one["values"]: one["counts"] for one in pc.value_counts(scores["model"].cast(pa.string())).to_pylist()}
    assert rows["before"] == rows["after"] > rows["blind:rule"] == rows["blind:ngrams"] > 0
    assert meta["notes"] == []
    assert json.loads(json.dumps(meta, allow_nan=False)) == meta
    for name in ("composition", "sugarcrepe.macro2", "valse.mean_files", "aro.vg_relation.macro", "aro.coco_order"):
        assert 0 <= meta["aggregates"][name]["before"]["low"] <= meta["aggregates"][name]["before"]["value"]
    assert {"zeroshot.mean", "zeroshot.circles.top1", "retrieval.i2t_r1", "heldout.swap_nouns"} < set(
        meta["aggregates"]
    )
    assert meta["models"]["after"]["activation"] == "gelu"


def test_every_aggregate_is_a_reread_of_the_scores(road: SmallRoad, tmp_path: Path) -> None:
    scores, meta = run(road, tmp_path)
    assert aggregate(scores, resamples=200) == meta["aggregates"]
    with tables.connect({"scores": tmp_path}) as sql:
        macro, right_first = sql.execute(
            """select (select avg(a) from (select avg(correct) a from scores
                       where model = 'after' and benchmark = 'sugarcrepe' group by subset)),
                      (select bool_and((correct = 1) = (similarities[1] > list_max(similarities[2:])))
                       from scores where protocol not like '%tie=right%' and not isnan(correct))"""
        ).fetchone()  # type: ignore[misc]
    assert meta["aggregates"]["sugarcrepe.macro2"]["after"]["value"] == pytest.approx(macro)
    assert right_first


def test_a_leaked_row_is_flagged_and_left_out_of_the_clean_score(road: SmallRoad, tmp_path: Path) -> None:
    scores, meta = run(road, tmp_path, benchmarks=("sugarcrepe",))
    flagged = scores.filter(scores["leaked"])
    assert set(zip(flagged["subset"].to_pylist(), flagged["row_id"].to_pylist(), strict=True)) == {("swap_att", "0")}
    assert meta["aggregates"]["sugarcrepe.swap_att"]["clean"]["n"] == 3
    assert "clean" not in meta["aggregates"]["sugarcrepe.add_obj"]


def test_a_finished_part_and_finished_embeddings_are_reused(road: SmallRoad, tmp_path: Path, monkeypatch: Any) -> None:
    _, meta = run(road, tmp_path)
    first = {path.name: path.read_bytes() for path in tables.files(tmp_path)}
    tables.part(tmp_path, 1).unlink()
    (tmp_path / ".work/after.json").unlink()
    loaded: list[str] = []
    load = clip.load
    monkeypatch.setattr(
        clip, "load", lambda model, *rest, **more: (loaded.append(model), load(model, *rest, **more))[1]
    )
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / ".work").rglob("*.npy")}
    _, meta_again = run(road, tmp_path)
    assert {path.name: path.read_bytes() for path in tables.files(tmp_path)} == first and meta_again == meta
    assert loaded and not any("tower" in name for name in loaded), "the starting model was finished: no loading"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / ".work").rglob("*.npy")} == written


def test_missing_pictures_are_not_scored_and_counted(road: SmallRoad, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_benchmarks(root)
    (root / "sugarcrepe/images/1.png").unlink()
    (root / "zeroshot/circles/images/0_red/1.png").unlink()
    scores, meta = run(road, tmp_path / "out", root=root, official=False)
    both = scores.filter(pc.is_in(scores["model"].cast(pa.string()), pa.array(["before", "after"])))
    lacking = both.filter(pc.is_nan(both["correct"]))
    assert lacking["similarities"].null_count == len(lacking) == 4  # two subsets, two models
    found = meta["aggregates"]["sugarcrepe.micro"]
    assert (found["n"], found["of"]) == (6, 8)


def test_one_encoding_per_distinct_picture_and_text(road: SmallRoad, tmp_path: Path) -> None:
    run(road, tmp_path)
    subsets, _ = evaluate._subsets(Config(), road.artifacts)
    pictures = {row.picture for s in subsets for row in s.rows if row.picture} | {
        p for s in subsets for p in s.pictures
    }
    texts = {t for s in subsets for row in s.rows for t in row.texts} | {
        t for s in subsets for ts in s.prompts for t in ts
    }
    for name, distinct in (("pictures", pictures), ("texts", texts)):
        (encoded,) = (tmp_path / ".work/before").glob(f"{name}-*.npy")
        assert len(np.load(encoded)) == len(distinct)


def test_mixtures_are_scored_between_start_and_trained(road: SmallRoad, tmp_path: Path) -> None:
    scores, meta = run(road, tmp_path, benchmarks=("sugarcrepe", "zeroshot"), curve=(0.5, 0.999999), blind=False)
    assert set(scores["model"].unique().to_pylist()) == {"before", "after", "mix:0.5", "mix:0.999999"}
    (half, nearly) = meta["curve"]
    assert [half["alpha"], nearly["alpha"]] == [0.5, 0.999999]
    assert nearly["scores"] == {name: one["after"]["value"] for name, one in meta["aggregates"].items()}
    assert set(meta["models"]) == {"before", "after", "mix:0.5", "mix:0.999999"}


def test_attacked_rows_stand_beside_the_others(road: SmallRoad, tmp_path: Path) -> None:
    _, meta = run(road, tmp_path, benchmarks=("zeroshot",), robustness={"rows": 3, "steps": 2}, blind=False)
    found = meta["aggregates"]["robust.zeroshot.mean"]
    assert found["n"] == 3 and {"before", "after", "difference"} <= set(found)


# -- scoring -----------------------------------------------------------------------------------------------------------


class Told:
    """A scorer that is told each embedding: the real scoring on known vectors."""

    def __init__(self, vectors: dict[Any, list[float]]) -> None:
        self.vectors = vectors

    def _of(self, items: Any) -> tuple[dict[Any, int], np.ndarray]:
        at = {item: index for index, item in enumerate(dict.fromkeys(items))}
        return at, np.asarray([self.vectors[item] for item in at] or [[0.0]], dtype=np.float32)

    pictures = texts = _of


def pictures(n: int) -> list[Picture]:
    return [Picture(Path(f"{index}.png")) for index in range(n)]


def pairs_of(n: int, **rest: Any) -> Subset:
    rows = tuple(Row(str(i), f"{i}", picture, (f"true {i}", f"false {i}")) for i, picture in enumerate(pictures(n)))
    return Subset(
        **({"benchmark": "sugarcrepe", "name": "swap_att", "rule": "choice", "tie": "wrong", "digest": "d"} | rest),
        rows=rows,
    )


def told(subset: Subset, cosines: list[tuple[float, float]]) -> dict[Any, list[float]]:
    """Unit vectors whose cosine with (1, 0) is as given; NaN = the picture is missing."""
    vectors: dict[Any, list[float]] = {}
    for row, (true, false) in zip(subset.rows, cosines, strict=True):
        vectors[row.picture] = [1.0, 0.0] if true == true else [float("nan")] * 2
        for text, cosine in zip(row.texts, (true, false), strict=True):
            vectors[text] = [cosine, float(np.sqrt(1 - cosine**2))] if cosine == cosine else [1.0, 0.0]
    return vectors


def accuracy(subset: Subset, cosines: list[tuple[float, float]]) -> dict[str, Any]:
    rows = score(Told(told(subset, cosines)), [subset], "model", set())
    return aggregate(pa.Table.from_pylist(rows, schema=SCORES), resamples=100)["sugarcrepe.micro"]


NAN = (float("nan"), float("nan"))


@pytest.mark.parametrize(
    ("cosines", "n", "value"),
    [
        ([(0.9, 0.1)] * 4, 4, 1.0),
        ([(0.1, 0.9)] * 4, 4, 0.0),
        ([NAN] * 4, 0, None),
        ([(0.9, 0.1), NAN, (0.2, 0.3), NAN], 2, 0.5),
    ],
    ids=["perfect", "inverted", "nothing", "half"],
)
def test_known_scorers(cosines: list[tuple[float, float]], n: int, value: float | None) -> None:
    found = accuracy(pairs_of(4), cosines)
    assert (found["n"], found["of"], found["model"]["value"]) == (n, 4, value)


def test_swapped_captions_give_one_minus_accuracy_minus_ties() -> None:
    rng = np.random.default_rng(0)
    cosines = [tuple(pair) for pair in rng.choice([0.1, 0.3, 0.5, 0.7], (60, 2)).tolist()]
    there = accuracy(pairs_of(60), cosines)["model"]
    back = accuracy(pairs_of(60), [(false, true) for true, false in cosines])["model"]
    ties = there["ties"]["n"] / 60
    assert ties > 0
    assert back["value"] == pytest.approx(1 - there["value"] - ties)
    assert there["ties"] == {"n": 60 * ties, "wrong": there["value"], "right": pytest.approx(there["value"] + ties)}


def test_the_tie_rule_is_the_benchmarks_own() -> None:
    tied = [(0.5, 0.5)] * 3
    assert accuracy(pairs_of(3), tied)["model"]["value"] == 0
    assert accuracy(pairs_of(3, tie="right"), tied)["model"]["value"] == 1


def test_texts_with_the_same_tokens_tie_exactly(road: SmallRoad, tmp_path: Path) -> None:
    """CLIP's tokenizer folds case and spaces: such an option is the caption itself, in whatever batch it comes."""
    path = road.artifacts["pairs"].path / "images/0.png"
    texts = ("a red circle", "A  red CIRCLE", "a blue and very long text about a circle and a square and a star")
    subset = Subset("aro", "coco_order", "choice", "right", "d", (Row("0", "0", Picture(path), texts),))
    encoder = Encoder(lambda: clip.load(str(model_folder(tmp_path / "tower"))), batch=1)
    (row,) = score(encoder, [subset], "m", set())
    assert row["similarities"][0] == row["similarities"][1] != row["similarities"][2]
    assert row["tie"] is (row["similarities"][0] > row["similarities"][2])


def test_retrieval_ranks_by_hand() -> None:
    """Three pictures on a line, two captions of the first: ranks counted by hand; a missing picture is no option."""
    p = pictures(4)
    vectors: dict[Any, list[float]] = {
        p[0]: [1.0, 0.0], p[1]: [0.8, 0.6], p[2]: [0.0, 1.0], p[3]: [float("nan")] * 2,
        "a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.8, 0.6], "d": [0.0, 1.0],
    }  # fmt: skip
    own = {"a": 0, "b": 0, "c": 1, "d": 3}
    to_text = tuple(
        Row(str(i), str(i), p[i], (), tuple(j for j, t in enumerate(own) if own[t] == i)) for i in (0, 1, 3)
    )
    to_image = tuple(Row(t, t, None, (t,), (i,)) for t, i in own.items())
    prompts = tuple((t,) for t in own)
    rows = score(
        Told(vectors),
        [
            Subset("retrieval", "i2t", "image_to_text", "wrong", "d", to_text, prompts),
            Subset("retrieval", "t2i", "text_to_image", "wrong", "d", to_image, (), tuple(p)),
        ],
        "model",
        set(),
    )
    correct = {(row["subset"], row["row_id"]): row["correct"] for row in rows}
    assert (correct["i2t", "0"], correct["i2t", "1"]) == (1, 1)
    assert np.isnan(correct["i2t", "3"]) and np.isnan(correct["t2i", "d"])
    assert (correct["t2i", "a"], correct["t2i", "b"], correct["t2i", "c"]) == (1, 0, 1)
    (b,) = (row for row in rows if row["row_id"] == "b")
    assert b["similarities"] == pytest.approx([0.6, 0.96, 0.8])  # its own picture, then the two others there are


def test_two_right_texts_and_squares_are_decided_as_their_benchmarks_do() -> None:
    assert margin("both", [0.5, 0.4, 0.3]) > 0 > margin("both", [0.5, 0.2, 0.3])
    assert margin("texts", [0.9, 0.2, 0.8]) > 0 > margin("texts", [0.7, 0.2, 0.8])
    assert margin("square", [0.9, 0.1, 0.2, 0.8]) > 0
    assert margin("square", [0.9, 0.1, 0.95, 0.96]) < 0, "the second picture takes the first caption"


def test_winoground_and_cola_scores_by_hand() -> None:
    """Three squares: all right; only each picture finds its caption; only each caption finds its picture."""
    squares = [[0.9, 0.1, 0.2, 0.8], [0.5, 0.4, 0.7, 0.8], [0.5, 0.7, 0.4, 0.8]]
    rows = [
        {"model": "m", "benchmark": name, "subset": subset, "row_id": str(i), "image_key": str(i), "group": None,
         "similarities": s, "correct": float(margin("square", s) > 0), "tie": False, "leaked": False, "protocol": "p"}
        for name, subset in (("winoground", "all"), ("cola", "multi_object")) for i, s in enumerate(squares)
    ]  # fmt: skip
    found = aggregate(pa.Table.from_pylist(rows, schema=SCORES), resamples=100)
    values = {name: one["m"]["value"] for name, one in found.items()}
    for name in ("winoground", "cola"):
        expected = {f"{name}.text": 2 / 3, f"{name}.image": 2 / 3, f"{name}.group": 1 / 3}
        assert {key: values[key] for key in expected} == pytest.approx(expected)
    assert found["winoground.group"]["subset"] == "all" and found["cola.image"]["subset"] == "multi_object"


def test_newer_sets_are_read_and_scored(road: SmallRoad, tmp_path: Path) -> None:
    picture = road.artifacts["pairs"].path / "images/0.png"
    for name in ("sugarcrepe_pp", "winoground", "cola"):
        (tmp_path / name / "images").mkdir(parents=True)
        shutil.copy(picture, tmp_path / name / "images" / "0.png")
        shutil.copy(picture.with_name("1.png"), tmp_path / name / "images" / "1.png")
    three = {"filename": "0.png", "caption": "a cup", "caption2": "one cup", "negative_caption": "a dog"}
    (tmp_path / "sugarcrepe_pp/swap_obj.json").write_text(json.dumps([{"id": 0, **three}]))
    line = {"id": 0, "image_0": "0", "image_1": "1", "caption_0": "a cup on a dog", "caption_1": "a dog on a cup"}
    (tmp_path / "winoground/examples.jsonl").write_text(json.dumps(line) + "\n")
    four = ["https://x/y/0.png", "a cup", "https://x/y/1.png", "a dog"]
    (tmp_path / "cola/COLA_multiobjects_matching_benchmark.json").write_text(json.dumps([four]))
    student = str(road.artifacts["model"].path / "student")
    scores, found, *_ = alone(student, tmp_path)
    lengths = {row["subset"]: len(row["similarities"]) for row in scores.to_pylist()}
    assert lengths == {"swap_obj.itt": 3, "swap_obj.tot": 3, "all": 4, "multi_object": 4}
    assert {"sugarcrepe_pp.itt", "sugarcrepe_pp.tot", "winoground.group", "cola.image"} <= set(found)
    assert "composition" not in found


def test_wider_ranks_are_read_from_the_similarities() -> None:
    rows = [
        {"model": "m", "benchmark": "retrieval", "subset": "i2t", "row_id": str(i), "image_key": str(i), "group": None,
         "similarities": [0.5, *([0.9] * better), *([0.1] * (10 - better))], "correct": float(better == 0),
         "tie": False, "leaked": False, "protocol": "p"}
        for i, better in enumerate([0, 1, 4, 5, 9, 10])
    ]  # fmt: skip
    found = aggregate(pa.Table.from_pylist(rows, schema=SCORES), resamples=100)
    values = {name: found[f"retrieval.i2t_{name}"]["m"]["value"] for name in ("r1", "r5", "r10")}
    assert values == pytest.approx({"r1": 1 / 6, "r5": 3 / 6, "r10": 5 / 6})


def test_models_asked_different_questions_are_not_compared(road: SmallRoad, tmp_path: Path) -> None:
    scores, _ = run(road, tmp_path, benchmarks=("sugarcrepe",))
    shorter = scores.slice(1)
    with pytest.raises(ValueError, match="different rows"):
        aggregate(shorter, resamples=100)


# -- judges that see no picture -------------------------------------------------------------------------------------


def foils(n: int, foil: str) -> Subset:
    rows = tuple(Row(str(i), str(i // 2), pictures(1)[0], (f"a cup number {i}", foil.format(i))) for i in range(n))
    return Subset("sugarcrepe", "swap_att", "choice", "wrong", "d", rows)


def right(judged: Any) -> float:
    return float(np.mean([scores[0] > max(scores[1:]) for scores in judged]))


def test_blind_judges_find_a_giveaway_and_nothing_else() -> None:
    """A foil that always says "zebra" is found without a picture; one that is told apart by nothing is a coin."""
    assert right(blind.ngrams(foils(80, "a zebra number {}"))) == 1
    assert right(blind.rule(foils(80, "a cup number {} stands here."))) == 1
    codes = np.random.default_rng(0).integers(0, 10**6, (300, 2))
    rows = tuple(Row(str(i), str(i), None, (f"a cup {a:06d}", f"a cup {b:06d}")) for i, (a, b) in enumerate(codes))
    coin = Subset("sugarcrepe", "swap_att", "choice", "wrong", "d", rows)
    assert 0.4 < right(blind.ngrams(coin)) < 0.6 and 0.4 < right(blind.rule(coin)) < 0.6


def test_the_classifier_never_learns_from_the_picture_it_judges() -> None:
    """Foils that repeat only within one picture teach nothing about another picture's."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), 8)) for _ in range(240)]
    rows = tuple(Row(str(i), str(i % 40), None, (words[i % 40], words[40 + i % 40])) for i in range(240))
    assert right(blind.ngrams(Subset("b", "s", "choice", "wrong", "d", rows))) < 0.75


def test_the_classifier_abstains_on_few_pictures() -> None:
    assert blind.ngrams(foils(10, "x {}")) == [None] * 10


class Longest:
    """A language model that finds long texts likely; it notes what it read."""

    read: ClassVar[list[str]] = []
    open: ClassVar[int] = 0

    def __init__(self, model: str, **_: Any) -> None:
        type(self).open += 1

    def likelihood(self, texts: list[str]) -> list[float]:
        self.read.extend(texts)
        return [float(len(text)) for text in texts]

    def close(self) -> None:
        type(self).open -= 1


def test_a_language_model_judges_each_text_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("stages.language_models.vllm.Engine", Longest)
    asked = [foils(30, "a cup number {} that is longer"), foils(30, "a cup")]
    judge = blind.likelihood("some/model", asked, tmp_path, silent)
    assert right(judge(asked[0])) == 0 and right(judge(asked[1])) == 1
    texts = {text for subset in asked for row in subset.rows for text in row.texts}
    assert sorted(Longest.read) == sorted(texts) and Longest.open == 0
    monkeypatch.setattr(
        "stages.language_models.vllm.Engine", None
    )  # what was read is kept: no engine is needed any more
    assert blind.likelihood("some/model", asked, tmp_path, silent)(asked[0]) == judge(asked[0])


def test_a_language_model_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "vllm.py").write_text("raise ImportError('No module named vllm')")
    with pytest.raises(UserError, match=r"^evaluate: vLLM with model .*vllm.*evaluate.likelihood=null"):
        blind.likelihood("data/language_model", [foils(2, "x {}")], tmp_path, silent)


def test_the_blind_rule_has_its_documented_score_on_sugarcrepe() -> None:
    """Documented: add_att 99.8, add_obj 99.4, replace_rel 73.1, swap_att 62.9 (the rest is a coin, so within 1)."""
    subsets = benchmarks.LOADERS["sugarcrepe"](real("benchmarks/sugarcrepe"))
    found = {subset.name: 100 * right(blind.rule(subset)) for subset in subsets}
    for name, value in {"add_att": 99.8, "add_obj": 99.4, "replace_rel": 73.1, "swap_att": 62.9}.items():
        assert found[name] == pytest.approx(value, abs=1)


# -- names of means ----------------------------------------------------------------------------------------------------


def test_valse_means_by_every_published_rule() -> None:
    """One score per file; the four rules as the papers state them, by hand."""
    rng = np.random.default_rng(0)
    n = {name: int(rng.integers(5, 40)) for name in PHENOMENA}
    right = {name: int(rng.integers(0, n[name])) for name in PHENOMENA}
    rows = [
        {"model": "m", "benchmark": "valse", "subset": name, "row_id": str(i), "image_key": f"{name}{i}", "group": None,
         "similarities": [1.0, 0.0], "correct": float(i < right[name]), "tie": False, "leaked": False, "protocol": "p"}
        for name in PHENOMENA for i in range(n[name])
    ]  # fmt: skip
    found = aggregate(pa.Table.from_pylist(rows, schema=SCORES), resamples=100)
    acc = {name: right[name] / n[name] for name in PHENOMENA}
    by: dict[str, list[float]] = {}
    for name, phenomenon in PHENOMENA.items():
        by.setdefault(phenomenon, []).append(acc[name])
    counting = float(np.mean(by["counting"]))
    nine = [counting, *(acc[name] for name, one in PHENOMENA.items() if one != "counting")]
    expected = {
        "mean11": np.mean(list(acc.values())), "mean_files": np.mean(list(acc.values())), "mean9": np.mean(nine),
        "mean7": np.mean([np.mean(values) for values in by.values()]), "micro": sum(right.values()) / sum(n.values()),
    }  # fmt: skip
    assert len(by) == 7 and len(nine) == 9
    for rule, value in expected.items():
        assert found[f"valse.{rule}"]["m"]["value"] == pytest.approx(value), rule


def test_composition_weighs_benchmarks_alike_and_weights_sum_to_one() -> None:
    present = {
        **{("sugarcrepe", name): [] for name in ("add_att", "swap_att", "replace_att")},
        **{("valse", name): [] for name in ("existence", "plurals")},
        ("aro", "vg_relation"): ["above", "below"],
        ("aro", "coco_order"): [],
        ("zeroshot", "circles"): ["red", "blue"],
    }
    made = definitions(present)
    for item in made:
        assert sum(weight for _, weight in item.cells) == pytest.approx(1), item.name
    share: dict[str, float] = {}
    for rows, weight in made[0].cells:
        share[rows[0][0]] = share.get(rows[0][0], 0) + weight
    assert made[0].name == "composition" and share == pytest.approx(
        dict.fromkeys(("sugarcrepe", "valse", "aro"), 1 / 3)
    )
    assert len({item.name for item in made}) == len(made)


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_unknown_benchmark_and_absent_root_fail_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no benchmark 'sugar'"):
        evaluate.outside(Config(benchmarks=("sugar",)))
    with pytest.raises(UserError, match="there is no folder"):
        evaluate.outside(Config(root=tmp_path / "nowhere"))


def test_outside_sees_changed_files_and_pictures(tmp_path: Path) -> None:
    write_benchmarks(tmp_path)
    config = Config(root=tmp_path, benchmarks=("sugarcrepe",))
    first = evaluate.outside(config)
    (tmp_path / "sugarcrepe/images/0.png").unlink()
    assert evaluate.outside(config) != first


def test_nothing_to_measure_is_said(road: SmallRoad, tmp_path: Path) -> None:
    no_split = dataclasses.replace(road.artifacts["pairs"], path=tmp_path / "elsewhere")
    inputs = {**road.artifacts, "pairs": no_split}
    with pytest.raises(UserError, match="there is no valse"):
        evaluate.run(Config(benchmarks=("valse",)), inputs, tmp_path, silent)


def test_any_model_is_evaluated_without_a_run(road: SmallRoad, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(road.artifacts["pairs"].path / "benchmarks", root)
    student = str(road.artifacts["model"].path / "student")
    scores, found, *_ = alone(student, root, benchmarks=("sugarcrepe", "aro"))
    _, meta = run(road, tmp_path / "out", benchmarks=("sugarcrepe", "aro"))
    assert found["composition"]["model"]["value"] == meta["aggregates"]["composition"]["after"]["value"]
    assert set(scores["benchmark"].unique().to_pylist()) == {"sugarcrepe", "aro"}
