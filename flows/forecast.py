"""What making a run would take, before anything is made, by what the same work took on this machine before.

A rate is that of the newest artifact of the store that the same kind of work made on a machine like this one: seconds
per response of the same language model, per image and epoch of the same CLIP. Where there is none, nothing is guessed.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipeline.artifact import MANIFEST, Artifact, Manifest, digest, read_manifest
from pipeline.errors import UserError
from pipeline.store import hardware
from stages.road import STAGES, Run

SETTINGS = {
    "ingest": ("source",),
    "generate": ("backend", "model", "examples_per_prompt", "likelihood"),
    "assemble": ("leaks_from",),
    "train": (
        "model",
        "pretrained",
        "batch",
        "accumulate",
        "processes",
        "precision",
        "negatives_per_caption",
        "device",
    ),
    "evaluate": ("root", "benchmarks", "curve", "likelihood", "pictures", "device"),
    "report": (),
}
"""What of a stage's settings its rate depends on."""

UNITS = {"ingest": "pairs", "generate": "responses", "assemble": "pairs", "train": "pairs times epochs"}
"""What a stage's time grows with; of the others it is taken as fixed."""


def forecast(run: Run) -> list[dict[str, Any]]:
    """Every stage of a run, as plain data.

    `action`: "reuse", "take from the store" (another run made it) or "make"; `reasons`: why. Of what would be made:
    `amount` of work in `unit`; `seconds`, `bytes` on disk, `memory_mib` (the most the process took), `measured` (which
    artifact says so), each None where nothing alike was measured on this machine. Of generate also `captions`,
    `shards`, `missing` (responses that are not cached, by type; of pairs that will be made again all of them), `tokens`
    and, with generate.price_per_hour, `money`; of train `device_memory`: an estimate of what a step takes on each GPU.
    """
    states = run.status()
    now = {STAGES[one.stage].makes: one.artifact for one in states if one.artifact}
    before = {name: _made_here(run, name) for name in STAGES}
    held: dict[str, Artifact] = {}
    found = []
    for one in states:
        stage = STAGES[one.stage]
        there = one.artifact if one.state == "current" else _in_store(run, one.stage, held)
        if there is not None:
            held[stage.makes] = there
        action = "make" if there is None else "reuse" if one.state == "current" else "take from the store"
        cost = _cost(run, one.stage, held, now, before) if there is None else {}
        found.append({"stage": one.stage, "action": action, "reasons": one.reasons, **cost})
    return found


def _in_store(run: Run, name: str, held: Mapping[str, Artifact]) -> Artifact | None:
    """What a stage would make of these inputs, where it is there already."""
    stage = STAGES[name]
    if not set(stage.needs) <= held.keys():
        return None
    try:
        fingerprint = digest(run.identity(name, {kind: held[kind] for kind in stage.needs}))
    except UserError:
        return None  # what it reads is not there; the reasons say so
    manifest = run.store.manifest(stage.makes, fingerprint)
    return Artifact(run.store.folder(stage.makes, fingerprint), manifest) if manifest else None


def _cost(
    run: Run,
    name: str,
    held: Mapping[str, Artifact],
    now: Mapping[str, Artifact],
    before: Mapping[str, list[Manifest]],
) -> dict[str, Any]:
    work = _work(run, name, held, {**now, **held})
    cost = {"unit": UNITS.get(name), **work, "seconds": None, "bytes": None, "memory_mib": None, "measured": None}
    wanted = run.config(name).model_dump(mode="json")
    models = {Artifact(run.folder, one).digest: one.config["model"] for one in before["train"]}
    alike = [
        one
        for one in before[name]
        if all(one.config.get(key) == wanted[key] for key in SETTINGS[name])
        and _amount(name, one)
        and (name != "evaluate" or models.get(one.inputs["model"]) == run.recipe.train.model)
    ]
    if name == "train":
        cost["device_memory"] = _device_memory(run, held.get("dataset", now.get("dataset")))
    if not alike or work["amount"] is None:
        return cost
    last = alike[-1]
    share = work["amount"] / _amount(name, last)
    seconds = share * _seconds(last)
    grown = work["captions"] / last.meta["captions"] if name == "generate" else 1.0 if name == "train" else share
    cost |= {
        "seconds": seconds,
        "bytes": round(grown * _bytes(run, last)),
        "memory_mib": last.hardware.get("peak_memory_mib"),
        "measured": {"artifact": f"{last.kind}/{last.fingerprint}", "at": last.finished},
    }
    if name == "generate":
        paid = last.meta["paid"].values()
        cost["tokens"] = round(share * sum(one["prompt_tokens"] + one["reply_tokens"] for one in paid))
        if run.recipe.generate.price_per_hour is not None:
            cost["money"] = seconds / 3600 * run.recipe.generate.price_per_hour
    return cost


