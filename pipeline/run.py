"""A run: a name, a recipe by value, a store and the stages; what it has, what would run and why, and making it.

What is on disk decides: an artifact whose fingerprint is there, complete and unaltered, is reused; otherwise the
stage runs. A stage takes its inputs from the run's links, so the same code serves the whole pipeline and one stage.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from pipeline import tables
from pipeline.artifact import Artifact, Manifest, digest, now, read_manifest
from pipeline.config import Config, from_yaml, to_yaml
from pipeline.errors import TRANSIENT_ERRNOS, BusyError, TransientError, UserError
from pipeline.stage import Inputs, Progress, Stage, silent
from pipeline.store import Store

if TYPE_CHECKING:
    import duckdb

OTHER_VERSION = "made by another version of degla"
"""What differs where nothing that has a name does: settings came or went."""

Working = Callable[[], AbstractContextManager[Progress]]
"""Entered only while a stage really runs; gives its progress callback."""


class Outcome(NamedTuple):
    """Result of making one stage's artifact: reused from the store, or made."""

    stage: str
    artifact: Artifact
    reused: bool

    def __str__(self) -> str:
        rows = ", ".join(f"{count:,} rows of {table}" for table, count in self.artifact.manifest.rows.items())
        return f"{self.stage:9} {'reused' if self.reused else 'made':7} {self.artifact.path} ({rows or 'no tables'})"


class Status(NamedTuple):
    """One stage of a run: current, stale (its settings or inputs changed since), or missing; and why it would run."""

    stage: str
    state: str
    artifact: Artifact | None
    reasons: tuple[str, ...] = ()


@contextmanager
def quiet() -> Iterator[Progress]:
    """A stage at work without anybody watching."""
    yield silent


