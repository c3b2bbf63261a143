import base64
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from pipeline.schema import DATASET
from pipeline.stage import silent
from stages.report import Config
from stages.report import stage as report
from stages.report.checklist import checklist
from stages.report.facts import headline
from tests.stages.small_road import SmallRoad, build, scored

NASTY = '<script>alert(1)</script> | **bold** & "quoted" [link](x) `code`'


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> SmallRoad:
    return scored(build(tmp_path_factory.mktemp("home")), curve=(0.5,))


@pytest.fixture(scope="module")
def page(road: SmallRoad, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    report.run(Config(), road.artifacts, out, silent)
    return out


def with_captions(road: SmallRoad, caption: str, folder: Path) -> dict[str, Artifact]:
    """The same artifacts, but every caption and negative of the dataset says something else."""
    dataset = road.artifacts["dataset"]
    rows = tables.read(dataset.path).to_pylist()
    for row in rows:
        row["caption"] = f"{caption} {row['pair_id']}"
        row["swap_nouns"] = caption
        row["image_key"] = f"{caption} {row['image_key']}"
    tables.write(tables.part(folder, 0), rows, DATASET)
    return {**road.artifacts, "dataset": dataclasses.replace(dataset, path=folder)}


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(path: Path) -> Tags:
    tags = Tags()
    tags.feed(path.read_text())
    assert not tags.open, f"never closed: {tags.open}"
    return tags


def test_the_page_is_one_well_formed_file_that_needs_no_network(page: Path) -> None:
    tags = parsed(page / "report.html")
    for tag, attributes in tags.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#", "../")), value
    text = (page / "report.html").read_text()
    assert "http:" not in text.replace("http://www.w3.org", "") and "https:" not in text and "@import" not in text
    assert 'name="viewport"' in text and "@media print" in text


def test_every_picture_has_words_and_every_figure_is_a_file_too(page: Path) -> None:
    images = [attributes for tag, attributes in parsed(page / "report.html").tags if tag == "img"]
    assert len(images) >= 8 and all(len(image["alt"] or "") > 10 for image in images)
    inline = {base64.b64decode((image["src"] or "").split(",")[1]) for image in images if "svg" in (image["src"] or "")}
    files = {path.read_bytes() for path in (page / "figures").glob("*.svg")}
    assert inline == files and len(files) == 8


def test_links_lead_somewhere(page: Path) -> None:
    tags = parsed(page / "report.html").tags
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    targets = {str(attributes["href"]) for tag, attributes in tags if tag == "a"}
    assert targets and targets <= {f"#{name}" for name in ids}


def test_equal_inputs_give_equal_bytes(road: SmallRoad, page: Path, tmp_path: Path) -> None:
    report.run(Config(), road.artifacts, tmp_path, silent)
    files = {path.relative_to(page) for path in page.rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    for name in files:
        assert (tmp_path / name).read_bytes() == (page / name).read_bytes(), name


def test_all_three_forms_say_the_same(road: SmallRoad, page: Path) -> None:
    facts = json.loads((page / "report.json").read_text())
    markdown, text = (page / "report.md").read_text(), " ".join(parsed(page / "report.html").text)
    for one in facts["headline"]:
        assert one["says"] in text and one["says"] in markdown
    found = road.artifacts["scores"].meta["aggregates"]
    assert {row["name"] for benchmark in facts["benchmarks"] for row in benchmark["rows"]} == set(found)
    for name, one in found.items():
        value = f"{100 * one['after']['value']:.1f}"
        assert value in text
        assert re.search(rf"\| {re.escape(name).replace('_', '.{1,3}')} \|.* {re.escape(value)} \[", markdown), name


def test_captions_cannot_become_markup(road: SmallRoad, tmp_path: Path) -> None:
    inputs = with_captions(road, NASTY, tmp_path / "dataset")
    report.run(Config(), inputs, tmp_path, silent)
    tags = parsed(tmp_path / "report.html")
    assert "script" not in {tag for tag, _ in tags.tags}
    assert any("<script>alert(1)</script>" in text for text in tags.text), "it is shown as text"
    markdown = (tmp_path / "report.md").read_text()
    assert "<script" not in markdown and "**bold**" not in markdown and "[link](x)" not in markdown
    for line in markdown.splitlines():
        if "alert" in line and line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, "a bar in a caption must not open a cell"


def test_the_gallery_shows_margins_of_both_models(road: SmallRoad, page: Path) -> None:
    facts = json.loads((page / "report.json").read_text())
    scores = tables.read(road.artifacts["scores"].path).to_pylist()
    told = {
        (row["model"], row["subset"], row["row_id"]): row["similarities"]
        for row in scores
        if row["benchmark"] == "heldout"
    }
    assert 0 < len(facts["gallery"]) <= 12
    for card in facts["gallery"]:
        for one in card["negatives"]:
            for model in ("before", "after"):
                true, false = told[model, one["type"], card["pair_id"]]
                assert one[model] == pytest.approx(true - false, abs=1e-6)
        assert card["won"] == sum(one["after"] > 0 >= one["before"] for one in card["negatives"])


def test_data_and_generation_are_counted(road: SmallRoad, page: Path) -> None:
    facts = json.loads((page / "report.json").read_text())
    assert facts["data"]["pairs"] == [
        {"split": "test", "pairs": 8, "pictures": 8}, {"split": "train", "pairs": 16, "pictures": 16},
    ]  # fmt: skip
    assert facts["data"]["pairs_rejected"] == [{"reason": "empty_caption", "rows": 1, "example": "x:1"}]
    assert facts["data"]["leaks"] == [
        {"benchmark": "sugarcrepe", "subset": "swap_att", "rule": "caption_hash", "rows": 1}
    ]
    assert [(row["type"], row["accepted"]) for row in facts["generation"]["types"]][-1] == ("replace_adjectives", 0)
    assert facts["generation"]["tokens"] == {"prompt": 24 * 5 * 10, "reply": 24 * 5 * 5}
    assert facts["training"]["steps"] == 20 and facts["training"]["terms"][0]["first"] == pytest.approx(0.95, abs=0.1)
    assert [one["kind"] for one in facts["provenance"]] == ["pairs", "negatives", "dataset", "model", "scores"]


def estimate(low: float, high: float, detectable: float | None = 0.03) -> dict[str, Any]:
    value = {"value": 0.5, "low": 0.4, "high": 0.6}
    change = {"value": (low + high) / 2, "low": low, "high": high, "p": 0.5, "detectable": detectable}
    return {"n": 10, "says": "rule", "before": value, "after": value, "difference": change}


@pytest.mark.parametrize(
    ("low", "high", "composition", "retention"),
    [
        (0.01, 0.05, "better than before: +3.0 points", "Nothing was lost"),
        (-0.05, -0.01, "worse than before: −3.0 points", "forgotten: −3.0 points"),
        (-0.02, 0.04, "No clear change", "a true loss under 3.0 points could hide"),
    ],
)
def test_the_headline_says_no_more_than_the_interval(low: float, high: float, composition: str, retention: str) -> None:
    both = {"composition": estimate(low, high), "zeroshot.mean": estimate(low, high)}
    first, second = headline(both)
    assert composition in first["says"] and retention in second["says"]


def test_the_headline_falls_back_and_admits_ignorance() -> None:
    first, second = headline({"heldout.mean": estimate(0.01, 0.05)})
    assert first["name"] == "heldout.mean" and second["verdict"] == "unknown"
    assert second["says"] == "Nothing measures it here."


def test_a_road_without_rejects_leaks_or_steps_still_reports(road: SmallRoad, tmp_path: Path) -> None:
    bare = {}
    for kind, artifact in road.artifacts.items():
        shutil.copytree(artifact.path, tmp_path / kind)
        bare[kind] = dataclasses.replace(artifact, path=tmp_path / kind)
    for name in ("pairs/pairs_rejected", "dataset/leaks", "model/steps"):
        shutil.rmtree(tmp_path / name)
    out = tmp_path / "out"
    report.run(Config(examples=0), bare, out, silent)
    text = " ".join(parsed(out / "report.html").text)
    assert "No training step was recorded." in text and "None was recorded." in text and "no held-out pairs" in text


def test_published_scores_are_joined_by_rule_and_only_on_the_official_files(road: SmallRoad, tmp_path: Path) -> None:
    """Joined by the name of the rule; never for the built-in world, nor when rows are missing."""
    scores = road.artifacts["scores"]

    def published(**changes: Any) -> dict[str, Any]:
        meta = json.loads(json.dumps(scores.meta)) | {"official": changes.pop("official")}
        meta["aggregates"]["sugarcrepe.swap_att"] |= changes
        found = dataclasses.replace(scores, manifest=scores.manifest.model_copy(update={"meta": meta}))
        out = tmp_path / str(changes)
        report.run(Config(), {**road.artifacts, "scores": found}, out, silent)
        return dict(json.loads((out / "report.json").read_text())["published"])

    assert published(official=False)["rows"] == []
    rows = {row["name"]: row for row in published(official=True)["rows"]}
    assert rows["sugarcrepe.swap_att"]["values"]["DeGLA"] == 82.1
    assert "sugarcrepe.macro7" not in rows, "two of seven subsets are another rule"
    assert "sugarcrepe.swap_att" not in {row["name"] for row in published(official=True, n=3)["rows"]}


def as_comparison(road: SmallRoad, path: Path, **changes: Any) -> Path:
    """comparison.json as an ablation over this very road's benchmarks would write it, with one rival."""
    found = road.artifacts["scores"].meta["aggregates"]
    names = ("composition", "zeroshot.mean")
    mean = {name: found[name]["after"]["value"] for name in names}
    rival = {"name": "negclip", "title": "NegCLIP's loss", "group": "rivals", "mean": mean, "sd": dict.fromkeys(names)}
    before = {name: one["before"]["value"] for name, one in found.items()} | changes
    lost = {"swap_nouns": {"sugarcrepe.swap_att": 0.05, "valse.plurals": None}}
    path.write_text(json.dumps({"rows": [rival], "before": before, "types": lost, "seeds": [1, 2, 3]}))
    return path


def test_rivals_of_an_ablation_from_the_same_start_stand_beside_the_run(road: SmallRoad, tmp_path: Path) -> None:
    compared = as_comparison(road, tmp_path / "comparison.json")
    report.run(Config(comparison=compared), road.artifacts, tmp_path, silent)
    facts = json.loads((tmp_path / "report.json").read_text())
    assert [one["label"] for one in facts["trade"]["rivals"]] == ["NegCLIP's loss"]
    text = " ".join(parsed(tmp_path / "report.html").text)
    assert "NegCLIP's loss" in text and "What each negative type gives" in text
    assert (tmp_path / "figures/types.svg").exists()


def test_an_ablation_from_another_start_is_not_joined(road: SmallRoad, tmp_path: Path) -> None:
    compared = as_comparison(road, tmp_path / "comparison.json", composition=0.123)
    report.run(Config(comparison=compared), road.artifacts, tmp_path, silent)
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["trade"]["rivals"] == []
    assert any("began from other scores" in note for note in facts["notes"])
    with pytest.raises(UserError, match=r"report: there is no .*absent.json"):
        report.outside(Config(comparison=tmp_path / "absent.json"))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"rows": 1}', b"\xff", b'{"rows": [{}], "before": {}, "types": {}, "seeds": []}']
)
def test_a_broken_comparison_is_one_line(road: SmallRoad, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "comparison.json").write_bytes(content)
    with pytest.raises(UserError, match=r"comparison.json: .*; fix: set report.comparison"):
        report.run(Config(comparison=tmp_path / "comparison.json"), road.artifacts, tmp_path, silent)


