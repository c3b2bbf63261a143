import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import tables
from pipeline.errors import TransientError, UserError
from pipeline.negative_types import NEGATIVE_TYPES
from pipeline.schema import NEGATIVES, PAIRS_NEGATIVES
from pipeline.stage import silent
from stages.generate import STAGE, Config
from stages.generate.responses import caption_key
from tests.stages.generate.canned import canned, captions, content, kept, pairs, read, reply_rows, work
from tests.stages.language_models.serving import Answer, completion, serving


def test_every_candidate_is_a_row_and_repairs_follow_refusals(tmp_path: Path) -> None:
    rows = captions(40)
    out, meta = work(tmp_path, rows, backend="replay", model=str(canned(tmp_path / "r.jsonl", rows)))
    found = read(out)
    assert tables.read(out).schema.equals(NEGATIVES)
    by_pair: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        by_pair.setdefault((row["pair_id"], row["type"]), []).append(row)
    assert len(by_pair) == 40 * 5
    for tries in by_pair.values():
        assert [row["attempt"] for row in tries] == list(range(len(tries)))
        assert all(row["status"] == "rejected" and row["reason"] and row["raw_reply"] for row in tries[:-1])
        assert len(tries) == 1 or tries[-1]["status"] == "accepted"
        assert (tries[-1]["reason"] is None) == (tries[-1]["status"] != "rejected")
    statuses = Counter(tries[-1]["status"] for tries in by_pair.values())
    assert statuses["accepted"] > 170 and statuses["not_applicable"] > 5 and statuses["rejected"] == 0
    assert {row["reason"] for row in found} == {None, "identical", "chatter", "length"}
    assert sum(entry["candidates"].get("rejected", 0) for entry in meta["types"].values()) == sum(
        row["status"] == "rejected" for row in found
    )
    for kind, paid in meta["paid"].items():
        assert paid["replies"] == sum(row["type"] == kind for row in found)
        assert paid["reply_tokens"] == sum(row["reply_tokens"] for row in found if row["type"] == kind)
    order = [(row["pair_id"], NEGATIVE_TYPES.index(row["type"]), row["attempt"]) for row in found]
    assert order == sorted(order)


def test_a_negative_of_one_picture_may_be_a_caption_of_another(tmp_path: Path) -> None:
    rows = [("p1", "A dog chases a cat."), ("p2", "A dog chases a cat."), ("p2", "A cat chases a dog.")]
    path = tmp_path / "r.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"type": "swap_nouns", "caption": caption, "reply": reply})
            for caption, reply in ((rows[1][1], rows[2][1]), (rows[2][1], "not applicable"))
        )
    )
    out, meta = work(tmp_path, rows, backend="replay", model=str(path), types=["swap_nouns"], repair_attempts=0)
    reasons = {(row["pair_id"], row["reason"]) for row in read(out) if row["raw_reply"] == "A cat chases a dog."}
    assert reasons == {
        (caption_key("p1\0A dog chases a cat."), None),
        (caption_key("p2\0A dog chases a cat."), "other_caption"),
    }
    assert meta["captions"] == 2