class Run:
    """One run of a pipeline.

    Attributes:
        store: where its artifacts are.
        name: the run's name, a folder of the home.
        recipe: its settings, a section per stage; the file in the run's folder is for people and for reruns.
        stages: stage name -> stage, in order.
        outcomes: stage name -> outcome, of the stages that `make` was called for.
        planned: stages that the command at work is to make; empty when none is.
    """

    def __init__(self, store: Store, name: str, recipe: Config, stages: Mapping[str, Stage[Any]]) -> None:
        self.store, self.name, self.recipe, self.stages = store, name, recipe, stages
        self.outcomes: dict[str, Outcome] = {}
        self._outside: dict[str, dict[str, str]] = {}
        self.planned: tuple[str, ...] = ()

    # -- what it has -------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The run's folder, with a link per artifact."""
        return self.store.run(self.name)

    def get(self, kind: str) -> Artifact | None:
        """The verified artifact of that kind, or None."""
        return self.store.linked(self.name, kind)

    def __getitem__(self, kind: str) -> Artifact:
        """The verified artifact of that kind ("pairs", "scores", ...). Raises UserError when there is none."""
        artifact = self.get(kind)
        if artifact is None:
            raise self._missing(kind, f"degla run {self.name}")
        return artifact

    def tables(self) -> dict[str, Path]:
        """Table name -> folder, for every table the run holds. Raises UserError when it holds none."""
        found: dict[str, Path] = {}
        for stage in self.stages.values():
            folder = self.folder / stage.makes
            if manifest := read_manifest(folder):
                found |= {name: Artifact(folder, manifest).table_folder(name) for name in manifest.rows}
        if not found:
            known = ", ".join(self.store.runs()) or "no run"
            raise UserError("sql", f"run {self.name!r} has no table", f"one of {known}", "degla runs")
        return found

    def sql(self, query: str) -> "duckdb.DuckDBPyRelation | None":
        """Answer one SQL statement over the tables; None where it has no answer. Raises UserError for wrong SQL."""
        import duckdb

        found = self.tables()
        example = f"degla sql {self.name} 'describe pairs'"
        try:
            if (count := len(duckdb.extract_statements(query))) != 1:
                raise UserError("sql", f"{count} statements in {query!r}", "one", example)
            answer = tables.database(found).sql(query)
            return answer.materialize() if answer is not None else None
        except duckdb.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError("sql", reason, f"SQL over {', '.join(found)}", example) from None

    # -- what would run ------------------------------------------------------------------------------------------------

    def config(self, stage: str) -> Any:
        """Settings of one stage."""
        return getattr(self.recipe, stage)

    def inputs(self, stage: str, kinds: Sequence[str] | None = None) -> Inputs:
        """Artifacts a stage reads (or some of them), verified. Raises UserError when one is missing."""
        found = {kind: self.get(kind) for kind in (self.stages[stage].needs if kinds is None else kinds)}
        for kind, artifact in found.items():
            if artifact is None:
                raise self._missing(kind, f"degla run {self.name} --until {stage}", stage)
        return {kind: artifact for kind, artifact in found.items() if artifact is not None}

    def identity(self, stage: str, inputs: Inputs | None = None) -> dict[str, Any]:
        """Everything that decides a stage's result; its digest is the fingerprint.

        Args:
            stage: name of the stage.
            inputs: what it reads, verified; default: what the run links to now.
        """
        inputs = self.inputs(stage) if inputs is None else inputs
        outside = {**self._read_outside(stage), **self.stages[stage].beside(inputs)}
        return {**self._inner_identity(stage, inputs), "outside": outside}

    def _inner_identity(self, stage: str, inputs: Inputs) -> dict[str, Any]:
        """The identity without what is outside the store."""
        one, config = self.stages[stage], self.config(stage)
        return {
            "stage": one.name,
            "stage_version": one.version,
            "config": config.identity(),
            "inputs": {kind: artifact.digest for kind, artifact in sorted(inputs.items())},
        }

    def fingerprint(self, stage: str) -> str:
        """Fingerprint of what a stage would make now. Raises UserError when an input or a file it reads is missing."""
        return digest(self.identity(stage))

    def check(self, stages: Sequence[str]) -> None:
        """Look for what the stages read (files, models, artifacts of stages left out) before the first of them starts.

        Raises UserError for the first thing that is not there: better now than after days of generation.
        """
        made: set[str] = set()
        for name in stages:
            stage = self.stages[name]
            with suppress(TransientError):  # the stage will see, and is tried again
                self._read_outside(name)
            self.inputs(name, [kind for kind in stage.needs if kind not in made])
            made.add(stage.makes)

    def status(self, *, manifests: bool = False) -> list[Status]:
        """How every stage stands against the recipe and what is on disk, and why it would run; changes nothing.

        Args:
            manifests: look at these alone: no file is hashed, and nothing outside the store counts.
        """
        held, again = self._held(manifests), set[str]()
        states: list[Status] = []
        for name, stage in self.stages.items():
            artifact = held.get(stage.makes)
            if artifact is None:
                state, reasons = "missing", [f"no intact {stage.makes} on disk"]
            elif remade := sorted(again & set(stage.needs)):
                state, reasons = "stale", [f"{kind} will be made again" for kind in remade]
            else:
                reasons = self._changed(name, artifact, {kind: held[kind] for kind in stage.needs}, manifests)
                state = "stale" if reasons else "current"
            if reasons:
                again.add(stage.makes)
            states.append(Status(name, state, artifact, tuple(reasons)))
        return states

    def _changed(self, name: str, artifact: Artifact, inputs: Inputs, manifests: bool) -> list[str]:
        """What decides a stage's result and is not as it was when the artifact was made."""
        made = decided(artifact.manifest, self.stages[name])
        if manifests:
            del made["outside"]
            return list(differences(made, self._inner_identity(name, inputs)))
        try:
            wanted = self.identity(name, inputs)
        except UserError as error:
            return [str(error)]
        if digest(wanted) == artifact.manifest.fingerprint:
            return []
        return list(differences(made, wanted)) or [OTHER_VERSION]

    def _held(self, manifests: bool = False) -> dict[str, Artifact]:
        """Every artifact the run holds, verified, or as its manifest says."""
        look = self.store.glance if manifests else self.store.linked
        found = {stage.makes: look(self.name, stage.makes) for stage in self.stages.values()}
        return {kind: artifact for kind, artifact in found.items() if artifact is not None}

    # -- making it -----------------------------------------------------------------------------------------------------

    @contextmanager
    def at_work(self, stages: Sequence[str]) -> Iterator[None]:
        """While these stages are made: checked beforehand, the recipe written, nobody at work with other settings.

        Within it, nothing outside the store is looked at twice but by the stage that reads it.

        Raises:
            UserError: as `check` does.
            BusyError: another command works on this run with other settings; names them.
        """
        if self.planned:
            yield
            return
        self._outside.clear()
        self.check(stages)
        with ExitStack() as stack:
            try:
                stack.enter_context(self.store.at_work(self.name, digest(self.recipe.identity())))
            except BusyError as error:
                raise BusyError("run", error.what + self._difference(), error.expected, error.fix) from None
            path = self.store.recipe(self.name)
            kept = path.read_text(encoding="utf-8") if path else None
            self.store.keep_recipe(self.name, to_yaml(self.recipe))
            self.planned = tuple(stages)
            try:
                yield
            except UserError:
                # A mistaken setting does not stay in the run; one that something was made with does.
                if kept is not None and all(outcome.reused for outcome in self.outcomes.values()):
                    self.store.keep_recipe(self.name, kept)
                raise
            finally:
                self.planned = ()

    def make(self, stage: str, working: Working = quiet, *, force: bool = False) -> Outcome:
        """Reuse or run one stage, and link what it made into the run.

        Where another process, here or on another machine that shares the home, is making the same artifact, help it if
        the stage knows how, and wait for it.

        Args:
            stage: name of the stage.
            working: entered only when the stage really runs; gives its progress callback.
            force: run even when the artifact is there.

        Raises:
            UserError: see each stage; also for an unknown stage, a missing input, or when another process makes the
                same artifact and cannot be helped, or works on this run with other settings.
            TransientError: a fault of a disk, a network or an engine that may pass by itself.
        """
        if stage not in self.stages:
            raise UserError("run", f"no stage {stage!r}", f"one of {', '.join(self.stages)}", "name a stage")
        with self.at_work([stage]):
            outcome = self.outcomes[stage] = self._reuse_or_make(stage, working, force)
        return outcome

    def reuse(self, stage: str) -> Outcome | None:
        """Link what the store has already of what a stage would make; None where the stage must run.

        Raises UserError for a missing input, or a file that is not there.
        """
        with self.at_work([stage]):
            found = self._take(self.stages[stage].makes, self.fingerprint(stage))
        if found is None:
            return None
        outcome = self.outcomes[stage] = Outcome(stage, found, True)
        return outcome

    def go_back(self, fingerprint: str) -> list[str]:
        """Hold an artifact of the run's history again, with what it was made from and the settings of them all.

        Stages after it keep their settings and are not made. Returns the stages that are as they were then, in order.

        Raises:
            UserError: the run never held it; or it, or what it was made from, is gone or altered; or its settings are
                those of another version of degla.
            BusyError: another command works on this run.
        """
        history = [one for one in reversed(self.store.history(self.name)) if "kind" in one]
        while history and history[0]["fingerprint"] != fingerprint:
            del history[0]  # what it was made from, the run held before
        if not history:
            raise UserError(
                "run",
                f"run {self.name!r} never held {fingerprint!r}",
                "a fingerprint of its history",
                f"degla log {self.name} lists them",
            )
        found = self._made_from(history[0]["kind"], [fingerprint], history)
        sections = {}
        for one in found.values():
            stage = self.stages[one.manifest.stage]
            try:
                sections[stage.name] = stage.config.model_validate(one.manifest.config)
            except ValidationError:
                what = f"{one.manifest.kind}/{one.manifest.fingerprint} was made by another version of degla"
                raise UserError("run", what, "settings that this version knows", "make it again") from None
        self.recipe = self.recipe.model_copy(update=sections)
        with self.at_work([]):
            for name in sections:
                artifact = found[self.stages[name].makes]
                with self.store.lock():
                    self.link(artifact)
                self.outcomes[name] = Outcome(name, artifact, True)
        return [name for name in self.stages if name in sections]

    def _made_from(
        self, kind: str, fingerprints: Sequence[str], history: Sequence[Mapping[str, Any]]
    ) -> dict[str, Artifact]:
        """Kind -> artifact: the first of these that is intact, and the artifacts of a history that it was made from."""
        artifact = next((one for one in (self.store.find(kind, name) for name in fingerprints) if one), None)
        if artifact is None:
            what = f"the {kind} that run {self.name!r} held then is not intact any more"
            raise UserError("run", what, "what nobody deleted or altered since", f"degla log {self.name}")
        direct, further = {kind: artifact}, dict[str, Artifact]()
        for needed, wanted in artifact.manifest.inputs.items():
            alike = [
                one["fingerprint"]
                for one in history
                if one["kind"] == needed and self.store.content(needed, one["fingerprint"]) == wanted
            ]
            further |= self._made_from(needed, alike, history)
            direct[needed] = further[needed]
        return further | direct

    def _reuse_or_make(self, name: str, working: Working, force: bool) -> Outcome:
        stage, store = self.stages[name], self.store
        inputs = self.inputs(name)
        decided = self.identity(name, inputs)
        fingerprint = digest(decided)
        found = None if force else self._take(stage.makes, fingerprint)
        made = False
        while found is None:
            try:
                with store.build(stage.makes, fingerprint) as partial:
                    # Another process may have made it before we had the lock.
                    found = None if force else self._take(stage.makes, fingerprint)
                    if found is None:
                        with working() as progress:
                            found, made = self._make(stage, inputs, decided, partial, progress), True
            except BusyError:
                if stage.assist is None:
                    raise
                partial = store.partial(stage.makes, fingerprint)
                with working() as progress:
                    stage.assist(self.config(name), inputs, partial, progress)
                    progress("waiting for the process that makes it", 0, 1)
                    store.wait(stage.makes, fingerprint)
                found = self._take(stage.makes, fingerprint)
        return Outcome(name, found, not made)

    def _take(self, kind: str, fingerprint: str) -> Artifact | None:
        """Link the artifact into the run if it is there, complete and unaltered."""
        with self.store.lock():
            found = self.store.find(kind, fingerprint)
            if found is not None:
                self.link(found)
        return found

    def link(self, artifact: Artifact, *, made: bool = False) -> None:
        """Make the run hold an artifact, and write down that it does, what that replaced, and what differs.

        Args:
            artifact: of the run's store.
            made: whether it was made just now, for this run.
        """
        new = artifact.manifest
        old = self.store.glance(self.name, new.kind)
        self.store.link(self.name, artifact)
        if old and old.manifest.fingerprint == new.fingerprint and not made:
            return
        stage = self.stages[new.stage]
        changed = list(differences(decided(old.manifest, stage), decided(new, stage))) if old else []
        if old and not changed and old.manifest.fingerprint != new.fingerprint:
            changed = [OTHER_VERSION]
        entry = {"at": now(), "stage": new.stage, "kind": new.kind, "fingerprint": new.fingerprint, "made": made}
        self.store.log(self.name, entry | {"changed": changed})

    def _make(
        self, stage: Stage[Any], inputs: Inputs, decided: dict[str, Any], partial: Path, progress: Progress
    ) -> Artifact:
        started, config = now(), self.config(stage.name)
        with translate_os_errors(stage.name):
            meta = stage.run(config, inputs, partial, progress)
            self._outside[stage.name] = stage.outside(config)
            outside = {**self._outside[stage.name], **stage.beside(inputs)}
            if changed := sorted({name for name, _ in outside.items() ^ decided["outside"].items()}):
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
            with self.store.lock():
                made = self.store.publish(partial, manifest=manifest)
                self.link(made, made=True)
            return made

    def _read_outside(self, stage: str) -> dict[str, str]:
        """Digests of what a stage reads from outside the store, looked at once."""
        if stage not in self._outside:
            with translate_os_errors(stage):
                self._outside[stage] = self.stages[stage].outside(self.config(stage))
        return self._outside[stage]

    def _missing(self, kind: str, fix: str, stage: str = "run") -> UserError:
        maker = next((name for name, one in self.stages.items() if one.makes == kind), None)
        if maker is None:
            known = ", ".join(one.makes for one in self.stages.values())
            return UserError(stage, f"there is no artifact {kind!r}", f"one of {known}", "name one of them")
        return UserError(
            stage, f"run {self.name!r} has no intact {kind}", f"the {kind} artifact that {maker} makes", fix
        )

    def _difference(self) -> str:
        """What of the recipe differs from the one in the run's folder, the first few settings."""
        path = self.store.recipe(self.name)
        try:
            kept = _deciding(type(self.recipe), from_yaml(path.read_text(encoding="utf-8"))) if path else {}
        except (OSError, ValueError):
            return ""
        changed = list(differences(kept, self.recipe.identity()))
        return f" ({'; '.join(changed[:3])}{'; ...' if len(changed) > 3 else ''})" if changed else ""