def test_the_curve_runs_from_start_over_mixtures_to_the_trained_model(road: SmallRoad, page: Path) -> None:
    trade = json.loads((page / "report.json").read_text())["trade"]
    found = road.artifacts["scores"].meta
    assert [one["alpha"] for one in trade["curve"]] == [0, 0.5, 1]
    assert [one["up"] for one in trade["curve"]] == [
        found["aggregates"]["composition"]["before"]["value"],
        found["curve"][0]["scores"]["composition"],
        found["aggregates"]["composition"]["after"]["value"],
    ]


def test_published_composition_is_the_mean_of_what_papers_print(road: SmallRoad, tmp_path: Path) -> None:
    """Levels are drawn only where every benchmark of our composition is official, whole and printed by the paper."""
    meta = json.loads(json.dumps(road.artifacts["scores"].meta)) | {"official": True}
    for name in ("sugarcrepe.macro7", "valse.mean11", "aro.mean4"):
        meta["aggregates"][name] = meta["aggregates"]["composition"] | {"headline": None}
    found = dataclasses.replace(
        road.artifacts["scores"], manifest=road.artifacts["scores"].manifest.model_copy(update={"meta": meta})
    )
    report.run(Config(), {**road.artifacts, "scores": found}, tmp_path, silent)
    levels = {
        one["label"]: one["value"] for one in json.loads((tmp_path / "report.json").read_text())["trade"]["levels"]
    }
    assert levels["DeGLA"] == pytest.approx((89.2 + 74.1 + 86.1) / 300, abs=1e-3)
    assert "READ-CLIP" not in levels, "it prints no mean over VALSE's files"


