"""Which means are reported, under which names, and what each says: every one a re-read of the scores table.

"Average" alone means three or four different things on the same benchmark (one published run is 74.1, 75.4, 76.6 or
76.1 on VALSE by rule alone), so a mean has a name here or it does not exist.

Shapes: M models · N rows · C cells.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from stages.benchmarks.loaders import registry
from stages.evaluate import statistics
from stages.evaluate.scoring import BLIND

Selector = tuple[str, str, str | None]
"""benchmark, subset, group; group None = all rows of the subset."""

Cells = tuple[tuple[tuple[Selector, ...], float], ...]
"""The rows of each cell, and its weight."""

Present = Mapping[tuple[str, str], Iterable[str]]
"""(benchmark, subset) -> the groups its rows are in."""

PHENOMENA = {
    "existence": "existence",
    "plurals": "plurality",
    "relations": "relations",
    "foil-it": "foil-it",
    **dict.fromkeys(("counting-hard", "counting-small-quant", "counting-adversarial"), "counting"),
    **dict.fromkeys(("action-replacement", "actant-swap"), "actions"),
    **dict.fromkeys(("coreference-standard", "coreference-hard"), "coreference"),
}
"""VALSE's eleven files by linguistic phenomenon."""

RANKS = {"correct": 1, "at5": 5, "at10": 10}
"""Measures: the right option beats all wrong ones, or all but 4, or all but 9."""

SIDES: dict[str, Callable[[list[float]], bool]] = {
    "text": lambda s: s[0] > s[1] and s[3] > s[2],
    "image": lambda s: s[0] > s[2] and s[3] > s[1],
    "original": lambda s: s[0] > s[2],
    "brittle": lambda s: (s[0] > s[2] > s[1]) or (s[1] > s[2] > s[0]),
}
"""Measures of a square: each picture finds its text, each text finds its picture; `correct` asks for both. Of two right
texts and a wrong one: the first beats it; the wrong one comes between them. All count a tie as not so."""


@dataclass(frozen=True)
class Aggregate:
    """A named mean: sum over cells of weight · mean of the cell's rows.

    Attributes:
        name: what it is called everywhere.
        says: the rule in words.
        cells: the rows of each cell, and its weight.
        measure: what is averaged, a key of `RANKS` or `SIDES`.
        chance: what guessing scores, or None where that depends on the rows.
        headline: composition or retention when it answers that question as a whole.
        subset: the subset it is the score of, when it is the one score of one subset.
    """

    name: str
    says: str
    cells: Cells
    measure: str = "correct"
    chance: float | None = None
    headline: str | None = None
    subset: str | None = None


def definitions(present: Present) -> list[Aggregate]:
    """The aggregates that these subsets (benchmark, subset) -> groups allow, in the order of a report."""
    benchmarks: dict[str, list[str]] = {}
    for benchmark, subset in present:
        benchmarks.setdefault(benchmark, []).append(subset)
    made = {name: _MAKERS.get(name, _pairwise)(name, sorted(subsets), present) for name, subsets in benchmarks.items()}
    parts = {name: _heads(made[name]) for name in ("sugarcrepe", "valse", "aro") if name in made}
    found = [item for items in made.values() for item in items]
    if parts:
        says = f"plain mean of {' + '.join(parts)} (SugarCrepe, VALSE: mean of their files; ARO: mean of its sets)"
        cells = _nested(list(parts.values()))
        found.insert(0, Aggregate("composition", says, cells, headline="composition"))
    return found


def _heads(made: list[Aggregate]) -> list[Cells]:
    """The one score of each subset."""
    return [item.cells for item in made if item.subset]


def _nested(parts: Sequence[Sequence[Cells]]) -> Cells:
    """Mean of the parts, each the mean of its means."""
    return tuple((rows, weight / len(part) / len(parts)) for part in parts for cells in part for rows, weight in cells)


def _mean(name: str, says: str, cells: Iterable[Iterable[Selector]], **rest: Any) -> Aggregate:
    """Plain mean over cells."""
    listed = [tuple(rows) for rows in cells]
    return Aggregate(name, says, tuple((rows, 1 / len(listed)) for rows in listed), **rest)


def _each(benchmark: str, names: Iterable[str], chance: float) -> list[Aggregate]:
    return [
        _mean(f"{benchmark}.{name}", "accuracy", [[(benchmark, name, None)]], chance=chance, subset=name)
        for name in names
    ]


