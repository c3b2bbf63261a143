"""The reproducibility checklist of a run: each line a fact read from the manifests, and whether it holds."""

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.artifact import Artifact

SEEDS = ("seed", "split_seed")
MODELS = ("before", "after")


class Line(NamedTuple):
    """One line.

    Attributes:
        says: what should hold.
        holds: whether it does; None = nothing here to decide it by.
        found: the values that decide it.
    """

    says: str
    holds: bool | None
    found: str


def checklist(inputs: Mapping[str, Artifact]) -> list[Line]:
    """The lines, from the artifacts pairs, negatives, dataset, model and scores of one run."""
    return [
        _chain(inputs),
        _one_commit(inputs),
        _clean(inputs),
        _packages(inputs),
        _seeds(inputs),
        *_negatives(inputs["negatives"]),
        _checks(inputs["dataset"]),
        _leaks(inputs["dataset"], inputs["scores"]),
        *_training(inputs["model"]),
        *_scores(inputs["scores"]),
    ]


def _chain(inputs: Mapping[str, Artifact]) -> Line:
    broken = [
        f"{kind} was made from another {read}"
        for kind, artifact in inputs.items()
        for read, digest in artifact.manifest.inputs.items()
        if read in inputs and inputs[read].digest != digest
    ]
    links = sum(len(artifact.manifest.inputs) for artifact in inputs.values())
    says = "Every artifact was made from the ones shown here"
    return Line(says, not broken, "; ".join(broken) or f"{links} recorded input digests agree")


def _one_commit(inputs: Mapping[str, Artifact]) -> Line:
    commits = {str(artifact.manifest.git.get("commit"))[:12] for artifact in inputs.values()}
    known = "None" not in commits
    return Line("One commit made everything", len(commits) == 1 if known else None, ", ".join(sorted(commits)))


def _clean(inputs: Mapping[str, Artifact]) -> Line:
    dirty = [kind for kind, artifact in inputs.items() if artifact.manifest.git.get("dirty")]
    says = "No file of that commit was changed"
    return Line(says, not dirty, f"changed while making {', '.join(dirty)}" if dirty else "the working tree was clean")


def _packages(inputs: Mapping[str, Artifact]) -> Line:
    versions: dict[str, set[str]] = {}
    for artifact in inputs.values():
        for name, version in artifact.manifest.packages.items():
            versions.setdefault(name, set()).add(version)
    mixed = [f"{name} {' and '.join(sorted(found))}" for name, found in versions.items() if len(found) > 1]
    says = "One version of each package made everything"
    return Line(says, not mixed, "; ".join(mixed) or f"{len(versions)} packages recorded")


def _seeds(inputs: Mapping[str, Artifact]) -> Line:
    found = {
        artifact.manifest.stage: artifact.manifest.config[name]
        for artifact in inputs.values()
        for name in SEEDS
        if name in artifact.manifest.config
    }
    fixed = all(isinstance(seed, int) for seed in found.values())
    return Line("Seeds are fixed", fixed, ", ".join(f"{stage} {seed}" for stage, seed in found.items()))


def _negatives(negatives: Artifact) -> list[Line]:
    outside = negatives.manifest.outside
    told = [name for name in outside if name.startswith("prompt")]
    generator = outside.get("model")
    return [
        Line("The generator is known by digest", bool(generator), f"{negatives.meta.get('model')}: {generator}"),
        Line("Its prompts are known by digest", bool(told) or None, f"{len(told)} prompts"),
    ]


def _checks(dataset: Artifact) -> Line:
    checks = dataset.meta.get("checks")
    says = "The dataset was checked, rule by rule"
    if checks is None:
        return Line(says, None, "no check was recorded")
    kinds = {rule: count for rule, count in checks.items() if count}
    found = "; ".join(f"{rule}: {count:,}" for rule, count in kinds.items()) or "no row breaks any"
    return Line(says, bool(checks), f"{len(checks)} rules; {found}")


def _leaks(dataset: Artifact, scores: Artifact) -> Line:
    looked = dataset.meta.get("leaks")
    clean = sum("clean" in one for one in scores.meta["aggregates"].values())
    says = "Overlaps with benchmarks were looked for and are reported"
    found = f"{', '.join(looked)}; {clean} scores also without overlapping rows" if looked else "not looked for"
    return Line(says, bool(looked) if looked is not None else None, found)


def _training(model: Artifact) -> list[Line]:
    weights = {name: sha for name, sha in model.manifest.files.items() if name.endswith(".safetensors")}
    select, start = model.manifest.config.get("select"), model.manifest.outside.get("model")
    bad, exact = model.meta.get("not_finite"), model.meta.get("determinism", {})
    judged = {"last": "the last step", "best": "the val split of its own dataset"}.get(str(select))
    return [
        Line("The start is known by digest", bool(start), f"{model.meta['start']['model']}: {start}"),
        Line("The weights are known by digest", bool(weights), ", ".join(f"{n} {s[:12]}" for n, s in weights.items())),
        Line("No checkpoint was chosen by a benchmark", judged is not None or None, f"kept: {judged or select}"),
        Line(
            "No step was skipped for values that are not finite", None if bad is None else bad == 0, f"{bad} such steps"
        ),
        Line(
            "Training again gives the same bits",
            exact["level"] == "bits" if exact else None,
            f"on {exact['holds_for']}" if exact else "not recorded",
        ),
    ]


def _scores(scores: Artifact) -> list[Line]:
    meta = scores.meta
    protocols: dict[str, str] = meta["protocols"]
    ties = sum(
        one[m].get("ties", {"n": 0})["n"] for one in meta["aggregates"].values() if one["subset"] for m in MODELS
    )
    short = [name for name, one in meta["aggregates"].items() if one["subset"] and one["n"] < one["of"]]
    activations = {name: model.get("activation") for name, model in meta["models"].items()}
    return [
        Line("Benchmark files are the official ones, by count and digest", bool(meta["official"]),
             "asserted at load" if meta["official"] else "not asserted: the built-in world, or files of one's own"),
        Line("Every row was scored", not short, f"rows missing in {', '.join(short)}" if short else "all of them"),
        Line("Similarities are fp32", all(";fp32;" in one for one in protocols.values()),
             f"{len(protocols)} protocols"),
        Line("Each set names what a tie counts as", all("tie=" in one for one in protocols.values()),
             f"{ties} ties in the sets' own scores"),
        Line("All models compute one activation, recorded with their weights",
             len(set(activations.values())) == 1 and None not in activations.values(),
             ", ".join(f"{name} {one}" for name, one in activations.items())),
    ]  # fmt: skip