def _device_memory(run: Run, dataset: Artifact | None) -> dict[str, int] | None:
    """What a training step would take, by the shapes of its tensors."""
    from stages.train import sizing  # torch, and the model's code

    config = run.recipe.train
    try:
        found = sizing.size(config, dataset)
    except UserError:
        return None  # the check at the end says it
    pairs = sizing.pairs_at_once(config)
    return found and {"bytes": sum(found), "fixed_bytes": found.fixed, "pairs_at_once": pairs}


def _work(run: Run, name: str, held: Mapping[str, Artifact], known: Mapping[str, Artifact]) -> dict[str, Any]:
    """How much a stage would do. What is not made yet counts as what the run holds of it now, if anything."""
    if name == "ingest":
        world = run.recipe.ingest.world
        drawn = world.pictures * world.captions if run.recipe.ingest.source == "scenes" else None
        return {"amount": drawn or (sum(known["pairs"].manifest.rows.values()) if "pairs" in known else None)}
    if name == "generate":
        return _missing(run, known["pairs"], "pairs" in held) if "pairs" in known else {"amount": None}
    if name == "assemble":
        return {"amount": known["pairs"].manifest.rows["pairs"] if "pairs" in known else None}
    if name == "train":
        pairs = known["dataset"].meta["splits"].get("train", 0) if "dataset" in known else None
        return {"amount": None if pairs is None else pairs * run.recipe.train.epochs}
    return {"amount": 1}


def _missing(run: Run, pairs: Artifact, is_final: bool) -> dict[str, Any]:
    from pipeline import tables
    from stages.generate.prompts import prompts_of
    from stages.generate.responses import folder_of, sources
    from stages.generate.shards import KEY, count_for

    config = run.recipe.generate
    captions = f"select distinct {KEY} as caption_key from pairs"  # noqa: S608
    with tables.connect({"pairs": pairs.path}) as sql:
        every = int(sql.sql(f"select count(*) from ({captions})").fetchall()[0][0])  # noqa: S608
        lacking = dict.fromkeys(config.kinds, every)
        for kind, source in sources(config, prompts_of(config), {"pairs": pairs}).items() if is_final else ():
            if files := tables.files(folder_of(run.store.home / "replies", kind, source)):
                sql.read_parquet([str(path) for path in files]).create_view("replies", replace=True)
                left = f"select count(*) from ({captions}) anti join replies using (caption_key)"  # noqa: S608
                lacking[kind] = int(sql.sql(left).fetchall()[0][0])
    shards = count_for(every, config.shard_size)
    return {"amount": sum(lacking.values()), "captions": every, "shards": shards, "missing": lacking}


def _amount(name: str, manifest: Manifest) -> float:
    """How much work is behind an artifact."""
    if name == "generate":
        return float(sum(one["replies"] for one in manifest.meta.get("paid", {}).values()))
    if name == "train":
        return float(manifest.meta["pairs"] * manifest.config["epochs"])
    return float(sum(manifest.rows.values())) if name in UNITS else 1.0


def _seconds(manifest: Manifest) -> float:
    """How long an artifact took; of responses what they took when they were asked for, whoever cached them."""
    paid = (
        sum(one["seconds"] for one in manifest.meta.get("paid", {}).values()) if manifest.kind == "negatives" else 0.0
    )
    started, finished = (datetime.fromisoformat(moment) for moment in (manifest.started, manifest.finished))
    return paid or max(1.0, (finished - started).total_seconds())


def _bytes(run: Run, manifest: Manifest) -> int:
    folder = run.store.folder(manifest.kind, manifest.fingerprint)
    return sum((folder / name).stat().st_size for name in manifest.files if (folder / name).is_file())


def _made_here(run: Run, name: str) -> list[Manifest]:
    """What a stage made on a machine like this one, oldest first."""
    here = hardware()
    folders = (run.store.home / "store" / STAGES[name].makes).glob(f"*/{MANIFEST}")
    found = (read_manifest(path.parent) for path in folders if path.parent.suffix != ".partial")
    return sorted((one for one in found if one and here.items() <= one.hardware.items()), key=lambda one: one.finished)
