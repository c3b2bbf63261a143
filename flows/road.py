"""The road without Prefect: which stage comes when, what it would make, and how one stage is run or reused.

What is on disk decides: an artifact whose fingerprint is there, complete and unaltered, is reused; otherwise the
stage runs. A stage takes its inputs from the run's links, so the same function serves the whole road and one stage.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from flows import recipe as recipes
from flows.recipe import Recipe
from pipeline.artifact import Artifact, Store, digest, now
from pipeline.errors import TRANSIENT_ERRNOS, BusyError, TransientError, UserError
from pipeline.stage import Inputs, Progress, Stage
from stages import train
from stages.assemble import stage as assemble
from stages.evaluate import stage as evaluate
from stages.generate import stage as generate
from stages.ingest import stage as ingest
from stages.report import stage as report

STAGES: dict[str, Stage[Any]] = {
    module.STAGE.name: module.STAGE for module in (ingest, generate, assemble, train, evaluate, report)
}
MAKER = {stage.makes: stage.name for stage in STAGES.values()}


class Outcome(NamedTuple):
    """What became of one stage."""

    stage: str
    artifact: Artifact
    reused: bool


class Standing(NamedTuple):
    """How one stage of a run stands: current, stale (its settings or inputs changed since), or missing."""

    stage: str
    state: str
    artifact: Artifact | None


def chosen(stages: Iterable[str]) -> list[str]:
    """The named stages in road order; all of them when none is named. Raises UserError for an unknown name."""
    wanted = list(stages)
    for name in wanted:
        if name not in STAGES:
            raise UserError("run", f"no stage {name!r}", f"one of {', '.join(STAGES)}", "name a stage of the road")
    return [name for name in STAGES if not wanted or name in wanted]


def run_recipe(store: Store, run: str, name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a run: the named one, else the one the run already has, else the one of the run's own name."""
    return recipes.load(name or str(store.recipe(run) or run), list(overrides))


def keep_recipe(store: Store, run: str, recipe: Recipe) -> None:
    """Write the resolved recipe into the run's folder. Raises UserError when the home cannot be written."""
    store.keep_recipe(run, recipes.dump(recipe))


def check(store: Store, run: str, recipe: Recipe, stages: Sequence[str]) -> None:
    """Look for what the stages read (files, models, artifacts of stages left out) before the first of them starts.

    Raises UserError for the first thing that is not there: better now than after days of generation.
    """
    made: set[str] = set()
    for name in stages:
        stage = STAGES[name]
        with suppress(TransientError), _telling_faults(name):  # the stage will see, and is tried again
            stage.outside(getattr(recipe, name))
        inputs_of(store, run, stage, [kind for kind in stage.needs if kind not in made])
        made.add(stage.makes)


def inputs_of(store: Store, run: str, stage: Stage[Any], kinds: Sequence[str] | None = None) -> Inputs:
    """Artifacts a stage reads (or some of them), verified, from the run's links; UserError when one is missing."""
    found = {kind: store.linked(run, kind) for kind in (stage.needs if kinds is None else kinds)}
    for kind, artifact in found.items():
        if artifact is None:
            raise UserError(
                stage.name,
                f"run {run!r} has no intact {kind}",
                f"the {kind} artifact that {MAKER[kind]} makes",
                f"degla run {run} --until {stage.name}",
            )
    return {kind: artifact for kind, artifact in found.items() if artifact is not None}


def identity(stage: Stage[Any], config: Any, inputs: Inputs) -> dict[str, Any]:
    """Everything that decides a stage's result; its digest is the fingerprint."""
    with _telling_faults(stage.name):
        outside = stage.outside(config)
    return {
        "stage": stage.name,
        "stage_version": stage.version,
        "config": config.identity(),
        "inputs": {kind: artifact.digest for kind, artifact in sorted(inputs.items())},
        "outside": outside,
    }


def fingerprint_of(store: Store, run: str, recipe: Recipe, name: str) -> str:
    """Fingerprint of what a stage of a run would make now; UserError when an input or a file it reads is missing."""
    stage = STAGES[name]
    return digest(identity(stage, getattr(recipe, name), inputs_of(store, run, stage)))


