"""Every table degla writes, as an explicit Arrow schema with a description per column."""

from collections.abc import Collection, Mapping

import pyarrow as pa

from pipeline.negative_types import ABSENCE, NEGATIVE_TYPES, UNITS, types_in

_ENUM = pa.dictionary(pa.int32(), pa.string())
_TEXTS = pa.list_(pa.string())
_CHANCES = pa.list_(pa.float32())
_TOKENS = pa.list_(pa.int32())
_TOKEN_LISTS = pa.list_(_TOKENS)


def _schema(*columns: tuple[str, pa.DataType, str] | tuple[str, pa.DataType, str, bool]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(name, kind, nullable=bool(rest), metadata={"description": description})
            for name, kind, description, *rest in columns
        ]
    )


NULL = True

PAIRS = _schema(
    ("pair_id", pa.string(), "sha256 of image_key and caption, 16 hex digits; unique"),
    ("image_key", pa.string(), "source:collection:id of the picture, e.g. coco:train2014:000000000009"),
    ("image_uri", pa.string(), "path of the picture, relative to the manifest's image_root"),
    ("image_sha256", pa.string(), "sha256 of the picture file"),
    ("phash", pa.uint64(), "perceptual hash (DCT, 64 bits); copies of a picture differ in few bits"),
    ("width", pa.int32(), "pixels, after EXIF rotation"),
    ("height", pa.int32(), "pixels, after EXIF rotation"),
    ("caption", pa.string(), "the caption, whitespace normalised"),
    ("source", _ENUM, "which reader brought it"),
    ("split", _ENUM, "train, val or test; all captions of a picture share one"),
    ("scene", pa.string(), "scene graph as JSON, built-in world only", NULL),
)

PAIRS_REJECTED = _schema(
    ("origin", pa.string(), "where it came from: file and row"),
    ("image_uri", pa.string(), "path of the picture as given", NULL),
    ("caption", pa.string(), "caption as given", NULL),
    ("reason", _ENUM, "slug of the rule that refused it"),
    ("detail", pa.string(), "what was found"),
)

PAIRS_NEGATIVES = _schema(
    ("pair_id", pa.string(), "the pair it came with"),
    ("type", _ENUM, "one of the five negative types where the source says which; else null", NULL),
    ("text", pa.string(), "a negative caption that the source brought"),
    ("origin", pa.string(), "which reader brought it: source, file and row"),
)

NEGATIVES = _schema(
    ("pair_id", pa.string(), "the pair it is a negative of"),
    ("type", _ENUM, "one of the five negative types, or paraphrase"),
    ("text", pa.string(), "the negative caption; null when there is none", NULL),
    ("status", _ENUM, "accepted, rejected, or not_applicable"),
    ("reason", _ENUM, "slug of the check that refused it; null when accepted", NULL),
    ("attempt", pa.int8(), "number of the try: 0, 1, ...; of the rules' proposals, or 1 = repair"),
    ("raw_reply", pa.string(), "what the generator answered", NULL),
    ("finish_reason", _ENUM, "stop, length, error, ...", NULL),
    ("prompt_tokens", pa.int32(), "tokens", NULL),
    ("reply_tokens", pa.int32(), "tokens", NULL),
    ("model", _ENUM, "generator that wrote it"),
    ("prompt_digest", _ENUM, "digest of rule and examples"),
    ("likelihood", pa.float32(), "log-probability of caption minus negative to the generator, if asked for", NULL),
    ("follows", pa.float32(), "probability that it is true where the caption is, by generate.verify", NULL),
    ("grammatical", pa.float32(), "probability that it is grammatical, by generate.verify", NULL),
    ("weight", pa.float32(), "chance that training takes it when its turn comes; below 1 where text gives it away"),
)

PROMPTS = _schema(
    ("digest", pa.string(), "as negatives.prompt_digest names it"),
    ("text", pa.string(), "the rule and the in-context examples, all that a generator is given before the caption"),
)

LABELS = _schema(
    ("pair_id", pa.string(), "the pair it is a negative of"),
    ("type", pa.string(), "one of the five negative types, or paraphrase"),
    ("caption", pa.string(), "the true caption"),
    ("candidate", pa.string(), "the accepted candidate that was read"),
    ("grammatical", pa.bool_(), "it is of the caption's own quality; null = undecided", NULL),
    ("false", pa.bool_(), "where the caption is true it is false; null = undecided", NULL),
    ("of_type", pa.bool_(), "it changes what its type promises and nothing else; null = undecided", NULL),
    ("plausible", pa.bool_(), "it could be a real image's caption; null = undecided", NULL),
)


