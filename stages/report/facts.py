"""What the report says, as plain JSON data: every figure of it read from the artifacts."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline import tables
from pipeline.artifact import Artifact, Manifest
from pipeline.config import validation_error
from pipeline.negative_types import ALL_TYPES, types_in
from pipeline.stage import Inputs
from stages import labels, verdicts
from stages.benchmarks.loaders import about
from stages.benchmarks.registry import registry
from stages.report import bindings, gallery, notes
from stages.report.checklist import checklist
from stages.report.config import Config
from stages.report.published import composition_levels, published
from stages.report.sql import asked

ORDER = ("pairs", "negatives", "dataset", "model", "scores")
CARDS = ("dataset", "negatives")
OURS: dict[str, dict[str, str]] = {
    "composition": {"title": "Composition, overall"},
    "robust": {
        "title": "Adversarial robustness",
        "measures": "some rows of each set when projected gradient descent against the model changes the image by at "
        "most a little, and the same rows clean (radius and steps in the settings below)",
    },
}
"""Titles of what the registry does not list."""

JsonObject = dict[str, Any]


class _AblationRow(BaseModel):
    title: str
    group: str
    mean: dict[str, float | None]
    sd: dict[str, float | None]


class _Ablation(BaseModel):
    """What is read of an ablation's comparison.json (stages/report/comparison.py)."""

    rows: list[_AblationRow]
    before: dict[str, float | None]
    types: dict[str, dict[str, float | None]]
    seeds: list[int]


def _ablation(path: Path) -> JsonObject:
    try:
        return _Ablation.model_validate_json(path.read_bytes()).model_dump()
    except ValidationError as error:
        expected, fix = "comparison.json, which degla run ablation writes", "set report.comparison"
        raise validation_error("report", str(path), error, expected, fix) from None


def gather(config: Config, inputs: Inputs) -> JsonObject:
    """Everything the page says, as plain JSON data; all of it read from the artifacts."""
    scores = inputs["scores"].meta
    aggregates: Mapping[str, JsonObject] = scores["aggregates"]
    random_start: bool = scores["random_start"]
    heads = headline(aggregates, random_start=random_start)
    grouped = benchmarks(aggregates, random_start=random_start)
    compared = _ablation(config.comparison) if config.comparison else None
    return {
        "title": config.title or config.run or "degla report",
        "about": _about(config, inputs),
        "types": _types(inputs["dataset"]),
        "headline": heads,
        "clearest": clearest(grouped),
        "side_by_side": side_by_side(aggregates, random_start=random_start),
        "trade": _trade(heads, scores, compared),
        "benchmarks": grouped,
        "published": published(aggregates, ("before", "after"), scores["official"]),
        "bindings": bindings.tables(scores["bindings"]),
        "ablation": compared and {"types": compared["types"], "seeds": len(compared["seeds"])},
        "gallery": gallery.cards(inputs, config.examples),
        "data": _data(inputs),
        "generation": _generation(inputs),
        "training": _training(inputs),
        "models": inputs["scores"].meta["models"],
        "notes": notes.notes(config, inputs, clearest(grouped), same_start(heads, compared) if compared else None),
        "checklist": [line._asdict() for line in checklist(inputs)],
        "cards": [kind for kind in CARDS if (inputs[kind].path / "card.html").is_file()],
        "recipe": {one.manifest.stage: one.manifest.config for one in (inputs[kind] for kind in ORDER)},
        "provenance": [_provenance(inputs[kind]) for kind in ORDER],
    }


def _about(config: Config, inputs: Inputs) -> JsonObject:
    """What the page is of: run, model, how much it was trained on, when, and how long everything took."""
    meta, manifests = inputs["model"].meta, [inputs[kind].manifest for kind in ORDER]
    types = " + ".join(f"count({kind})" for kind in _types(inputs["dataset"]))
    with asked(dataset=inputs["dataset"].table_folder("dataset")) as ask:
        (trained,) = ask(f"select count(*) pairs, ({types}) negatives from dataset where split = 'train'")  # noqa: S608
    return trained | {
        "run": config.run,
        "description": config.description,
        "model": Path(meta["start"]["model"]).name,
        "pretrained": meta["start"].get("pretrained"),
        "random_start": inputs["scores"].meta["random_start"],
        "parameters": meta.get("parameters"),
        "date": datetime.fromisoformat(manifests[-1].started).date().isoformat(),
        "seconds": sum(_seconds(one) for one in manifests),
    }