def run_stage(
    store: Store,
    run: str,
    recipe: Recipe,
    name: str,
    working: Callable[[], AbstractContextManager[Progress]],
    *,
    force: bool = False,
) -> Outcome:
    """Reuse or run one stage of a run, and link what it made into the run.

    Where another process, here or on another machine that shares the home, is making the same artifact, help it if
    the stage knows how, and wait for it.

    Args:
        working: entered only when the stage really runs; gives its progress callback.
        force: run even when the artifact is there.

    Raises:
        UserError: see each stage; also when an input is missing, or another process makes the same artifact and cannot
            be helped.
        TransientError: a fault of a disk, a network or an engine that may pass by itself.
    """
    stage = STAGES[name]
    config = getattr(recipe, name)
    inputs = inputs_of(store, run, stage)
    decided = identity(stage, config, inputs)
    fingerprint = digest(decided)
    found = None if force else _take(store, run, stage.makes, fingerprint)
    made = False
    while found is None:
        try:
            with store.build(stage.makes, fingerprint) as partial:
                # Another process may have made it before we had the lock.
                found = None if force else _take(store, run, stage.makes, fingerprint)
                if found is None:
                    with working() as progress:
                        found, made = _make(store, run, stage, config, inputs, decided, partial, progress), True
        except BusyError:
            if stage.assist is None:
                raise
            partial = store.partial(stage.makes, fingerprint)
            with working() as progress:
                stage.assist(config, inputs, partial, progress)
                progress("waiting for the process that makes it", 0, 1)
                store.wait(stage.makes, fingerprint)
            found = _take(store, run, stage.makes, fingerprint)
    return Outcome(name, found, not made)


def _take(store: Store, run: str, kind: str, fingerprint: str) -> Artifact | None:
    """Link the artifact into the run if it is there, complete and unaltered."""
    with store.settled():
        found = store.find(kind, fingerprint)
        if found is not None:
            store.link(run, found)
    return found


def _make(
    store: Store,
    run: str,
    stage: Stage[Any],
    config: Any,
    inputs: Inputs,
    decided: dict[str, Any],
    partial: Path,
    progress: Progress,
) -> Artifact:
    started = now()
    with _telling_faults(stage.name):
        meta = stage.run(config, inputs, partial, progress)
        now_outside = stage.outside(config)
        if changed := [name for name, one in decided["outside"].items() if now_outside.get(name) != one]:
            shutil.rmtree(partial)
            raise UserError(
                stage.name,
                f"{', '.join(changed)} changed while it was read",
                "files that stay as they are",
                "run the same command again when nothing writes there",
            )
        manifest = {
            **decided,
            "kind": stage.makes,
            "fingerprint": digest(decided),
            "config": config.model_dump(mode="json"),
            "meta": meta,
            "started": started,
        }
        with store.settled():
            made = store.publish(partial, manifest=manifest)
            store.link(run, made)
        return made


@contextmanager
def _telling_faults(stage: str) -> Iterator[None]:
    """What a disk or a network says, as a user's error, or as one that is worth another try."""
    try:
        yield
    except duckdb.OperationalError as error:  # no memory, or a disk that cannot be written
        raise UserError(
            stage,
            str(error).splitlines()[0],
            "memory and a writable disk with room",
            "make room, then run the same command again",
        ) from error
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        what = f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)
        if error.errno in TRANSIENT_ERRNOS:
            raise TransientError(
                f"{stage}: {what}; expected a disk and a network that answer; fix: the same command goes on from here"
            ) from error
        raise UserError(
            stage,
            what,
            "readable inputs and a writable disk with room",
            "mend the disk or permissions, then run the same command again",
        ) from error


def standing(store: Store, run: str, recipe: Recipe) -> list[Standing]:
    """How every stage of a run stands against its recipe and what is on disk; changes nothing."""
    states = []
    for name, stage in STAGES.items():
        artifact = store.linked(run, stage.makes)
        state = "missing"
        if artifact is not None:
            try:
                wanted = fingerprint_of(store, run, recipe, name)
                upstream_current = all(
                    other.state == "current" for other in states if STAGES[other.stage].makes in stage.needs
                )
                state = "current" if wanted == artifact.manifest.fingerprint and upstream_current else "stale"
            except UserError:
                state = "stale"
        states.append(Standing(name, state, artifact))
    return states