def dataset_schema(kinds: Collection[str] = ()) -> pa.Schema:
    """The dataset table: it has columns of the paper's five types, and of further kinds of text if they were made."""
    types, has_absence, has_units = types_in({*NEGATIVE_TYPES, *kinds}), ABSENCE in kinds, UNITS in kinds
    absence = (ABSENCE, pa.string(), "the caption with something that the picture lacks, so true of it", NULL)
    absence_tokens = (f"{ABSENCE}_tokens", _TOKENS, f"token ids of {ABSENCE}; null where the text is", NULL)
    units = (
        (UNITS, _TEXTS, "things and relations that the caption names, one per foil", NULL),
        ("unit_foils", _TEXTS, "of each unit a text that is false of the picture", NULL),
    )
    unit_tokens = ((f"{name}_tokens", _TOKEN_LISTS, f"token ids of each of the {name}", NULL) for name, *_ in units)
    return _schema(
        ("pair_id", pa.string(), "unique"),
        ("image_key", pa.string(), "identity of the picture"),
        ("image_group", pa.string(), "smallest image_key among the pictures that are copies of this one"),
        ("image_uri", pa.string(), "path of the picture, relative to the pairs manifest's image_root"),
        ("caption", pa.string(), "the true caption"),
        *((kind, pa.string(), f"{kind} negative; null = none passed the checks", NULL) for kind in types),
        ("paraphrases", _TEXTS, "rewrites that keep the meaning", NULL),
        *[absence] * has_absence,
        *(units if has_units else ()),
        (
            "chances", _CHANCES,
            "chance that training takes each negative in its turn, in order of type; null = all 1", NULL,
        ),
        ("split", _ENUM, "train, val or test"),
        ("leaks", _TEXTS, "names of the benchmarks that share this picture or caption"),
        ("caption_tokens", _TOKENS, "token ids with start and end, at their own length, no padding"),
        *((f"{kind}_tokens", _TOKENS, f"token ids of {kind}; null where the text is", NULL) for kind in types),
        ("paraphrases_tokens", _TOKEN_LISTS, "token ids of each of the paraphrases; null where they are", NULL),
        *[absence_tokens] * has_absence,
        *(unit_tokens if has_units else ()),
    )  # fmt: skip


DATASET = dataset_schema()

LEAKS = _schema(
    ("pair_id", pa.string(), "the training pair"),
    ("benchmark", _ENUM, "benchmark it overlaps with"),
    ("subset", pa.string(), "subset of that benchmark"),
    ("row_id", pa.string(), "row of that subset"),
    ("rule", _ENUM, "image_id, caption_hash, perceptual_hash or foil_ngram"),
)

_UNWEIGHTED = {
    "base": ", unweighted",
    **dict.fromkeys(("distill", "igc", "tgc"), ", unweighted; NaN when its weight is 0"),
    "clip": ", unweighted; NaN when its weight is 0, as below",
}
"""What the first columns of the steps table say for all of them."""


def steps_schema(terms: Mapping[str, str]) -> pa.Schema:
    """The steps table of a training whose loss has these terms (name -> what it is), each a column `<name>_loss`."""
    return _schema(
        ("step", pa.int32(), "1-based optimizer step"),
        ("epoch", pa.float32(), "epochs done, fractional"),
        ("loss", pa.float32(), "weighted sum of the terms"),
        *((f"{name}_loss", pa.float32(), text + _UNWEIGHTED.get(name, "")) for name, text in terms.items()),
        ("logit_scale", pa.float32(), "exp of the learned parameter"),
        ("lr", pa.float32(), "learning rate used in this step"),
        ("grad_norm", pa.float32(), "global L2 norm before clipping"),
        ("samples_per_s", pa.float32(), "image-caption pairs per second"),
        ("data_wait", pa.float32(), "seconds spent waiting for the loader"),
    )


_BINDINGS = "training captions have: all seen, some mixed, none unseen; without = there are none; null = not asked"

SCORES = _schema(
    ("model", _ENUM, "before (the starting model) or after (the fine-tuned one), or a name"),
    ("benchmark", _ENUM, "a name of data/benchmarks.yaml: sugarcrepe, valse, zeroshot, retrieval, heldout, ..."),
    ("subset", _ENUM, "file, relation set, or class folder set of the benchmark"),
    ("row_id", pa.string(), "row of the subset"),
    ("image_key", pa.string(), "picture, one of the two clusters of intervals"),
    ("texts_key", pa.string(), "texts that decide the row, the other cluster; null = no other row has them", NULL),
    ("group", pa.string(), "what macro rules average over (relation, attribute pair, class)", NULL),
    ("similarities", pa.list_(pa.float32()), "cosine similarities in the row's option order; null = not scored", NULL),
    ("correct", pa.float32(), "1 right, 0 wrong, NaN not scored (picture missing)"),
    ("tie", pa.bool_(), "the decision rests on equal similarities"),
    ("leaked", pa.bool_(), "the row overlaps with training data"),
    ("attribute_bindings", _ENUM, f"of (attribute, object) pairs in the row's texts, {_BINDINGS}", NULL),
    ("relation_bindings", _ENUM, f"of (object, relation, object) in the row's texts, {_BINDINGS}", NULL),
    ("protocol", _ENUM, "protocol id: rule, precision, digest of the benchmark file"),
)

OPTIONS = _schema(
    ("benchmark", _ENUM, "as in scores, as are the next two"),
    ("subset", _ENUM, "subset of the benchmark"),
    ("row_id", pa.string(), "row of the subset"),
    ("rule", _ENUM, "what they are to the row (stages/benchmarks/rows.py): choice: the first is right; ..."),
    ("texts", _TEXTS, "the options, as scores.similarities has them; of rows with many options the right ones, of "
     "classify its first prompt; of text_to_image the query"),
    ("image", pa.string(), "the image's file, below evaluate.root or the pairs' images; null = there is none", NULL),
)  # fmt: skip

TABLES: dict[str, pa.Schema] = {
    "pairs": PAIRS,
    "pairs_rejected": PAIRS_REJECTED,
    "pairs_negatives": PAIRS_NEGATIVES,
    "negatives": NEGATIVES,
    "prompts": PROMPTS,
    "dataset": DATASET,
    "leaks": LEAKS,
    "steps": steps_schema({}),
    "scores": SCORES,
    "options": OPTIONS,
}
"""Table name -> schema; `steps` has a column more for each term of the loss."""
