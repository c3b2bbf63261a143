"""Held-out images on which the two models differ most: the caption, its negatives, and both models' margins.

A margin is similarity to the caption minus similarity to the negative; above 0 is right.
"""

from typing import Any

from pipeline.negative_types import ALL_TYPES
from pipeline.stage import Inputs
from stages.pages import changed_words
from stages.report.sql import asked

NOISE = 0.01
"""A margin (difference of cosines) that changed by less is left out."""

Card = dict[str, Any]


def cards(inputs: Inputs, examples: int) -> list[Card]:
    """As many images on which a negative turned right as on which one turned wrong, the largest changes first.

    Returns {pair_id, image_key, image_uri, caption, negatives, left_out (negatives whose margin hardly changed), won,
    lost} each; negatives are {type, text, words (each with whether the caption lacks it there), before, after}.
    """
    found = [card for card in _every(inputs) if card["negatives"]]
    found.sort(key=lambda card: -abs(card["moved"]))
    gains = [card for card in found if card["won"] > card["lost"] and card["moved"] > 0]
    losses = [card for card in found if card["lost"] > card["won"] and card["moved"] < 0]
    half = min(len(losses), examples // 2)
    chosen = _different_images(gains, examples - half) + _different_images(losses, half)
    return chosen or _different_images(found, examples)


def _every(inputs: Inputs) -> list[Card]:
    views = {"scores": inputs["scores"].table_folder("scores"), "dataset": inputs["dataset"].table_folder("dataset")}
    with asked(**views) as ask:
        rows = ask(
            """with margins as (
                 select row_id, subset, model, similarities[1] - similarities[2] as margin from scores
                 where benchmark = 'heldout' and similarities is not null),
               told as (
                 select row_id, subset, max(margin) filter (model = 'before') as before,
                        max(margin) filter (model = 'after') as after from margins group by 1, 2)
               select dataset.*, told.subset as type, before, after from told
               join dataset on pair_id = row_id where before is not null and after is not null
               order by pair_id, type"""
        )
    found: dict[str, Card] = {}
    for row in rows:
        card = found.setdefault(
            row["pair_id"],
            {key: row[key] for key in ("pair_id", "image_key", "image_uri", "caption")}
            | {"negatives": [], "left_out": 0},
        )
        if abs(row["after"] - row["before"]) < NOISE:
            card["left_out"] += 1
            continue
        text = row[row["type"]]
        card["negatives"].append(
            {"type": row["type"], "text": text, "words": changed_words(row["caption"], text)}
            | {model: row[model] for model in ("before", "after")}
        )
    for card in found.values():
        negatives = card["negatives"]
        negatives.sort(key=lambda one: ALL_TYPES.index(one["type"]))
        card["won"] = sum(one["after"] > 0 >= one["before"] for one in negatives)
        card["lost"] = sum(one["before"] > 0 >= one["after"] for one in negatives)
        card["moved"] = sum(one["after"] - one["before"] for one in negatives)
    return list(found.values())


def _different_images(found: list[Card], most: int) -> list[Card]:
    """The first cards, no image and no caption twice."""
    images = {card["image_key"]: card for card in reversed(found)}.values()
    captions = {card["caption"]: card for card in images}.values()
    return list(captions)[::-1][:most]