def lines(road: SmallRoad, **changed: Artifact) -> dict[str, bool | None]:
    return {line.says: line.holds for line in checklist({**road.artifacts, **changed})}


def altered(artifact: Artifact, **manifest: Any) -> Artifact:
    return dataclasses.replace(artifact, manifest=artifact.manifest.model_copy(update=manifest))


def test_each_line_of_the_checklist_follows_the_manifests(road: SmallRoad) -> None:
    scores, model = road.artifacts["scores"], road.artifacts["model"]
    said = lines(road)
    assert said["Every artifact was made from the ones shown here"] is True
    assert said["Similarities are fp32"] is True and said["Every row was scored"] is True
    assert said["Benchmark files are the official ones, by count and digest"] is False
    assert said["No step was lost to infinities"] is None, "this model's manifest does not say"

    def meta(**changes: Any) -> Artifact:
        return altered(scores, meta=json.loads(json.dumps(scores.meta)) | changes)

    other = {"before": {"activation": "quick_gelu"}, "after": {"activation": "gelu"}}
    for changed, says in (
        ({"scores": altered(scores, inputs={"model": "another"})}, "Every artifact was made from the ones shown here"),
        ({"model": altered(model, git={"commit": "f" * 40, "dirty": False})}, "One commit made everything"),
        ({"model": altered(model, git={"commit": "f" * 40, "dirty": True})}, "No file of that commit was changed"),
        ({"model": altered(model, packages={"torch": "0.1"})}, "One version of each package made everything"),
        ({"model": altered(model, meta=model.meta | {"not_finite": 2})}, "No step was lost to infinities"),
        ({"scores": meta(models=other)}, "All models compute one activation, recorded with their weights"),
        ({"scores": meta(protocols={"a.b": "choice;bf16;d"})}, "Similarities are fp32"),
        ({"scores": meta(protocols={"a.b": "choice;bf16;d"})}, "Each set names what a tie counts as"),
    ):
        assert lines(road, **changed)[says] is False, says