def _pairwise(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    every: list[Selector] = [(benchmark, name, None) for name in names]
    return [
        _mean(f"{benchmark}.mean", "plain mean of the subsets", [[row] for row in every], chance=0.5),
        _mean(f"{benchmark}.micro", "accuracy over all rows", [every], chance=0.5),
        *_each(benchmark, names, 0.5),
    ]


def _sugarcrepe(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    groups: dict[str, list[Selector]] = {}
    for name in names:
        groups.setdefault(name.partition("_")[0], []).append((benchmark, name, None))
    every = [row for rows in groups.values() for row in rows]
    made = [
        _mean(f"{benchmark}.macro{len(names)}", "plain mean of the subsets", [[row] for row in every]),
        _mean(f"{benchmark}.group_micro", "mean over replace, swap, add of their micro (FSC-CLIP)", groups.values()),
        _mean(f"{benchmark}.micro", "accuracy over all rows", [every]),
    ]
    for group, rows in groups.items():
        made.append(_mean(f"{benchmark}.{group}", f"plain mean of {group}_* (DeGLA, CE-CLIP)", [[row] for row in rows]))
    return [*(replace(item, chance=0.5) for item in made), *_each(benchmark, names, 0.5)]


def _valse(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    every: dict[str, Selector] = {name: (benchmark, name, None) for name in names}
    one: dict[str, Cells] = {name: (((row,), 1.0),) for name, row in every.items()}
    files = _nested([list(one.values())])
    made = [Aggregate(f"{benchmark}.mean_files", f"plain mean of the {len(names)} files", files)]
    if set(names) == set(PHENOMENA):
        phenomena = dict.fromkeys(PHENOMENA.values())
        seven = _nested([[one[name] for name in names if PHENOMENA[name] == each] for each in phenomena])
        counting = [one[name] for name in names if PHENOMENA[name] == "counting"]
        nine = _nested([counting, *([one[name]] for name in names if PHENOMENA[name] != "counting")])
        made += [
            Aggregate(f"{benchmark}.mean11", "plain mean of the 11 files (DeGLA, CE-CLIP)", files),
            Aggregate(f"{benchmark}.mean9", "mean of 9 columns, the counting files as one (CE-CLIP+)", nine),
            Aggregate(f"{benchmark}.mean7", "mean of 7 phenomena, files averaged inside (FSC-CLIP, CS-CLIP)", seven),
        ]
    made.append(_mean(f"{benchmark}.micro", "accuracy over all valid rows (READ-CLIP)", [every.values()]))
    return [*(replace(item, chance=0.5) for item in made), *_each(benchmark, names, 0.5)]


def _aro(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    made = []
    units = {"vg_relation": "relations, symmetric ones left out", "vg_attribution": "attribute pairs of >= 25 rows"}
    for name in names:
        every = [[(benchmark, name, None)]]
        groups = sorted(present[benchmark, name])
        if name not in units:
            made += _each(benchmark, [name], 0.2)
        elif groups:
            cells = [[(benchmark, name, group)] for group in groups]
            says = f"mean over {len(groups)} {units[name]}"
            made.append(_mean(f"{benchmark}.{name}.macro", says, cells, chance=0.5, subset=name))
            made.append(_mean(f"{benchmark}.{name}.micro", "accuracy over all rows", every, chance=0.5))
        else:
            made.append(_mean(f"{benchmark}.{name}.micro", "accuracy over all rows", every, chance=0.5, subset=name))
    if len(names) == 4:
        says = "mean of the two macros and the two order sets"
        made.insert(0, Aggregate(f"{benchmark}.mean4", says, _nested([_heads(made)])))
    return made


def _zeroshot(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    every = [[(benchmark, name, None)] for name in names]
    says = f"plain mean of top-1 over {len(names)} sets"
    made = [_mean(f"{benchmark}.mean", says, every, headline="retention")]
    eleven: list[Cells] = []
    metrics = {name: facts["metric"] for name, facts in registry()[benchmark]["subsets"].items()}
    for name in names:
        rows, classes = [[(benchmark, name, None)]], sorted(present[benchmark, name])
        cells, chance = [[(benchmark, name, label)] for label in classes], 1 / len(classes)
        top1 = _mean(f"{benchmark}.{name}.top1", "top-1 accuracy", rows, chance=chance, subset=name)
        per_class = _mean(f"{benchmark}.{name}.mean_per_class", "top-1, mean over classes", cells, chance=chance)
        made += [top1, per_class]
        if len(classes) > 5:
            made.append(_mean(f"{benchmark}.{name}.top5", "top-5 accuracy", rows, measure="at5", chance=5 * chance))
        if name in metrics:
            eleven.append((per_class if metrics[name] == "mean_per_class" else top1).cells)
    if len(eleven) == len(metrics):
        says = (
            "plain mean of the 11 sets, mean per class for pets, flowers102, caltech101, aircraft, else top-1 (DeGLA)"
        )
        made.insert(1, Aggregate(f"{benchmark}.mean11", says, _nested([[cells] for cells in eleven])))
    return made


def _retrieval(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    every = [[(benchmark, name, None)] for name in names]
    made = [_mean(f"{benchmark}.mean_r1", "plain mean of R@1 in both directions", every, headline="retention")]
    for name in names:
        for measure, k in RANKS.items():
            rest: dict[str, Any] = {"measure": measure} if k > 1 else {"subset": name}
            says = f"R@{k}: a right one among the first {k}"
            made.append(_mean(f"{benchmark}.{name}_r{k}", says, [[(benchmark, name, None)]], **rest))
    return made


def _sugarcrepe_pp(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    made = []
    for task, says in (("itt", "both captions beat the negative"), ("tot", "the captions are nearest to each other")):
        rows = [[(benchmark, name, None)] for name in names if name.endswith(f".{task}")]
        if rows:
            made.append(_mean(f"{benchmark}.{task}", f"mean of {len(rows)} subsets: {says}", rows, chance=1 / 3))
    return [*made, *_each(benchmark, names, 1 / 3)]


def _square(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Winoground's three scores, BiVLC's I2T, T2I and group. COLA's and MMVP's one is the image score."""
    every: list[Selector] = [(benchmark, name, None) for name in names]
    main = {"cola": "image", "mmvp": "image"}.get(benchmark, "correct")
    sides = {"text": "each picture finds its caption", "image": "each caption finds its picture", "correct": "both"}
    made = []
    for measure, says in sides.items():
        rest: dict[str, Any] = {"measure": measure, "chance": 1 / 6 if measure == "correct" else 0.25}
        called = "group" if measure == "correct" else measure
        made.append(_mean(f"{benchmark}.{called}", says, [every], **rest))
        if measure == main and len(names) == 1:
            made[-1] = replace(made[-1], subset=names[0])
        elif measure == main:
            made += [_mean(f"{benchmark}.{one[1]}.{called}", says, [[one]], subset=one[1], **rest) for one in every]
    return made


def _hard_positives(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    made = []
    for name in names:
        rows = [[(benchmark, name, None)]]
        made += [
            _mean(f"{benchmark}.{name}", "augmented: both captions beat the negative", rows, chance=1 / 3, subset=name),
            _mean(f"{benchmark}.{name}.original", "the first caption does", rows, measure="original", chance=0.5),
            _mean(
                f"{benchmark}.{name}.brittleness",
                "the negative comes between the two captions; lower is better",
                rows,
                measure="brittle",
                chance=1 / 3,
            ),
        ]
    return made


def _vl_checklist(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Subsets are kind.source_..._part; the sources of a part count alike, and so do the parts of a kind."""
    made = []
    for kind in ("object", "attribute", "relation"):
        parts: dict[str, list[Cells]] = {}
        for name in names:
            if name.startswith(f"{kind}."):
                parts.setdefault(name.rpartition("_")[2], []).append(((((benchmark, name, None),), 1.0),))
        if parts:
            says = f"mean over {', '.join(parts)}; of each, mean of its files"
            made.append(Aggregate(f"{benchmark}.{kind}", says, _nested(list(parts.values())), chance=0.5))
    return [*made, *_each(benchmark, names, 0.5)]


def _robust(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Attacked rows of other benchmarks, and the same rows untouched; see stages/evaluate/robustness.py."""
    made = []
    for question, asks in (("zeroshot", True), ("pairs", False)):
        sets = [name.removesuffix(".attacked") for name in names if name.endswith(".attacked")]
        sets = [name for name in sets if name.startswith("zeroshot.") is asks]
        for side, end, says in (("attacked", "mean", "under attack"), ("clean", "clean", "the same rows, untouched")):
            if sets:
                rows = [[(benchmark, f"{name}.{side}", None)] for name in sets]
                made.append(_mean(f"{benchmark}.{question}.{end}", f"plain mean of {len(sets)} sets, {says}", rows))
        for name in sets:
            one = f"{name}.attacked"
            made.append(_mean(f"{benchmark}.{name}", "accuracy under attack", [[(benchmark, one, None)]], subset=one))
    return made


_MAKERS = {"sugarcrepe": _sugarcrepe, "valse": _valse, "aro": _aro, "zeroshot": _zeroshot, "retrieval": _retrieval}
_MAKERS |= {"coco_retrieval": _retrieval, "flickr30k_retrieval": _retrieval, "sugarcrepe_pp": _sugarcrepe_pp}
_MAKERS |= dict.fromkeys(("winoground", "cola", "bivlc", "mmvp"), _square)
_MAKERS |= {"hard_positives": _hard_positives, "vl_checklist": _vl_checklist, "robust": _robust}


# -- reading the scores table ------------------------------------------------------------------------------------------


def outcomes(similarities: pa.ListArray, measure: str) -> np.ndarray:
    """1, 0 or NaN per row under a measure that is read from the similarities."""
    found = SIDES.get(measure) or (lambda s: len(s) <= RANKS[measure] or s[0] > s[RANKS[measure]])
    read = (found(values) if values else np.nan for values in similarities.to_pylist())
    return np.fromiter(read, dtype=np.float64, count=len(similarities))


def aggregate(scores: pa.Table, *, resamples: int = 2000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Every aggregate of a scores table with intervals; of the models before and after, also the paired difference.

    Returns name -> {benchmark, subset, subsets (how many), says, measure, chance, headline, n (rows that every model
    scored), of, pictures, <model>: {value, low, high, ties: the value if ties were wrong or right}, difference: {value,
    low, high, p, p_holm, won, lost, mcnemar_p, detectable}, clean: the values without leaked rows, blind: {judge:
    {value, low, high}}}. Values are shares in 0..1; None = nothing scored. `p` is the paired permutation by picture;
    `p_holm` adjusts it over the subsets of one benchmark. Raises ValueError when two models were not asked the same.
    """
    names = sorted(set(scores["model"].unique().to_pylist()))
    judges = [name for name in names if name.startswith(BLIND)]
    models = [name for name in ("before", "after") if name in names] or [name for name in names if name not in judges]
    result = _aggregate(scores, models or judges, resamples, seed)
    for judge in judges if models else ():
        for name, facts in _aggregate(scores, [judge], resamples, seed).items():
            if facts["n"] == facts["of"]:
                result[name].setdefault("blind", {})[judge.removeprefix(BLIND)] = facts[judge]
    return result


def _aggregate(scores: pa.Table, models: list[str], resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    data = _columns(scores, models)
    present: dict[tuple[str, str], set[str]] = {}
    for key, group in zip(data.keys, data.groups, strict=True):
        present.setdefault(key, set()).update([group] if group else [])
    rows_of = _index(data)
    result = {
        definition.name: _estimate(definition, data, rows_of, models, resamples, seed)
        for definition in definitions(present)
    }
    _adjust(result)
    return result


@dataclass(frozen=True)
class _Data:
    keys: list[tuple[str, str]]
    groups: list[str | None]
    picture: np.ndarray
    leaked: np.ndarray
    correct: dict[str, np.ndarray]
    tie: dict[str, np.ndarray]
    similarities: dict[str, pa.ListArray]


def _columns(scores: pa.Table, models: list[str]) -> _Data:
    """The rows of each model side by side. Raises ValueError when two models were not asked the same questions."""
    import pyarrow.compute as pc

    parts = {m: scores.filter(pc.equal(scores["model"].cast(pa.string()), m)) for m in models}
    first = parts[models[0]]
    names = ("benchmark", "subset", "row_id", "protocol")
    for m in models[1:]:
        if any(first[name].to_pylist() != parts[m][name].to_pylist() for name in names):
            raise ValueError(f"{models[0]} and {m} have different rows or protocols and cannot be compared")
    _, picture_N = np.unique(np.asarray(first["image_key"].to_pylist(), dtype=object).astype(str), return_inverse=True)
    return _Data(
        keys=list(zip(first["benchmark"].to_pylist(), first["subset"].to_pylist(), strict=True)),
        groups=first["group"].to_pylist(),
        picture=picture_N.astype(np.int64),
        leaked=np.asarray(first["leaked"].to_pylist(), dtype=bool),
        correct={m: np.asarray(part["correct"], dtype=np.float64) for m, part in parts.items()},
        tie={m: np.asarray(part["tie"].to_pylist(), dtype=bool) for m, part in parts.items()},
        similarities={m: part["similarities"].combine_chunks() for m, part in parts.items()},
    )


def _index(data: _Data) -> dict[Selector, np.ndarray]:
    rows: dict[Selector, list[int]] = {}
    for index, (key, group) in enumerate(zip(data.keys, data.groups, strict=True)):
        rows.setdefault((*key, None), []).append(index)
        if group:
            rows.setdefault((*key, group), []).append(index)
    return {selector: np.asarray(found, dtype=np.int64) for selector, found in rows.items()}


def _estimate(
    definition: Aggregate,
    data: _Data,
    rows_of: dict[Selector, np.ndarray],
    models: list[str],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    chosen = [np.concatenate([rows_of[selector] for selector in rows]) for rows, _ in definition.cells]
    row_n = np.concatenate(chosen)
    cell_n = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
    weight_C = np.asarray([weight for _, weight in definition.cells])
    _, picture_n = np.unique(data.picture[row_n], return_inverse=True)
    if definition.measure == "correct":
        outcome_Mn = np.stack([data.correct[model][row_n] for model in models])
    else:
        kept = pa.array(row_n)
        outcome_Mn = np.stack([outcomes(data.similarities[model].take(kept), definition.measure) for model in models])
    outcome_Mn = np.where(np.isfinite(outcome_Mn).all(0), outcome_Mn, np.nan)
    scored = np.isfinite(outcome_Mn[0])
    value_M = statistics.mean_of_cells(outcome_Mn, cell_n, weight_C)
    drawn_RM = statistics.bootstrap(outcome_Mn, picture_n, cell_n, weight_C, resamples=resamples, seed=seed)
    facts: dict[str, Any] = {
        "benchmark": definition.name.partition(".")[0],
        "subset": definition.subset,
        "subsets": len({selector[:2] for rows, _ in definition.cells for selector in rows}),
        "says": definition.says,
        "measure": definition.measure,
        "chance": definition.chance,
        "headline": definition.headline,
        "n": int(scored.sum()),
        "of": len(row_n),
        "pictures": len(np.unique(picture_n[scored])),
    }
    for m, model in enumerate(models):
        low, high = statistics.interval(drawn_RM[:, m])
        if value_M[m] in (0, 1):
            low, high = statistics.interval_at_bound(float(value_M[m]), facts["pictures"])
        facts[model] = {"value": _number(value_M[m]), "low": _number(low), "high": _number(high)}
        tie_n = data.tie[model][row_n] & scored
        if definition.measure == "correct" and tie_n.any():
            both = np.stack([np.where(tie_n, 0.0, outcome_Mn[m]), np.where(tie_n, 1.0, outcome_Mn[m])])
            wrong, right = statistics.mean_of_cells(both, cell_n, weight_C)
            facts[model]["ties"] = {"n": int(tie_n.sum()), "wrong": _number(wrong), "right": _number(right)}
    if len(models) == 2:
        facts["difference"] = _difference(outcome_Mn, value_M, drawn_RM, picture_n, cell_n, weight_C, seed)
    leaked_n = data.leaked[row_n]
    if leaked_n.any():
        clean_M = statistics.mean_of_cells(np.where(leaked_n, np.nan, outcome_Mn), cell_n, weight_C)
        facts["clean"] = {"n": int((scored & ~leaked_n).sum())} | {
            model: _number(clean_M[m]) for m, model in enumerate(models)
        }
    return facts


def _difference(
    outcome_Mn: np.ndarray,
    value_M: np.ndarray,
    drawn_RM: np.ndarray,
    picture_n: np.ndarray,
    cell_n: np.ndarray,
    weight_C: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    low, high = statistics.interval(drawn_RM[:, 1] - drawn_RM[:, 0])
    error = float(np.nanstd(drawn_RM[:, 1] - drawn_RM[:, 0])) if np.isfinite(drawn_RM).any() else float("nan")
    before_n, after_n = outcome_Mn
    won, lost = int(np.sum(after_n > before_n)), int(np.sum(after_n < before_n))
    p = statistics.paired_permutation(before_n, after_n, picture_n, cell_n, weight_C, seed=seed)
    return {
        "value": _number(value_M[1] - value_M[0]),
        "low": _number(low),
        "high": _number(high),
        "p": _number(p),
        "won": won,
        "lost": lost,
        "mcnemar_p": _number(statistics.mcnemar(won, lost)),
        "detectable": _number(statistics.minimum_detectable_difference(error or float("nan"))),
    }


def _adjust(result: dict[str, dict[str, Any]]) -> None:
    """Holm over the subsets of each benchmark, in place."""
    families: dict[str, list[dict[str, Any]]] = {}
    for name, facts in result.items():
        if facts["subset"] and "difference" in facts:
            families.setdefault(name.partition(".")[0], []).append(facts["difference"])
    for family in families.values():
        adjusted = statistics.holm([np.nan if one["p"] is None else one["p"] for one in family])
        for one, value in zip(family, adjusted, strict=True):
            one["p_holm"] = _number(value)


def _number(value: float) -> float | None:
    """JSON has no NaN: nothing scored is null. Nine digits, so that equal inputs give equal text everywhere."""
    return round(float(value), 9) if np.isfinite(value) else None
