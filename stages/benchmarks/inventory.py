"""What a folder of benchmarks holds, and whether it is what it should be."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.stage import Progress, silent
from stages.benchmarks import fetch
from stages.benchmarks.loaders import assert_official, folder_readers, read
from stages.benchmarks.registry import known
from stages.benchmarks.rows import Subset


@dataclass(frozen=True)
class Status:
    """One benchmark below a root.

    Attributes:
        name: of the benchmark.
        exists: whether it has a folder.
        rows: count by subset; empty where they cannot be read.
        images_found: image files that are there.
        images_named: image files the rows name.
        problems: one line each; empty = all is as it should be.
    """

    name: str
    exists: bool
    rows: dict[str, int]
    images_found: int
    images_named: int
    problems: tuple[UserError, ...]


def status(name: str, root: Path, *, official: bool = True, progress: Progress = silent) -> Status:
    """Read one benchmark, count its rows and images, and hold it against the registry.

    With `official`, checksums, counts and the list of subsets are those of the published files.
    """
    if not (root / name).is_dir():
        return Status(name, False, {}, 0, 0, ())
    progress(f"reading {name}", 0, 1)
    problems: list[UserError] = []
    for file in fetch.files(name, root) if official else ():
        if file.path.is_file() and not file.into:
            with _noted(problems):
                fetch.check(file.path, file.checksum)
    subsets: list[Subset] = []
    with _noted(problems):
        subsets = read(name, root)
    rows = {subset.name: len(subset.rows) for subset in subsets}
    if official and subsets:
        with _noted(problems):
            assert_official(subsets)
        lacking = [] if known(name).get("open") else sorted(set(known(name).get("subsets", ())) - set(rows))
        if lacking:
            fix = f"degla data list {name} says where it is from"
            problems.append(UserError("data", f"{root / name} lacks {', '.join(lacking)}", "every subset", fix))
    files = {image.path for subset in subsets for image in subset.images}
    absent = sorted(path for path in files if not path.is_file())
    progress(f"reading {name}", 1, 1)
    if absent:
        what = f"{name} lacks {len(absent):,} of {len(files):,} images, e.g. {absent[0]}"
        problems.append(
            UserError(
                "data", what, known(name).get("pictures", "images where its rows name them"), "link the images there"
            )
        )
    return Status(name, True, rows, len(files) - len(absent), len(files), tuple(problems))


def unknown_folders(root: Path) -> list[Path]:
    """Folders of a root that are no benchmark's, such as one with a misspelt name."""
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted(path for path in folders if path.name not in folder_readers() and not path.name.startswith("."))


@contextmanager
def _noted(problems: list[UserError]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        problems.append(error)


def select(names: list[str]) -> list[str]:
    """The benchmarks of these names, or all when none is given; raises UserError for one that does not exist."""
    every = folder_readers()
    for name in names:
        if name not in every:
            raise UserError("data", f"there is no benchmark {name!r}", ", ".join(every), "name one of these")
    return names or list(every)
