"""What of a home may be deleted: nothing that a run links to, reads, or would resume from; nothing in a writer's hands.

Cached responses of a language model cost something: they are offered only when asked for, and only when no run's recipe
can use them.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline import tables
from pipeline.artifact import MANIFEST, Artifact, Manifest, digest, read_manifest
from pipeline.errors import UserError
from pipeline.store import Store
from stages.generate.backends import is_paid
from stages.generate.prompts import prompts_of
from stages.generate.responses import sources
from stages.road import STAGES, Run


class Garbage(NamedTuple):
    """One folder or file that may be deleted."""

    path: Path
    why: str
    size: int


def find(store: Store, *, replies: bool = False) -> list[Garbage]:
    """What may be deleted, and why.

    Args:
        store: whose home it is.
        replies: also paid responses that no run's recipe can use.
    """
    wanted = _wanted(store)
    with store.lock(exclusive=True):
        found = list(_unused(store, wanted, replies))
    return [Garbage(path, why, _size(path)) for path, why in found]


def delete(store: Store, found: list[Garbage]) -> None:
    """Delete what is still garbage now; meanwhile no artifact is taken up or published."""
    wanted, named = _wanted(store), {one.path for one in found}
    with store.lock(exclusive=True):
        for path, _ in list(_unused(store, wanted, True)):
            if path not in named:
                continue
            if path.is_dir() and not path.is_symlink():
                (path / MANIFEST).unlink(missing_ok=True)  # killed here, the rest is no artifact
                shutil.rmtree(path)
            else:
                path.unlink()


def _unused(store: Store, wanted: set[tuple[str, str]], replies: bool) -> Iterator[tuple[Path, str]]:
    folders = sorted(path for path in (store.home.resolve() / "store").glob("*/*") if path.is_dir())
    made = {path: manifest for path in folders if (manifest := read_manifest(path)) and path.suffix != ".partial"}
    kept = _kept(store, made)
    busy = {path for path in folders if store.is_busy(path)}
    # What a stage at work reads stays, whatever its run links to by now.
    read = {
        kind for stage in STAGES.values() for path in busy if stage.makes == path.parent.name for kind in stage.needs
    }
    pairs = {path for path in made if path.parent.name == "pairs"}
    for path in folders:
        if path in busy or path in kept:
            continue
        if path.suffix == ".partial":
            if not wanted & {(path.parent.name, path.stem), (path.parent.name, "")}:
                yield path, "begun and left, and no run's recipe leads to it"
        elif path not in made:
            yield path, "has no manifest"
        elif path.parent.name not in read:
            pairs.discard(path)
            yield path, "no run links to it, or to what was made from it"
    for path in sorted(store.home.resolve().glob("*/.*.tmp")):
        if path.is_symlink():
            yield path, "a link begun by a process that died"
    yield from _images(store, pairs)
    yield from _replies(store, replies)
    for path in sorted((store.home.resolve() / "prefect" / "storage").glob("*")):
        yield path, "an error Prefect kept, which nothing reads"


def _kept(store: Store, made: dict[Path, Manifest]) -> set[Path]:
    """Artifacts that a run links to, and whatever those were made from."""
    kept = {path.resolve() for path in store.home.glob("*/*") if path.is_symlink() and path.suffix != ".tmp"}
    contents = {path: (manifest.kind, Artifact(path, manifest).digest) for path, manifest in made.items()}
    while True:
        read = {item for path in kept & made.keys() for item in made[path].inputs.items()}
        grown = kept | {path for path, content in contents.items() if content in read}
        if grown == kept:
            return kept
        kept = grown


def _wanted(store: Store) -> set[tuple[str, str]]:
    """Kind and fingerprint of what the runs' recipes lead to; "" stands for all of a kind where that is not known."""
    found = set()
    for run in store.runs():
        for name, stage in STAGES.items():
            try:
                found.add((stage.makes, Run.open(run, store=store).fingerprint(name)))
            except UserError:
                found.add((stage.makes, ""))
    return found


def _images(store: Store, pairs: set[Path]) -> Iterator[tuple[Path, str]]:
    """Decoded images that none of these pairs holds."""
    if not (store.home / "images").exists():
        return
    import duckdb

    from stages.train import pictures  # loads torch

    wanted: set[str] = set()
    for path in pairs:
        try:
            with tables.connect({"pairs": path}) as sql:
                wanted.update(sha256 for (sha256,) in sql.execute("select distinct image_sha256 from pairs").fetchall())
        except duckdb.Error:
            return  # which images that harmed table held is not known
    yield from pictures.unused(store.home.resolve(), wanted)


def _replies(store: Store, paid_too: bool) -> Iterator[tuple[Path, str]]:
    usable: set[str] = set()
    for run in store.runs():
        try:
            opened = Run.open(run, store=store)
            config, inputs = opened.recipe.generate, opened.inputs("generate")
            usable |= {digest(source) for source in sources(config, prompts_of(config), inputs).values()}
        except UserError:
            return  # what that run could use is not known
    for folder in sorted(store.home.resolve().glob("replies/*/*")):
        about = folder / "about.json"
        if folder.name in usable or not about.exists():
            continue
        backend = json.loads(about.read_text(encoding="utf-8"))["backend"]
        if paid_too or not is_paid(backend):
            yield folder, f"cached responses by {backend} that no run's recipe can use"


def _size(path: Path) -> int:
    files = [path, *path.rglob("*")] if not path.is_symlink() else []
    return sum(file.stat().st_size for file in files if file.is_file())
