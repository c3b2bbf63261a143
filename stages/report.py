"""report: one page that says what was made, whether it helped, and how sure that is.

Writes report.html (one file, no network), report.md, report.json (the same facts) and figures/*.svg. Equal inputs give
equal bytes. Whatever came from data (captions, replies, file names) is escaped.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline import tables
from pipeline.artifact import Artifact, path_digest
from pipeline.config import Config as BaseConfig
from pipeline.schema import NEGATIVE_TYPES, TABLES
from pipeline.stage import Inputs, Progress, Stage
from stages.benchmarks import REGISTRY, registry
from stages.pages import TEMPLATES, data_uri, percent, render, signed, thumbnail

PUBLISHED = REGISTRY.parent / "published_scores.json"
ORDER = ("pairs", "negatives", "dataset", "model", "scores")

Facts = dict[str, Any]


class Config(BaseConfig):
    """What the page shows."""

    title: str = Field("degla report", min_length=1, max_length=120, description="heading of the page")
    examples: int = Field(12, ge=0, le=100, description="held-out pictures shown with their negatives and scores")
    thumbnail: int = Field(224, ge=32, le=1024, description="longest side of the pictures shown, pixels")


def outside(config: Config) -> dict[str, str]:
    """Digests of the templates, of the benchmark registry and of the published scores."""
    read = {"templates": TEMPLATES, "registry": REGISTRY, "published": PUBLISHED}
    return {name: path_digest(path) for name, path in read.items()}


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> Facts:
    """Make the `report` artifact. Raises UserError when a held-out picture to be shown cannot be read."""
    facts = gather(config, inputs)
    progress("report", 1, 4)
    figures = draw(facts, inputs)
    for name, figure in figures.items():
        _write(out / "figures" / f"{name}.svg", figure["svg"])
    progress("report", 2, 4)
    pictures = _thumbnails(facts, inputs, config.thumbnail)
    _write(out / "report.json", json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    progress("report", 3, 4)
    for name in ("report.html", "report.md"):
        _write(out / name, render(name, facts, figures=figures, pictures=pictures))
    progress("report", 4, 4)
    return {"headline": facts["headline"], "figures": list(figures)}


# -- facts -------------------------------------------------------------------------------------------------------------


def gather(config: Config, inputs: Inputs) -> Facts:
    """Everything the page says, as plain JSON data; all of it read from the artifacts."""
    aggregates: Mapping[str, Facts] = inputs["scores"].meta["aggregates"]
    return {
        "title": config.title,
        "types": list(NEGATIVE_TYPES),
        "headline": headline(aggregates),
        "benchmarks": _benchmarks(aggregates),
        "published": _published(inputs["scores"].meta),
        "gallery": _gallery(inputs, config.examples),
        "data": _data(inputs),
        "generation": _generation(inputs),
        "training": _training(inputs),
        "models": inputs["scores"].meta["models"],
        "notes": _notes(inputs),
        "resamples": inputs["scores"].meta["resamples"],
        "provenance": [_provenance(inputs[kind]) for kind in ORDER],
    }


def headline(aggregates: Mapping[str, Facts]) -> list[Facts]:
    """The two questions: did composition go up, was what the model knew kept. In words that the interval allows.

    Composition is `composition`, or the held-out negatives when no benchmark of it was there; retention is zero-shot
    classification, or retrieval.
    """
    asked = (
        ("composition", ("composition", "heldout.mean")),
        ("retention", ("zeroshot.mean", "retrieval.mean_r1")),
    )
    found = []
    for question, names in asked:
        name = next((name for name in names if name in aggregates and aggregates[name]["n"]), None)
        if name is None:
            found.append(
                {"question": question, "name": None, "verdict": "unknown", "says": "Nothing measures it here."}
            )
            continue
        one = aggregates[name]
        change = one["difference"]
        verdict = "up" if change["low"] > 0 else "down" if change["high"] < 0 else "unclear"
        says = _sentence(question, verdict, change)
        found.append(
            one | {"question": question, "name": name, "verdict": verdict, "says": says, "says_rule": one["says"]}
        )
    return found


def _sentence(question: str, verdict: str, change: Facts) -> str:
    points = f"{signed(change['value'])} points (95 % interval {signed(change['low'])} to {signed(change['high'])})"
    if question == "composition":
        return {
            "up": f"The model understands composition better than before: {points}.",
            "down": f"The model understands composition worse than before: {points}.",
            "unclear": f"No clear change in composition: {points}; the interval includes no change.",
        }[verdict]
    return {
        "up": f"Nothing was lost on the whole; the score even went up: {points}.",
        "down": f"Part of what the model knew was forgotten: {points}.",
        "unclear": f"No loss could be shown: {points}; the interval includes no change"
        + (
            f", and a true loss under {100 * change['detectable']:.1f} points could hide here."
            if change["detectable"]
            else "."
        ),
    }[verdict]


def _benchmarks(aggregates: Mapping[str, Facts]) -> list[Facts]:
    """Aggregates by benchmark, with what the registry says of each."""
    known = registry()
    grouped: dict[str, list[Facts]] = {}
    for name, facts in aggregates.items():
        grouped.setdefault(facts["benchmark"], []).append({"name": name} | facts)
    return [
        {"key": key, "about": known.get(key, {"title": "Composition as a whole" if key == "composition" else key})}
        | {"rows": rows}
        for key, rows in grouped.items()
    ]


def _published(scores: Facts) -> Facts:
    """What others printed under the very rule of one of our aggregates, joined only where the files are official.

    Returns {models, rows: [{name, before, after, values by model, how by model}]}, in per cent.
    """
    if not scores["official"]:
        return {"models": [], "rows": []}
    facts: dict[str, Facts] = {}
    for one in json.loads(PUBLISHED.read_text(encoding="utf-8")):
        ours = scores["aggregates"].get(one["score"])
        if ours and ours["n"] == ours["of"]:
            row = facts.setdefault(one["score"], {"name": one["score"], "values": {}, "how": {}})
            row |= {model: ours[model]["value"] for model in ("before", "after")}
            row["values"][one["model"]] = one["value"]
            row["how"][one["model"]] = f"{one['how']}, {one['source']}"
    models = list(dict.fromkeys(model for row in facts.values() for model in row["values"]))
    return {"models": models, "rows": list(facts.values())}


def _data(inputs: Inputs) -> Facts:
    """Counts of pairs, refusals, dataset rows and leaks."""
    pairs, dataset = inputs["pairs"], inputs["dataset"]
    facts: Facts = {}
    with _sql(pairs=pairs.table("pairs"), pairs_rejected=pairs.path / "pairs_rejected") as ask:
        facts["pairs"] = ask(
            "select split, count(*) pairs, count(distinct image_key) pictures from pairs group by 1 order by 1"
        )
        facts["sources"] = ask("select source, count(*) pairs from pairs group by 1 order by 1")
        facts["pairs_rejected"] = ask(
            "select reason, count(*) rows, min(origin) example from pairs_rejected group by 1 order by 2 desc, 1"
        )
    types = ", ".join(f"count({kind}) {kind}" for kind in NEGATIVE_TYPES)
    with _sql(dataset=dataset.table("dataset"), leaks=dataset.path / "leaks") as ask:
        facts["dataset"] = ask(f"select split, count(*) pairs, {types} from dataset group by 1 order by 1")  # noqa: S608
        facts["leaks"] = ask(
            "select benchmark, subset, rule, count(distinct row_id) rows from leaks group by all order by all"
        )
    return facts


def _generation(inputs: Inputs) -> Facts:
    """Who wrote the negatives, how many passed the checks by type, and what the rest failed on."""
    with _sql(negatives=inputs["negatives"].table("negatives")) as ask:
        counts = ask("select type, status, count(*) n from negatives group by 1, 2 order by all")
        reasons = ask(
            """select type, reason, count(*) n, min(text) example from negatives
               where status = 'rejected' group by 1, 2 order by n desc, 1, 2 limit 12"""
        )
        tokens = ask("select sum(prompt_tokens)::bigint prompt, sum(reply_tokens)::bigint reply from negatives")[0]
        models = [row["model"] for row in ask("select distinct model from negatives order by 1")]
    by_type = {kind: {row["status"]: row["n"] for row in counts if row["type"] == kind} for kind in NEGATIVE_TYPES}
    return {
        "models": models,
        "tokens": tokens,
        "types": [
            {"type": kind, "counts": found} | {"accepted": _share(found.get("accepted", 0), sum(found.values()))}
            for kind, found in by_type.items()
            if found
        ],
        "reasons": reasons,
    }


def _training(inputs: Inputs) -> Facts:
    """How long it trained and where each term of the loss began and ended (mean of the first and last tenth)."""
    model = inputs["model"]
    names = ("loss", "base_loss", "distill_loss", "igc_loss", "tgc_loss")
    if not tables.files(model.path / "steps"):
        return {"steps": 0, "terms": []}
    with _sql(steps=model.path / "steps") as ask:
        facts = ask(
            """select count(*) steps, max(epoch) epochs, median(samples_per_s) samples_per_s,
                      sum(data_wait) data_wait, max(lr) peak_lr from steps"""
        )[0]
        terms = []
        for name in names:
            (row,) = ask(
                f"""with numbered as (select {name}, ntile(10) over (order by step) as begin,
                                             ntile(10) over (order by step desc) as ending
                                      from steps where not isnan({name}))
                    select avg({name}) filter (begin = 1) as first, avg({name}) filter (ending = 1) as last
                    from numbered"""  # noqa: S608 - a column of our own
            )
            if row["first"] is not None:
                terms.append({"term": name} | row)
    return facts | {"terms": terms}


def _notes(inputs: Inputs) -> list[str]:
    """What a reader must know before believing the figures."""
    notes = [str(note) for note in inputs["scores"].meta["notes"]]
    for name, one in inputs["scores"].meta["aggregates"].items():
        if one["subset"] and one["n"] < one["of"]:
            notes.append(f"{name}: {one['n']} of {one['of']} rows scored, the pictures of the others are missing")
    activation = {name: model.get("activation") for name, model in inputs["scores"].meta["models"].items()}
    if len(set(activation.values())) > 1:
        notes.append(f"the models compute different activations: {activation}")
    return notes


def _gallery(inputs: Inputs, examples: int) -> list[Facts]:
    """Held-out pictures with all their negatives and both models' margins: as many wins as losses, the clearest first.

    A margin is similarity to the caption minus similarity to the negative; above 0 is right.
    """
    views = {"scores": inputs["scores"].table("scores"), "dataset": inputs["dataset"].table("dataset")}
    with _sql(**views) as ask:
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
    cards: dict[str, Facts] = {}
    for row in rows:
        card = cards.setdefault(
            row["pair_id"],
            {key: row[key] for key in ("pair_id", "image_key", "image_uri", "caption")} | {"negatives": []},
        )
        found = {"type": row["type"], "text": row[row["type"]], "before": row["before"], "after": row["after"]}
        card["negatives"].append(found)
    for card in cards.values():
        card["negatives"].sort(key=lambda one: NEGATIVE_TYPES.index(one["type"]))
        card["won"] = sum(one["after"] > 0 >= one["before"] for one in card["negatives"])
        card["lost"] = sum(one["before"] > 0 >= one["after"] for one in card["negatives"])
    moved = {pair: sum(one["after"] - one["before"] for one in card["negatives"]) for pair, card in cards.items()}
    wins = sorted(
        (c for c in cards.values() if c["won"] > c["lost"]), key=lambda c: (c["lost"] - c["won"], -moved[c["pair_id"]])
    )
    losses = sorted(
        (c for c in cards.values() if c["lost"] > c["won"]), key=lambda c: (c["won"] - c["lost"], moved[c["pair_id"]])
    )
    half = min(len(losses), examples // 2)
    chosen = _different_pictures(wins, examples - half) + _different_pictures(losses, half)
    return chosen or _different_pictures(list(cards.values()), examples)


def _different_pictures(cards: list[Facts], most: int) -> list[Facts]:
    """The first cards, no picture and no caption twice."""
    pictures = {card["image_key"]: card for card in reversed(cards)}.values()
    captions = {card["caption"]: card for card in pictures}.values()
    return list(captions)[::-1][:most]


def _provenance(artifact: Artifact) -> Facts:
    """Where an artifact comes from: settings, versions, machine and time."""
    manifest = artifact.manifest
    seconds = (datetime.fromisoformat(manifest.finished) - datetime.fromisoformat(manifest.started)).total_seconds()
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
    return {"kind": manifest.kind, "seconds": seconds} | {key: getattr(manifest, key) for key in keep}


# -- figures and pages -------------------------------------------------------------------------------------------------


def draw(facts: Facts, inputs: Inputs) -> dict[str, Facts]:
    """Figures by name: {svg, title, alt}; only those there are numbers for."""
    from stages import figures

    found: dict[str, Facts] = {}
    subsets = [row for benchmark in facts["benchmarks"] for row in benchmark["rows"] if row["subset"]]
    by_family = {
        "composition": [row for row in subsets if row["benchmark"] not in ("heldout", "zeroshot", "retrieval")],
        "heldout": [row for row in subsets if row["benchmark"] == "heldout"],
        "retention": [row for row in subsets if row["benchmark"] in ("zeroshot", "retrieval")],
    }
    titles = {
        "composition": "Composition, by subset",
        "heldout": "Held-out negatives, by type",
        "retention": "What the model knew, by set",
    }
    for name, rows in by_family.items():
        if rows:
            lines = [(_short(row["name"]), row["before"], row["after"], row["chance"]) for row in rows]
            found[name] = _figure(figures.before_after(lines), titles[name], _alt(rows))
    kept = by_family["retention"]
    if kept:
        lines2 = [(_short(row["name"]), row["difference"]) for row in kept]
        found["forgetting"] = _figure(figures.changes(lines2), "Forgetting, by set", _alt(kept))
    up, across = (
        next((h for h in facts["headline"] if h["question"] == q), None) for q in ("composition", "retention")
    )
    if up and across and up["name"] and across["name"]:
        points = [(model, across[model], up[model]) for model in ("before", "after")]
        alt = f"{up['name']} against {across['name']} before and after; numbers in the headline"
        found["trade"] = _figure(
            figures.trade(points, across["name"], up["name"]), "Composition against retention", alt
        )
    types = facts["generation"]["types"]
    if types:
        accepted = "; ".join(f"{row['type']} {percent(row['accepted'])} accepted" for row in types)
        svg = figures.acceptance([(row["type"], row["counts"]) for row in types])
        found["acceptance"] = _figure(svg, "Negatives that passed the checks, by type", accepted)
    terms = [row["term"] for row in facts["training"]["terms"]]
    if terms:
        steps = tables.read(inputs["model"].path / "steps").sort_by("step")
        curves = [(term, steps[term].to_pylist()) for term in (*terms, "lr")]
        alt = "; ".join(f"{row['term']} {row['first']:.3g} to {row['last']:.3g}" for row in facts["training"]["terms"])
        found["training"] = _figure(figures.training(steps["step"].to_pylist(), curves), "Training curves", alt)
    return found


def _figure(svg: str, title: str, alt: str) -> Facts:
    return {"svg": svg, "title": title, "alt": alt, "uri": data_uri("image/svg+xml", svg.encode())}


def _alt(rows: list[Facts]) -> str:
    return "; ".join(
        f"{row['name']} {percent(row['before']['value'])} before, {percent(row['after']['value'])} after"
        for row in rows
    )


def _short(name: str) -> str:
    return name.removesuffix(".top1").removesuffix(".macro")


def _thumbnails(facts: Facts, inputs: Inputs, side: int) -> dict[str, str]:
    """Data URIs of the gallery's pictures by pair id."""
    pairs = inputs["pairs"]
    root = pairs.path / pairs.meta["image_root"]
    return {card["pair_id"]: thumbnail(root / card["image_uri"], side) for card in facts["gallery"]}


# -- files -------------------------------------------------------------------------------------------------------------


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@contextmanager
def _sql(**folders: Path) -> Iterator[Callable[[str], list[Facts]]]:
    """Ask SQL of tables by name and get rows as dicts; a table that is not there is empty."""
    with tables.connect({name: folder for name, folder in folders.items() if tables.files(folder)}) as connection:
        for name, folder in folders.items():
            if not tables.files(folder):
                connection.register(name, TABLES[name].empty_table())
        yield lambda query: list(connection.sql(query).to_arrow_table().to_pylist())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


STAGE = Stage(
    name="report",
    makes="report",
    needs=("pairs", "negatives", "dataset", "model", "scores"),
    version=1,
    config=Config,
    outside=outside,
    run=run,
)
