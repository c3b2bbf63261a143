"""`degla data`: which benchmarks there are, whether a folder holds them whole, and getting them."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows import progress
from flows.cli.evaluate import ROOT
from flows.terminal import Json, out, print_json
from pipeline import tables
from pipeline.artifact import file_sha256
from pipeline.errors import UserError

if TYPE_CHECKING:
    from stages.benchmarks.inventory import Status

app = typer.Typer(help="The benchmarks: what there is, whether it is whole, and getting it.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(help="benchmarks; none = all")]
Root = Annotated[Path, typer.Option(envvar=ROOT, help="folder of benchmarks, as evaluate.root")]
Official = Annotated[bool, typer.Option(help="hold files against known counts and digests")]


@app.command(name="list")
def show(
    names: Names = None,
    root: Annotated[Path | None, typer.Option(envvar=ROOT, help="to say what is there")] = None,
    as_json: Json = False,
) -> None:
    """Every benchmark: licence, what it measures, what was verified and when; with names, where each part is from."""
    from stages.benchmarks import fetch, inventory
    from stages.benchmarks.registry import registry

    there = ("files", "rows", "images") if root else ()
    selected = inventory.select(names or [])
    if as_json:
        told = {name: dict(zip(there, _there(name, root), strict=True)) if root else {} for name in selected}
        print_json({name: registry()[name] | told[name] for name in selected})
        return
    table = Table("benchmark", "licence", *there, "measures", "verified")
    for name in selected:
        facts = registry()[name]
        table.add_row(
            name, facts["licence"], *(_there(name, root) if root else ()), facts["measures"], facts.get("verified", "-")
        )
    out.print(table)
    for name in names or ():
        facts = registry()[name]
        out.print(f"\n{facts['title']} ({facts['licence']})", style="bold", soft_wrap=True)
        for key in ("source", "mirror", "paper", "layout", "pictures", "verified"):
            if key in facts:
                out.print(f"  {'images' if key == 'pictures' else key:9} {facts[key]}")
        for file in fetch.files(name, Path()):
            out.print(f"  {'archive' if file.into else 'file':9} {file.path}  {file.url}")
            if file.mirror:
                out.print(f"  {'or':9} {file.mirror}")


def _there(name: str, root: Path) -> tuple[str, str, str]:
    """Files, rows and images of a benchmark below a root."""
    from stages.benchmarks import fetch, inventory

    known = [file for file in fetch.files(name, root) if not file.images]
    files = f"{sum(file.is_complete for file in known)} of {len(known)}" if known else "-"
    found = inventory.status(name, root, official=False)
    if not found.rows:
        return files, "cannot be read" if found.exists else "-", "-"
    return files, f"{sum(found.rows.values()):,}", f"{found.images_found:,} of {found.images_named:,}"


@app.command()
def check(root: Root, names: Names = None, official: Official = True, as_json: Json = False) -> None:
    """Verify files, counts, checksums and images; exit status 2 when something is not as it should be."""
    from stages.benchmarks import inventory

    if not root.is_dir():
        raise UserError("data", f"{root} is not there", "a folder with benchmarks", "--root, or: degla data fetch")
    with progress.shown("data") as bar:
        found = [
            inventory.status(name, root, official=official, progress=bar) for name in inventory.select(names or [])
        ]
    there = [one for one in found if one.exists or names]
    if as_json:
        print_json([asdict(one) | {"problems": [str(problem) for problem in one.problems]} for one in there])
    else:
        _print(there, root, [] if names else inventory.unknown_folders(root))
    if any(one.problems or not one.exists for one in there):
        raise typer.Exit(2)


def _print(there: "list[Status]", root: Path, passed_over: Iterable[Path]) -> None:
    for folder in passed_over:
        out.print(f"{folder.name:20} is no benchmark and is passed over")
    if not there:
        out.print(f"{root} holds no benchmark; see: degla data list")
    for one in there:
        rows = f"{sum(one.rows.values()):,} rows in {len(one.rows)} subsets" if one.exists else "not there"
        verdict = "ok" if one.exists and not one.problems else "wrong"
        out.print(f"{one.name:20} {verdict:6} {rows}, {one.images_found:,} of {one.images_named:,} images")
        for problem in one.problems:
            print(problem, file=sys.stderr)


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="benchmarks")],
    root: Root,
    pictures: Annotated[bool, typer.Option("--pictures", help="also archives of images, many gigabytes")] = False,
    only: Annotated[str, typer.Option(help="only paths like this, e.g. 'zeroshot/cifar10/*'")] = "*",
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON; needs --yes, or downloads nothing")] = False,
) -> None:
    """Download what can be downloaded, after saying what and under which licence; resumes where it was stopped."""
    from stages.benchmarks import fetch as downloads
    from stages.benchmarks import inventory
    from stages.benchmarks.registry import registry

    def tell(line: str) -> None:
        if not as_json:
            out.print(line)

    wanted = []
    for name in inventory.select(names):
        facts = registry()[name]
        tell(f"{facts['title']}: licence {facts['licence']}; images: {facts['pictures']}")
        known = downloads.files(name, root)
        lacking = [f for f in known if not f.is_complete and fnmatch(str(f.path.relative_to(root)), only)]
        missing = [file for file in lacking if pictures or not file.images]
        for file in missing:
            tell(f"  {file.url}{f' or {file.mirror}' if file.mirror else ''}\n    -> {file.path}")
        if not known:
            tell(f"  nothing can be fetched; get it from {facts.get('source', 'its authors')}")
        elif not missing:
            tell(f"  nothing to do{f'; {len(lacking)} more with --pictures' if lacking else ''}")
        wanted += missing
    if wanted and (yes or (not as_json and _confirmed(f"download {len(wanted)} files?"))):
        with progress.shown("data") as bar:
            for file in wanted:
                downloads.fetch(file, bar)
        tell(f"{len(wanted)} files fetched; now: degla data check --root {root} {' '.join(names)}")
    if as_json:
        print_json([{"url": file.url, "path": file.path, "is_complete": file.is_complete} for file in wanted])


def _confirmed(question: str) -> bool:
    """The answer to yes or no. Raises UserError where nobody can give one."""
    try:
        return typer.confirm(question, default=False)
    except typer.Abort:
        if sys.stdin.isatty():  # Ctrl-C
            raise
        out.print()  # ends the line of the question
        raise UserError(
            "data", f"nobody answers: {question}", "a terminal, or --yes", "the same command with --yes"
        ) from None


@app.command()
def items(
    target: Annotated[Path, typer.Argument(help="the table to write, e.g. items.parquet")],
    root: Root,
    names: Annotated[list[str] | None, typer.Option("--benchmark", help="only this one; may be repeated")] = None,
    pictures: Annotated[Path | None, typer.Option(help="folder for images that are part of a file, as PNG")] = None,
) -> None:
    """List every image and text that benchmarks ask for, to embed them elsewhere.

    Add a column `embedding` (a list of numbers) to the table: that file is a model for `degla eval --model FILE`.
    """
    from stages.benchmarks import inventory, loaders
    from stages.evaluate import embeddings

    chosen = inventory.select(names) if names else loaders.available(root)
    subsets = [subset for name in chosen for subset in loaders.read(name, root)]
    with progress.shown("data") as bar:
        found = embeddings.items(subsets, root, pictures, bar)
    tables.write(target, found, found.schema)
    images = sum(kind == "image" for kind in found["kind"].to_pylist())
    out.print(f"{images:,} images and {len(found) - images:,} texts of {', '.join(chosen)} in {target}")


@app.command()
def foils(
    source: Annotated[Path, typer.Argument(help="Karpathy's dataset_coco.json or dataset_flickr30k.json, or BLIP's")],
    target: Annotated[Path, typer.Argument(help="aro/coco_order.json or aro/flickr30k_order.json below your root")],
    seed: Annotated[int, typer.Option(help="another one gives other foils")] = 0,
    drop_no_ops: Annotated[
        bool, typer.Option("--drop-no-ops", help="leave out rows with a foil like its caption")
    ] = False,
) -> None:
    """Make ARO's word-order foils of a test split's captions, frozen to a file, with a record of what made them."""
    from stages.benchmarks.order_foils import freeze
    from stages.benchmarks.retrieval import karpathy_test

    captions = [(row.image_key, row.caption) for row in karpathy_test(source, target.parent / "images")]
    with progress.shown("data") as bar:
        record = freeze(captions, target, source=file_sha256(source), seed=seed, drop_no_ops=drop_no_ops, progress=bar)
    same = ", ".join(f"{kind} {count:,}" for kind, count in record["equal_to_the_caption"].items())
    out.print(f"{record['rows']:,} rows in {target}, {record['dropped']:,} left out; foils like their caption: {same}")
