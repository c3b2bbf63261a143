from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.schema import NEGATIVES
from stages.generate import Config, card
from stages.generate.responses import caption_key
from tests.stages.generate.canned import canned, captions, pairs, work


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
