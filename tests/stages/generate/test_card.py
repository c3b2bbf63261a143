from pathlib import Path
from typing import Any

import pytest

from pipeline import tables
from pipeline.schema import LABELS, NEGATIVES
from stages import labels
from stages.generate import Config, card
from stages.generate.responses import caption_key
from tests.stages.generate.canned import canned, captions, pairs, read, work


def test_the_card_says_what_the_table_holds(tmp_path: Path) -> None:
    rows = captions(60)
    out, meta = work(tmp_path, rows, backend="replay", model=str(canned(tmp_path / "r.jsonl", rows)))
    page = (out / "card.md").read_text()
    for kind, entry in meta["types"].items():
        assert f"| {kind} | {entry['pairs']['accepted']} |" in page
        assert f"| {kind} | identical | {entry['reasons']['identical']} |" in page
        assert f"| {kind} | ngrams | {meta['blind'][kind]['ngrams']['n']} |" in page
        shown = page.split(f"### {kind}\n")[1].split("###")[0]
        assert shown.count("\n| A ") == min(50, entry["pairs"]["accepted"])
    html = (out / "card.html").read_text()
    assert "told from their captions by a classifier of n-grams" in html.partition("<h2>")[0], (
        "its blind figure opens the card"
    )
    assert "<mark>" in html and "<details" in html


def test_captions_are_text_in_the_card(tmp_path: Path) -> None:
    told = {"model": "<script>", "captions": 1, "types": {}, "blind": {}, "paid": {}}
    hostile = "a `b` ![c](d) | <script>\n# e"
    given = pairs(tmp_path, [("p", hostile)])
    row: dict[str, Any] = {
        "pair_id": caption_key(f"p\0{hostile}"),
        "type": "swap_nouns",
        "status": "accepted",
        "text": hostile,
    }
    empty = {field.name: None if field.nullable else "" if "string" in str(field.type) else 0 for field in NEGATIVES}
    row = {**empty, **row}
    tables.write(tables.part(tmp_path / "negatives", 0), [row], NEGATIVES)
    card.write(tmp_path / "negatives", given.path, told, Config(backend="rules").model_dump(mode="json"))
    for name in ("card.md", "card.html"):
        page = (tmp_path / "negatives" / name).read_text()
        assert "<script>" not in page and "&lt;script&gt;" in page
    shown = (tmp_path / "negatives" / "card.md").read_text()
    assert r"a \`b\` !\[c\](d) \| &lt;script&gt; \# e" in shown


def test_precision_yield_and_cost_are_those_of_the_labels(tmp_path: Path) -> None:
    rows = captions(60)
    out, meta = work(tmp_path, rows, backend="replay", model=str(canned(tmp_path / "r.jsonl", rows)))
    assert "Not labelled: `degla label RUN`" in (out / "card.md").read_text()
    caption = {caption_key(f"{image}\0{text}"): text for image, text in rows}
    accepted = [row for row in read(out) if row["status"] == "accepted" and row["type"] == "swap_nouns"][:10]
    kept = [
        {"pair_id": row["pair_id"], "type": row["type"], "caption": caption[row["pair_id"]], "candidate": row["text"],
         "grammatical": True, "false": None if place == 9 else place > 2, "of_type": True}
        for place, row in enumerate(accepted)
    ]  # fmt: skip
    stranger = {**kept[-1], "candidate": "no candidate of this run", "false": True}
    tables.write(labels.file_of(out), [*kept, stranger], LABELS)

    found = labels.measured(out, meta["types"], meta["paid"], price_per_hour=2.0)
    assert set(found) == {"swap_nouns"}, "the others are not labelled"
    one, entry, paid = found["swap_nouns"], meta["types"]["swap_nouns"], meta["paid"]["swap_nouns"]
    assert one["precision"] == labels.share(6, 9) and one["undecided"] == 1
    assert one["yield"]["value"] == pytest.approx(6 / 9 * entry["acceptance"])
    assert one["tokens"] == pytest.approx(
        (paid["prompt_tokens"] + paid["reply_tokens"]) / (6 / 9 * entry["pairs"]["accepted"])
    )
    assert one["seconds"] == paid["seconds"] == one["money"] == 0, "a replay costs nothing"

    card.write(out, pairs(tmp_path, rows).path, meta, Config(backend="replay").model_dump(mode="json"))
    page = (out / "card.md").read_text()
    assert "| swap_nouns | 10 | 1 | 66.7 % | 35.4 to 87.9 % |" in page and "| replace_nouns | 0 | 0 | – |" in page
    html = (out / "card.html").read_text()
    assert "<td>66.7</td><td>35.4 to 87.9</td>" in html and "Not labelled" not in page + html