def test_negatives_that_the_source_brought_are_typed_judged_and_kept(tmp_path: Path) -> None:
    caption = "A red dog stands before a blue cat."
    brought = [
        "A red cat stands before a blue dog.",  # nouns
        "A blue dog stands before a red cat.",  # adjectives
        "A red horse stands before a blue cat.",
        "A red zebra stands before a blue cat.",  # of a type that is taken
        "A red dog stands before a blue cat .",  # nothing changed
    ]
    artifact = pairs(tmp_path, [("p", caption), ("q", "A boy sits.")])
    given = [{"pair_id": caption_key(f"p\0{caption}"), "text": text, "origin": "x"} for text in brought]
    config = Config(backend="given", max_reject_rate=1.0)
    out = tmp_path / "store" / "negatives" / "f.partial"
    with pytest.raises(UserError, match="brought no negatives"):
        STAGE.run(config, {"pairs": artifact}, out, silent)
    tables.write(tables.part(artifact.path / "pairs_negatives", 0), given, PAIRS_NEGATIVES)
    STAGE.run(config, {"pairs": artifact}, out, silent)
    found = {row["raw_reply"]: (row["type"], row["status"], row["reason"]) for row in read(out)}
    assert found == dict(
        zip(
            brought,
            [
                ("swap_nouns", "accepted", None),
                ("swap_adjectives", "accepted", None),
                ("replace_nouns", "accepted", None),
                ("replace_nouns", "rejected", "type_taken"),
                ("swap_nouns", "rejected", "identical"),
            ],
            strict=True,
        )
    )
    assert {row["model"] for row in read(out)} == {"given"}
    shutil.rmtree(out)
    STAGE.run(config.model_copy(update={"types": ("swap_nouns",)}), {"pairs": artifact}, out, silent)
    assert {row["raw_reply"] for row in read(out) if row["status"] == "accepted"} == {brought[0]}


def test_paraphrases_come_from_the_same_pass_when_they_are_wanted(tmp_path: Path) -> None:
    rows = [("p", "A dog and a cat sit in the garden."), ("q", "A bike leans on a car.")]
    out, meta = work(tmp_path, rows, backend="rules", types=["swap_nouns"], paraphrases=True)
    said = {row["pair_id"]: row["text"] for row in read(out) if row["type"] == "paraphrase"}
    assert len(said) == 2 and meta["types"]["paraphrase"]["pairs"]["accepted"] == 2
    assert "### paraphrase" in (out / "card.md").read_text() and "paraphrase" not in meta["blind"]


def test_new_captions_ask_only_themselves_and_changed_checks_nothing(tmp_path: Path) -> None:
    rows = captions(60)
    path = canned(tmp_path / "r.jsonl", rows, wrong=0)
    settings: dict[str, Any] = {"backend": "replay", "model": str(path), "shard_size": 16}
    work(tmp_path, rows[:40], "one", **settings)
    before = kept(tmp_path)
    out, _ = work(tmp_path, rows, "two", **settings)
    after = kept(tmp_path)
    assert before.items() <= after.items() and len(after) > len(before)
    new = [row["caption"] for name in after.keys() - before.keys() for row in reply_rows(tmp_path / name)]
    assert Counter(new) == Counter([caption for _, caption in rows[40:]] * 5)
    shutil.rmtree(out)
    path.write_text(path.read_text())  # same content: the source is the same
    work(tmp_path, rows, "three", **settings, max_reject_rate=0.4)
    assert kept(tmp_path) == after


def test_failed_asks_are_rows_and_are_asked_again_after_the_stage_gave_up(tmp_path: Path) -> None:
    rows = captions(20)
    whole = canned(tmp_path / "whole.jsonl", rows, wrong=0).read_text().splitlines()
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(whole[:50]))
    settings: dict[str, Any] = {"backend": "replay", "model": str(path)}
    out, meta = work(tmp_path, rows, "kept", **settings, max_error_rate=1.0)
    failed = [row for row in read(out) if row["status"] == "rejected"]
    assert {str(entry["pairs"]) for entry in meta["types"].values()} == {"{'accepted': 10, 'error': 10}"}
    assert len(failed) == 2 * 50 and {(row["reason"], row["finish_reason"]) for row in failed} == {("error", "error")}
    assert all("no reply" in row["raw_reply"] and row["text"] is None for row in failed)
    with pytest.raises(UserError, match="requests for reshuffle_order failed.*no reply.*max_error_rate"):
        work(tmp_path, rows, "refused", **settings)
    assert not list((tmp_path / "store" / "negatives" / "refused.partial").glob("**/faults/**/*.parquet"))