def _types(dataset: Artifact) -> list[str]:
    """The negative types that the dataset has."""
    return list(types_in(tables.columns(dataset.table_folder("dataset"))))


def headline(aggregates: Mapping[str, JsonObject], *, random_start: bool, than: str = "") -> list[JsonObject]:
    """The two questions: did composition go up, was what the model knew kept; in words that were shown (verdicts)."""
    return [
        {"question": question, "name": name or None, "verdict": found.word, "says": found.says}
        | (_measured(aggregates[name]) | {"says": found.says} if name else {})
        for question, (name, found) in verdicts.headline(aggregates, random_start=random_start, than=than).items()
    ]


def side_by_side(aggregates: Mapping[str, JsonObject], *, random_start: bool) -> list[JsonObject]:
    """The paper's benchmarks beside each other, each by its mean; with a verdict where two models are compared."""
    found = []
    for benchmark, name in verdicts.side_by_side(aggregates).items():
        one = aggregates[name]
        word = verdicts.verdict(name, one, random_start=random_start).word if "difference" in one else None
        found.append(_measured(one) | {"name": name, "title": registry()[benchmark]["title"], "verdict": word})
    return found


def clearest(grouped: list[JsonObject]) -> list[JsonObject]:
    """The main rows whose change excludes none by interval and p, rises and falls alike, the surest first."""
    rows = [row for one in grouped if one["key"] != "composition" for row in one["rows"] if not row["aside"]]
    found = [row for row in rows if verdicts.changed(row["difference"])]
    return sorted(found, key=lambda row: (row["p"] or 0, -abs(row["difference"]["value"])))


def _measured(one: JsonObject) -> JsonObject:
    return one | {
        "says_rule": one["says"],
        "p": verdicts.p_value(one["difference"]) if "difference" in one else None,
        "best_blind": verdicts.best_blind(one),
    }


def benchmarks(aggregates: Mapping[str, JsonObject], *, random_start: bool = False) -> list[JsonObject]:
    """Aggregates by benchmark, with what the registry says of each, and the verdict where two models are compared.

    The first mean of a benchmark and its subsets' own scores are the main rows; `aside` are other means and measures.
    """
    known = registry() | OURS
    grouped: dict[str, list[JsonObject]] = {}
    for name, facts in aggregates.items():
        row: JsonObject = {"name": name} | facts
        if "difference" in facts:
            row["verdict"] = verdicts.verdict(name, facts, random_start=random_start).word
            row["p"] = verdicts.p_value(facts["difference"])
        rows = grouped.setdefault(facts["benchmark"], [])
        row["aside"] = bool(rows) and not facts["subset"] and about(name).family != "robust"
        row["best_blind"] = verdicts.best_blind(facts)
        rows.append(row)
    return [{"key": key, "about": known.get(key, {"title": key}), "rows": rows} for key, rows in grouped.items()]


def _trade(heads: list[JsonObject], scores: JsonObject, compared: JsonObject | None) -> JsonObject | None:
    """Composition against retention: the two models, mixtures between them, baselines, and what papers print.

    Rows of an ablation are joined only when their starting model has our starting model's scores in both questions:
    then they were asked the same. Papers print no retention under our rule, so of them only the level of composition
    is known.
    """
    up, across = heads
    if up["name"] is None or across["name"] is None:
        return None
    names = {"up": up["name"], "across": across["name"]}
    ends = {0.0: "before", 1.0: "after"}
    mixtures = {one["alpha"]: {key: one["scores"].get(names[key]) for key in names} for one in scores.get("curve", ())}
    for alpha, model in ends.items() if mixtures else ():
        mixtures[alpha] = {"up": up[model]["value"], "across": across[model]["value"]}
    return names | {
        "models": [{"label": one, "up": up[one], "across": across[one]} for one in ends.values()],
        "curve": [{"alpha": alpha} | mixtures[alpha] for alpha in sorted(mixtures)],
        "rivals": [
            {"label": row["title"], "group": row["group"]}
            | {key: {"value": row["mean"][name], "sd": row["sd"].get(name)} for key, name in names.items()}
            for row in (compared["rows"] if compared and same_start(heads, compared) else ())
            if all(row["mean"].get(name) is not None for name in names.values())
        ],
        "levels": composition_levels(up, scores),
    }


def same_start(heads: list[JsonObject], compared: JsonObject) -> bool:
    """Whether a comparison's starting model has our starting model's scores in both questions, to nine digits."""
    return all(compared["before"].get(one["name"]) == one["before"]["value"] for one in heads)


