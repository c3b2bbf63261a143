"""A run's artifacts as Prefect's assets, so that its UI has their lineage; and what was checked of them, as a table."""

from collections.abc import Mapping
from typing import Any

from prefect.assets import Asset, AssetProperties

from pipeline.artifact import Artifact
from pipeline.run import Run
from stages.assemble.checks import read_checks
from stages.pages import percent

CHECKS_SAY = "What was checked of dataset and negatives. An error stops its stage; a warning is for you to judge."


def asset(run: Run, kind: str) -> Asset:
    """The asset that one of the run's artifacts is: degla://<run>/<kind>."""
    maker = next(stage.name for stage in run.stages.values() if stage.makes == kind)
    told = AssetProperties(name=f"{run.name}: {kind}", description=f"Made by {maker}, in {run.folder / kind}.")
    return Asset(key=f"degla://{run.name}/{kind}", properties=told)


def facts(artifact: Artifact) -> dict[str, Any]:
    """What Prefect keeps of one materialization: which artifact, how many rows, how many warnings."""
    manifest = artifact.manifest
    warnings = sum(row["severity"] == "warning" and not row["holds"] for row in checks({manifest.kind: artifact}))
    return {"fingerprint": manifest.fingerprint, "rows": manifest.rows, "warnings": warnings}


def checks(held: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """What was checked of the dataset and the negatives, by their manifests; what does not hold comes first.

    Returns {artifact, check, severity: "error" or "warning", holds, found} each.
    """
    rows: list[dict[str, Any]] = []
    if dataset := held.get("dataset"):
        severities = {check.what: check.severity for check in read_checks()}
        for what, count in dataset.meta.get("checks", {}).items():
            rows.append(_row("dataset", what, severities.get(what, "warning"), not count, f"{count:,} rows"))
    if negatives := held.get("negatives"):
        limit = negatives.manifest.config.get("max_reject_rate", 1.0)
        for kind, one in negatives.meta.get("types", {}).items():
            pairs, total = one["pairs"], sum(one["pairs"].values())
            share = pairs.get("rejected", 0) / total if total else 0.0
            found = f"{percent(share)} % rejected, of at most {percent(limit)}"
            rows.append(_row("negatives", f"{kind}: too many captions are rejected", "error", share <= limit, found))
        for kind, judges in negatives.meta.get("blind", {}).items():
            for judge, one in judges.items():
                found = f"{percent(one['accuracy'])} % told ({percent(one['low'])} to {percent(one['high'])})"
                what = f"{kind}: text alone tells the negative from its caption ({judge})"
                rows.append(_row("negatives", what, "warning", one["low"] <= 0.5, found))
    return sorted(rows, key=lambda row: (row["holds"], row["severity"]))


def _row(artifact: str, check: str, severity: str, holds: bool, found: str) -> dict[str, Any]:
    return {"artifact": artifact, "check": check, "severity": severity, "holds": holds, "found": found}