def test_a_repair_says_what_was_wrong_and_is_known_by_what_it_was_told(tmp_path: Path) -> None:
    rows = captions(12)
    replies = [json.loads(line) for line in canned(tmp_path / "r.jsonl", rows, wrong=0).read_text().splitlines()]
    good = {row["caption"]: row["reply"] for row in replies if row["type"] == "swap_nouns"}

    def answer(caption: str, before: int) -> Answer:
        return 200, {}, completion(good[caption] if before or kept(tmp_path) else caption)

    def asked(**settings: Any) -> tuple[list[list[dict[str, str]]], list[dict[str, Any]]]:
        with serving(answer) as (url, bodies):
            out, _ = work(tmp_path, rows, backend="openai", model="m", base_url=url, types=["swap_nouns"], **settings)
            found = read(out)
            shutil.rmtree(out)
        return [body["messages"][-3:] for body in bodies], found

    told, found = asked()
    repairs = [turns for turns in told if turns[-1]["content"] not in good]
    assert len(told) == 24 and len(repairs) == 12
    for caption, wrong, complaint in repairs:
        assert [turn["role"] for turn in (caption, wrong, complaint)] == ["user", "assistant", "user"]
        assert caption["content"] == wrong["content"] and complaint["content"].endswith(f"\n{caption['content']}")
        assert "it is the caption unchanged" in complaint["content"]
    outcome = Counter((row["attempt"], row["status"]) for row in found)
    assert outcome == {(0, "rejected"): 12, (1, "accepted"): 12}
    assert asked() == ([], found)
    blind, same = asked(repairs_say_why=False)
    assert len(blind) == 12 and all(turns[-1]["content"] in good for turns in blind)  # the first tries are there
    assert [row["raw_reply"] for row in same] == [row["raw_reply"] for row in found]
    assert asked() == ([], found) and asked(repairs_say_why=False) == ([], same)


def sampled(caption: str, before: int) -> Answer:
    """Three texts: the last one good, or only one of those of a second request."""
    words = caption.rstrip(".").split()
    good = " ".join([*words[:2], words[7], *words[3:7], words[2], *words[8:]]) + "."
    is_hard = caption.endswith(("3.", "7."))
    first = (caption, caption, "A dog.") if is_hard else (caption, caption, good)
    return 200, {}, completion(*((good, caption, "A dog.") if is_hard and before else first))


def sample(home: Path, answer: Callable[[str, int], Answer], dies_after: int | None = None) -> Path:
    with serving(answer, dies_after=dies_after) as (url, _):
        settings: dict[str, Any] = {"backend": "openai", "model": "m", "base_url": url, "samples": 3}
        out, _ = work(home, captions(40), types=["swap_nouns"], shard_size=16, concurrency=2, **settings)
    return out


def test_texts_sampled_together_are_tries_in_order_and_a_repair_follows_when_all_are_rejected(tmp_path: Path) -> None:
    out = sample(tmp_path, sampled)
    tries: dict[str, list[tuple[int, str, str | None]]] = {}
    for row in read(out):
        tries.setdefault(row["pair_id"], []).append((row["attempt"], row["status"], row["reason"]))
    easy = [(0, "rejected", "identical"), (1, "accepted", None)]
    hard = [(0, "rejected", "identical"), (1, "rejected", "length"), (3, "accepted", None)]
    assert Counter(map(tuple, tries.values())) == {tuple(easy): 32, tuple(hard): 8}
    asked = [row["attempt"] for name in kept(tmp_path) for row in reply_rows(tmp_path / name)]
    assert Counter(asked) == {0: 40, 1: 40, 3: 8, 4: 8, 5: 8}


def test_a_run_of_sampled_texts_that_was_cut_short_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    def first(caption: str, before: int) -> Answer:
        return sampled(caption, 0)  # whenever it is asked

    whole = content(sample(tmp_path / "whole", first))
    with pytest.raises(TransientError, match="the server is gone"):
        sample(tmp_path / "cut", first, dies_after=25)
    assert kept(tmp_path / "cut")
    assert content(sample(tmp_path / "cut", first)) == whole