def test_every_loss_of_a_rival_has_its_curve(road: SmallRoad, page: Path) -> None:
    terms = [row["term"] for row in json.loads((page / "report.json").read_text())["training"]["terms"]]
    assert {"loss", "base_loss", "rank_loss", "fisher_loss", "contrast_distill_loss"} < set(terms)


def test_cards_are_linked_where_they_are(road: SmallRoad, page: Path, tmp_path: Path) -> None:
    links = [a.get("href") for tag, a in parsed(page / "report.html").tags if tag == "a"]
    assert not any(str(link).startswith("../") for link in links)
    shutil.copytree(road.artifacts["dataset"].path, tmp_path / "dataset")
    (tmp_path / "dataset" / "card.html").write_text("card")
    carded = dataclasses.replace(road.artifacts["dataset"], path=tmp_path / "dataset")
    report.run(Config(examples=0), {**road.artifacts, "dataset": carded}, tmp_path / "report", silent)
    links = [str(a.get("href")) for tag, a in parsed(tmp_path / "report/report.html").tags if tag == "a"]
    (link,) = (link for link in links if link.startswith("../"))
    assert (tmp_path / "report" / link).read_text() == "card"


def test_missing_pictures_become_a_note(road: SmallRoad, tmp_path: Path) -> None:
    scores = road.artifacts["scores"]
    meta = json.loads(json.dumps(scores.meta))
    meta["aggregates"]["sugarcrepe.swap_att"]["n"] = 3
    found = dataclasses.replace(scores, manifest=scores.manifest.model_copy(update={"meta": meta}))
    report.run(Config(), {**road.artifacts, "scores": found}, tmp_path, silent)
    assert "sugarcrepe.swap_att: 3 of 4 rows scored" in " ".join(parsed(tmp_path / "report.html").text)
