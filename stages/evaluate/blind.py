"""Text-only baselines: how much of a score needs no image. They read only the options of a row.

rule        no model: prefer the option without a final full stop; then odd spacing or a lower-case start; then fewer
            words; then fewer characters; then a coin. Written after looking at SugarCrepe, so an upper-ish bound there.
ngrams      a linear classifier of word and character n-grams that learns to tell true captions from foils on other
            images of the same subset (five folds, grouped by image).
likelihood  a language model: the option whose text has the highest log-probability.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.stage import Progress
from stages.benchmarks.rows import Subset
from stages.evaluate.pieces import pieces
from stages.evaluate.rows import Judge
from stages.language_models import vllm
from stages.language_models.folders import local_model
from stages.text.ngrams import FEWEST
from stages.text.ngrams import Judge as NgramJudge


def rule(subset: Subset) -> list[list[float]]:
    """Scores of each row's options; only options with the same text tie."""
    found = []
    for row in subset.rows:
        keys = [_surface(text) for text in row.texts]
        ranks = {key: rank for rank, key in enumerate(sorted(set(keys)))}
        found.append([-float(ranks[key]) for key in keys])
    return found


def _surface(text: str) -> tuple[bool, bool, int, int, int]:
    odd = text != text.strip() or "  " in text or text[:1].islower()
    return text.rstrip().endswith("."), not odd, len(text.split()), len(text), zlib.crc32(text.encode())


def ngrams(subset: Subset) -> list[list[float] | None]:
    """Scores of each row's options by a classifier that never saw the row's image; None when it abstains."""
    if len({row.image_key for row in subset.rows}) < FEWEST:
        return [None] * len(subset.rows)
    pairs = [(row.image_key, row.texts[0], text) for row in subset.rows for text in row.texts[1:]]
    judge = NgramJudge.train(*zip(*pairs, strict=True))
    options = [(row.image_key, text) for row in subset.rows for text in row.texts]
    scores = iter(-judge.score(*zip(*options, strict=True)))
    return [[float(next(scores)) for _ in row.texts] for row in subset.rows]


def likelihood(model: str, subsets: Sequence[Subset], work: Path, progress: Progress) -> Judge:
    """A baseline by the log-probability of the options under a language model; every distinct text is read once.

    Args:
        model: a local folder, or a name on the model hub; vLLM runs it.
        subsets: all that it will score.
        work: folder that keeps what was read, for a killed run.
        progress: callback.

    Raises UserError when vLLM or the model is not there.
    """
    rows = [row for subset in subsets if subset.rule == "choice" for row in subset.rows]
    texts = list(dict.fromkeys(text for row in rows for text in row.texts))
    engines: list[vllm.Engine] = []

    def read(piece: Sequence[str]) -> list[float]:
        if not engines:
            folder = str(local_model(model) or model)
            log = work / "engine.log"
            engines.append(vllm.Engine(folder, revision=None, temperature=0.0, top_p=1.0, seed=0, settings={}, log=log))
        return engines[0].likelihood(piece)

    try:
        found = list(pieces(work, "likelihood", texts, texts, read, progress))
    except UserError as error:
        raise UserError("evaluate", error.what, error.expected, "evaluate.likelihood=null, or degla doctor") from error
    finally:
        for engine in engines:
            engine.close()
    known = dict(zip(texts, (float(one) for piece in found for one in piece), strict=True))
    return lambda subset: [[known[text] for text in row.texts] for row in subset.rows]
