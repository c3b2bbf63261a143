"""ARO's word-order foils of a caption, and whole order sets frozen to a file.

The four perturbations, in ARO's order: nouns and adjectives change places; all other words do; words do within each
trigram; trigrams do. ARO draws them at load time with spaCy, nltk and one running generator, so they depend on all
three; here each caption and perturbation has a generator of its own, seeded by the text, and the file is what counts.
Caption and foils are made of the same words (lower case, no punctuation, at most `MOST_WORDS`), so that nothing but
their order tells them apart.
"""

import json
import random
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline import tables
from pipeline.artifact import digest, file_sha256
from pipeline.stage import Progress, silent
from stages.text import words
from stages.text.word_order import PERTURBATIONS, perturb

MOST_WORDS = 30
EVERY = 1000


class Tagger(NamedTuple):
    """What says which words are nouns and adjectives.

    Attributes:
        name, version: what it is.
        digest: of everything else its answers depend on: models, word lists, rules.
        tag: caption -> its words in order with their Penn tags, punctuation left out.
    """

    name: str
    version: str
    digest: str
    tag: Callable[[str], list[tuple[str, str]]]


def textblob_tagger() -> Tagger:
    """TextBlob's PatternTagger with the project's lexicon (text/words.py); its word lists ship with it."""
    lists = sorted(Path(str(files("textblob") / "en")).glob("*.txt"))
    identity = digest([*(file_sha256(path) for path in lists), words.tagger_digest()])

    def tag(caption: str) -> list[tuple[str, str]]:
        return [(word.lower, word.tag) for word in words.parse(caption) if word.is_word]

    return Tagger("textblob.PatternTagger", version("textblob"), identity, tag)


def freeze(
    captions: Sequence[tuple[str, str]],
    target: Path,
    *,
    source: str = "",
    tagger: Tagger | None = None,
    seed: int = 0,
    drop_no_ops: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write `target` (rows {image_path, caption_options}) and, with the ending .yaml, what made it.

    Args:
        captions: image and caption of each row.
        target: a .json file, aro/coco_order.json or aro/flickr30k_order.json.
        source: digest of the file the captions are from, for the record.
        tagger: None = TextBlob's.
        seed: another one gives other foils.
        drop_no_ops: leave out rows of which a foil equals the caption: points for nothing, as ties count as right.
        progress: called with "captions".

    Returns:
        The record: source, tagger, seed, rows, dropped rows, foils equal to their caption by perturbation, sha256.
    """
    tagger = tagger or textblob_tagger()
    no_ops = dict.fromkeys(PERTURBATIONS, 0)
    rows, dropped = [], 0
    for done, (picture, caption) in enumerate(captions):
        tagged = tagger.tag(caption)[:MOST_WORDS]
        words, content = [word.lower() for word, _ in tagged], [tag.startswith(("NN", "JJ")) for _, tag in tagged]
        foils = {
            kind: perturb(words, content, kind, random.Random(f"{seed}/{kind}/{picture}/{caption}"))
            for kind in PERTURBATIONS
        }
        same = [kind for kind, foil in foils.items() if foil == words]
        for kind in same:
            no_ops[kind] += 1
        if same and drop_no_ops:
            dropped += 1
        else:
            rows.append({"image_path": picture, "caption_options": [" ".join(w) for w in (words, *foils.values())]})
        if done % EVERY == 0:
            progress("captions", done, len(captions))
    target.parent.mkdir(parents=True, exist_ok=True)
    tables.write_text(target, json.dumps(rows, ensure_ascii=False, indent=0) + "\n")
    record = {
        "source": source,
        "tagger": {"name": tagger.name, "version": tagger.version, "digest": tagger.digest},
        "seed": seed,
        "rows": len(rows),
        "dropped": dropped,
        "equal_to_the_caption": no_ops,
        "sha256": file_sha256(target),
    }
    tables.write_text(target.with_suffix(".yaml"), yaml.safe_dump(record, sort_keys=False))
    progress("captions", len(captions), len(captions))
    return record
