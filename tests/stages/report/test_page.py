"""The page: well formed, safe against what data says, the same bytes for the same inputs, one story in three forms."""

import base64
import dataclasses
import json
import re
import shutil
from pathlib import Path

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.schema import DATASET
from pipeline.stage import silent
from stages.report import Config
from stages.report import page as report
from tests.stages.report.reading import parsed, with_aggregate
from tests.stages.small_road import SmallRoad

NASTY = '<script>alert(1)</script> | **bold** & "quoted" [link](x) `code`'


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


def test_the_page_is_one_well_formed_file_that_needs_no_network(page: Path) -> None:
    tags = parsed(page / "report.html").tags
    assert {"html", "img", "table", "a"} <= {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#", "../")), value
    text = (page / "report.html").read_text()
    assert "http:" not in text.replace("http://www.w3.org", "") and "https:" not in text and "@import" not in text
    assert 'name="viewport"' in text and "@media print" in text


def test_every_image_has_words_and_every_figure_is_a_file_too(page: Path) -> None:
    images = [attributes for tag, attributes in parsed(page / "report.html").tags if tag == "img"]
    assert len(images) >= 3 and all(len(image["alt"] or "") > 10 for image in images)
    inline = {base64.b64decode((image["src"] or "").split(",")[1]) for image in images if "svg" in (image["src"] or "")}
    files = {path.read_bytes() for path in (page / "figures").glob("*.svg")}
    assert inline == files and len(files) == 3


def test_the_title_says_which_run_of_which_model_on_how_much(road: SmallRoad, page: Path, tmp_path: Path) -> None:
    assert "degla report" in (page / "report.html").read_text().partition("</title>")[0]
    report.write(Config(run="mine", description="<i>tuned</i> on the val split."), road.artifacts, tmp_path, silent)
    text = " ".join(parsed(tmp_path / "report.html").text)
    assert "mine, degla report" in text and "tower from random weights, trained on 16 pairs with 64 negatives" in text
    assert "<i>tuned</i> on the val split." in text, "what the recipe says is a note"
    assert (tmp_path / "report.md").read_text().startswith("# mine\n\ntower from random weights")


def test_a_set_stands_once(page: Path) -> None:
    text = (page / "report.html").read_text()
    assert text.count("vg_<wbr>relation.<wbr>macro") == 1


def test_links_lead_somewhere(page: Path) -> None:
    tags = parsed(page / "report.html").tags
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    targets = {str(attributes["href"]) for tag, attributes in tags if tag == "a"}
    beside = {"../lineage.html"}  # written when the run ends (tests/stages/report/test_lineage.py)
    assert targets and targets <= {f"#{name}" for name in ids} | beside


def test_equal_inputs_give_equal_bytes(road: SmallRoad, page: Path, tmp_path: Path) -> None:
    report.write(Config(), road.artifacts, tmp_path, silent)
    files = {path.relative_to(page) for path in page.rglob("*") if path.is_file()}
    assert {Path(name) for name in ("report.html", "report.md", "report.json")} < files
    assert files == {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    for name in files:
        assert (tmp_path / name).read_bytes() == (page / name).read_bytes(), name


def test_all_three_forms_say_the_same(road: SmallRoad, page: Path) -> None:
    facts = json.loads((page / "report.json").read_text())
    markdown, text = (page / "report.md").read_text(), " ".join(parsed(page / "report.html").text)
    assert len(facts["headline"]) == 2
    for one in facts["headline"]:
        assert one["says"] in text and one["says"] in markdown
    assert [one["name"] for one in facts["side_by_side"]] == [
        "sugarcrepe.mean_files", "valse.mean_files", "aro.mean_vg", "zeroshot.mean",
    ]  # fmt: skip
    assert all(one["title"] in text and one["title"] in markdown for one in facts["side_by_side"])
    found = road.artifacts["scores"].meta["aggregates"]
    assert len(found) > 10
    assert {row["name"] for benchmark in facts["benchmarks"] for row in benchmark["rows"]} == set(found)
    for name, one in found.items():
        value = f"{100 * one['after']['value']:.1f}"
        assert value in text
        assert re.search(rf"\| {re.escape(name).replace('_', '.{1,3}')} \|.* {re.escape(value)} \[", markdown), name


def test_captions_cannot_become_markup(road: SmallRoad, tmp_path: Path) -> None:
    inputs = with_captions(road, NASTY, tmp_path / "dataset")
    report.write(Config(), inputs, tmp_path, silent)
    tags = parsed(tmp_path / "report.html")
    assert "script" not in {tag for tag, _ in tags.tags}
    assert any("<script>alert(1)</script>" in text for text in tags.text), "it is shown as text"
    markdown = (tmp_path / "report.md").read_text()
    assert "<script" not in markdown and "**bold**" not in markdown and "[link](x)" not in markdown
    cells = [line for line in markdown.splitlines() if "alert" in line and line.startswith("|")]
    assert cells
    for line in cells:
        assert len(re.findall(r"(?<!\\)\|", line)) == 5, "a bar in a caption must not open a cell"


def test_a_run_without_rejects_leaks_or_steps_still_reports(road: SmallRoad, tmp_path: Path) -> None:
    bare = {}
    for kind, artifact in road.artifacts.items():
        shutil.copytree(artifact.path, tmp_path / kind)
        bare[kind] = dataclasses.replace(artifact, path=tmp_path / kind)
    for name in ("pairs/pairs_rejected", "dataset/leaks", "model/steps"):
        shutil.rmtree(tmp_path / name)
    out = tmp_path / "out"
    report.write(Config(examples=0), bare, out, silent)
    text = " ".join(parsed(out / "report.html").text)
    assert "No training step was recorded." in text and "Not looked for." in text and "no held-out pairs" in text


def test_cards_are_linked_where_they_are(road: SmallRoad, page: Path, tmp_path: Path) -> None:
    links = [a.get("href") for tag, a in parsed(page / "report.html").tags if tag == "a"]
    assert links and not any("card" in str(link) for link in links)
    shutil.copytree(road.artifacts["dataset"].path, tmp_path / "dataset")
    (tmp_path / "dataset" / "card.html").write_text("card")
    carded = dataclasses.replace(road.artifacts["dataset"], path=tmp_path / "dataset")
    report.write(Config(examples=0), {**road.artifacts, "dataset": carded}, tmp_path / "report", silent)
    links = [str(a.get("href")) for tag, a in parsed(tmp_path / "report/report.html").tags if tag == "a"]
    (link,) = (link for link in links if "card" in link)
    assert (tmp_path / "report" / link).read_text() == "card"


def test_missing_images_become_a_note(road: SmallRoad, tmp_path: Path) -> None:
    scores = with_aggregate(road.artifacts["scores"], "sugarcrepe.swap_att", n=3)
    report.write(Config(), {**road.artifacts, "scores": scores}, tmp_path, silent)
    assert "sugarcrepe.swap_att: 3 of 4 rows scored" in " ".join(parsed(tmp_path / "report.html").text)


def test_what_a_write_leaves_is_whole(page: Path, road: SmallRoad, tmp_path: Path) -> None:
    """A file that a killed run left half-written is replaced, and no temporary file stays."""
    (tmp_path / "report.html").write_text("half")
    told: list[tuple[str, int, int]] = []
    found = report.write(Config(), road.artifacts, tmp_path, lambda *step: told.append(step))
    assert (tmp_path / "report.html").read_bytes() == (page / "report.html").read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))
    assert told == [("report", done, 4) for done in (1, 2, 3, 4)]
    assert sorted(found["figures"]) == sorted(path.stem for path in (tmp_path / "figures").iterdir())
