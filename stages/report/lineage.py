"""The lineage page of a run: what its artifacts were made from, who made them, who else holds them, what changed when.

Unlike the report it depends on the other runs of the home, so it is no artifact: it lies in the run's folder and is
written anew whenever something was made.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.artifact import Artifact, now
from pipeline.run import Run, Status, decided, differences
from pipeline.store import Store
from stages.pages import render

PAGE = "lineage.html"

JsonObject = dict[str, Any]


def write(run: Run) -> Path:
    """Write the page into the run's folder; returns where. Raises OSError when the folder cannot be written."""
    page = run.folder / PAGE
    tables.write_text(page, render(PAGE, gather(run)))
    return page


def gather(run: Run) -> JsonObject:
    """What the page says, as plain JSON data, by manifests and histories alone: no file is hashed.

    `artifacts`: in the order of the pipeline; of each what made it, when, in which run, from which of the others, by
    which settings that are not the default, and which other runs hold it. `history`: what happened, the latest first.
    """
    states = run.status(manifests=True)
    held = {one.artifact.manifest.kind: one.artifact for one in states if one.artifact}
    makers = _makers(run.store)
    return {
        "run": run.name,
        "at": now(),
        "artifacts": [_artifact(run, one, one.artifact, held, makers) for one in states if one.artifact],
        "missing": [run.stages[one.stage].makes for one in states if one.artifact is None],
        "history": [
            one if "promoted" in one else one | {"changed": [_told(line) for line in one["changed"]]}
            for one in reversed(run.store.history(run.name))
        ],
    }


def _artifact(
    run: Run, status: Status, artifact: Artifact, held: dict[str, Artifact], makers: dict[str, str]
) -> JsonObject:
    manifest, stage = artifact.manifest, run.stages[status.stage]
    begun, ended = (datetime.fromisoformat(one) for one in (manifest.started, manifest.finished))
    return {
        "kind": manifest.kind,
        "stage": manifest.stage,
        "state": status.state,
        "reasons": [_told(reason) for reason in status.reasons],
        "fingerprint": manifest.fingerprint,
        "finished": manifest.finished,
        "seconds": (ended - begun).total_seconds(),
        "rows": manifest.rows,
        "commit": manifest.git.get("commit"),
        "made_by": makers.get(manifest.fingerprint),
        "held_by": [name for name in run.store.holders(artifact) if name != run.name],
        "reads": [kind for kind, one in held.items() if manifest.inputs.get(kind) == one.digest],
        "others": [kind for kind, digest in manifest.inputs.items() if kind not in held or held[kind].digest != digest],
        "outside": manifest.outside,
        "settings": [
            _told(line)
            for line in differences(stage.config().identity(), decided(manifest, stage)["config"])
            if not line.startswith(("run:", "description:"))
        ],
    }


def _makers(store: Store) -> dict[str, str]:
    """Fingerprint -> the run that made it last, as far as runs remember."""
    found = [
        (entry["at"], entry["fingerprint"], name)
        for name in store.runs()
        for entry in store.history(name)
        if entry.get("made")
    ]
    return {fingerprint: name for _, fingerprint, name in sorted(found)}


def _told(line: str) -> str:
    """A difference as `pipeline.run.differences` words it, without what only digests say."""
    name, _, values = line.partition(": ")
    where, _, what = name.partition(".")
    if where == "inputs":
        return f"another {what}"
    if where == "outside":
        return f"{what}, read from outside the store: {values}"
    if name == "stage_version":
        return f"the stage's code, version {values}"
    return line.removeprefix("config.")