def decided(manifest: Manifest, stage: Stage[Any]) -> dict[str, Any]:
    """What decided an artifact's result, as `Run.identity` names it; `stage` made it."""
    return {
        "stage_version": manifest.stage_version,
        "config": _deciding(stage.config, manifest.config),
        "inputs": manifest.inputs,
        "outside": manifest.outside,
    }


def _deciding(config: type[Config], kept: dict[str, Any]) -> dict[str, Any]:
    """The deciding part of settings that were kept; all of them when degla has other fields by now."""
    try:
        return config.model_validate(kept).identity()
    except ValidationError:
        return kept


def differences(made: Any, wanted: Any, prefix: str = "") -> Iterator[str]:
    """Dotted settings that differ: "train.lr: 0.001 -> 0.5"."""
    if isinstance(made, dict) and isinstance(wanted, dict):
        for key in sorted(set(made) | set(wanted) - {"stage"}):
            yield from differences(made.get(key), wanted.get(key), f"{prefix}.{key}".lstrip("."))
    elif made != wanted:
        yield f"{prefix}: {made} -> {wanted}"


@contextmanager
def translate_os_errors(stage: str) -> Iterator[None]:
    """What a disk or a network says, as a user's error, or as one that is worth another try."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        what = f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)
        if error.errno in TRANSIENT_ERRNOS:
            raise TransientError(
                f"{stage}: {what}; expected a disk and a network that answer; fix: the same command continues from here"
            ) from error
        raise UserError(
            stage,
            what,
            "readable inputs and a writable disk with room",
            "mend the disk or permissions, then run the same command again",
        ) from error
    except Exception as error:
        import duckdb

        if not isinstance(error, duckdb.OperationalError):
            raise
        raise UserError(  # no memory, or a disk that cannot be written
            stage,
            str(error).splitlines()[0],
            "memory and a writable disk with room",
            "make room, then run the same command again",
        ) from error