def _data(inputs: Inputs) -> JsonObject:
    """Counts of pairs, rejected pairs, dataset rows and leaks."""
    pairs, dataset = inputs["pairs"], inputs["dataset"]
    facts: JsonObject = {"looked_for": list(dataset.meta.get("leaks", {}))}
    with asked(pairs=pairs.table_folder("pairs"), pairs_rejected=pairs.path / "pairs_rejected") as ask:
        facts["pairs"] = ask(
            "select split, count(*) pairs, count(distinct image_key) pictures from pairs group by 1 order by 1"
        )
        facts["sources"] = ask("select source, count(*) pairs from pairs group by 1 order by 1")
        facts["pairs_rejected"] = ask(
            "select reason, count(*) rows, min(origin) example from pairs_rejected group by 1 order by 2 desc, 1"
        )
    types = ", ".join(f"count({kind}) {kind}" for kind in _types(dataset))
    with asked(dataset=dataset.table_folder("dataset"), leaks=dataset.path / "leaks") as ask:
        facts["dataset"] = ask(f"select split, count(*) pairs, {types} from dataset group by 1 order by 1")  # noqa: S608
        facts["leaks"] = ask(
            "select benchmark, subset, rule, count(distinct row_id) rows from leaks group by all order by all"
        )
    return facts


def _generation(inputs: Inputs) -> JsonObject:
    """Who wrote the negatives, how many passed the checks by type, what the rest failed on, and what labels say."""
    with asked(negatives=inputs["negatives"].table_folder("negatives")) as ask:
        counts = ask("select type, status, count(*) n from negatives group by 1, 2 order by all")
        reasons = ask(
            """select type, reason, count(*) n, min(text) example from negatives
               where status = 'rejected' group by 1, 2 order by n desc, 1, 2 limit 12"""
        )
        tokens = ask("select sum(prompt_tokens)::bigint prompt, sum(reply_tokens)::bigint reply from negatives")[0]
        models = [row["model"] for row in ask("select distinct model from negatives order by 1")]
    by_type = {kind: {row["status"]: row["n"] for row in counts if row["type"] == kind} for kind in ALL_TYPES}
    return {
        "models": models,
        "tokens": tokens,
        "types": [
            {"type": kind, "counts": found} | {"accepted": _share(found.get("accepted", 0), sum(found.values()))}
            for kind, found in by_type.items()
            if found
        ],
        "reasons": reasons,
        "labelled": labels.of(inputs["negatives"]),
    }


def _training(inputs: Inputs) -> JsonObject:
    """How long it trained and where each term of the loss began and ended (mean of the first and last tenth)."""
    model = inputs["model"]
    if not tables.files(model.path / "steps"):
        return {"steps": 0, "terms": []}
    weights: JsonObject = model.manifest.config.get("objective", {})
    there = tables.read(model.path / "steps").column_names
    with asked(steps=model.path / "steps") as ask:
        facts = ask(
            """select count(*) steps, max(epoch) epochs, median(samples_per_s) samples_per_s,
                      sum(data_wait) data_wait, max(lr) peak_lr from steps"""
        )[0]
        terms = []
        for name in (name for name in there if name.endswith("loss")):
            (row,) = ask(
                f"""with numbered as (select {name}, ntile(10) over (order by step) as begin,
                                             ntile(10) over (order by step desc) as ending
                                      from steps where not isnan({name}))
                    select avg({name}) filter (begin = 1) as first, avg({name}) filter (ending = 1) as last
                    from numbered"""  # noqa: S608 - a column of our own
            )
            if row["first"] is not None:
                terms.append({"term": name, "weight": weights.get(name.removesuffix("_loss"))} | row)
    return facts | {"terms": terms}


def _provenance(artifact: Artifact) -> JsonObject:
    """Where an artifact comes from: settings, versions, machine and time."""
    manifest = artifact.manifest
    keep = (
        "stage",
        "stage_version",
        "fingerprint",
        "config",
        "inputs",
        "git",
        "hardware",
        "packages",
        "rows",
        "started",
    )
    return {"kind": manifest.kind, "seconds": _seconds(manifest)} | {key: getattr(manifest, key) for key in keep}


def _seconds(manifest: Manifest) -> float:
    return (datetime.fromisoformat(manifest.finished) - datetime.fromisoformat(manifest.started)).total_seconds()


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
