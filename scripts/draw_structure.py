"""Draws degla's packages and what they import, as the Mermaid graph in docs/architecture.md.

    python scripts/draw_structure.py             # print it
    python scripts/draw_structure.py --write     # put it into the page
    python scripts/draw_structure.py --check     # exit status 1 when the page shows another

The graph is read from the code by grimp (import-linter's own reader): imports inside functions and under TYPE_CHECKING
count like any others. A box is a package, or a module that stands beside packages. Arrows that others imply are left
out: A -> B -> C stands for A -> C as well; boxes in a circle keep all of theirs. Which packages are verbs is read from
import-linter's contracts.
"""

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

import grimp

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- structure: written by `python scripts/draw_structure.py --write` -->"
END = "<!-- end of structure -->"

Arrows = dict[str, set[str]]
"""Box -> the boxes it imports."""


def settings() -> dict[str, Any]:
    """Import-linter's section of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return found


def boxes(modules: set[str], roots: list[str]) -> list[str]:
    """Each root, each package directly below one, and each module that stands beside such packages in `stages`."""
    packages = {module.rpartition(".")[0] for module in modules}
    below = [module for module in modules if module.count(".") == 1 and module.partition(".")[0] in roots]
    return sorted({*roots, *(one for one in below if one in packages or one.startswith("stages."))} - {"stages"})


def box_of(module: str, among: list[str]) -> str | None:
    """The smallest box that holds a module; None for `stages` itself, which is no box."""
    return max((box for box in among if f"{module}.".startswith(f"{box}.")), key=len, default=None)


def arrows(graph: grimp.ImportGraph, among: list[str]) -> Arrows:
    """What each box imports from others."""
    found: Arrows = {box: set() for box in among}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = box_of(module, among), box_of(imported, among)
            if pair[0] and pair[1] and pair[0] != pair[1]:
                found[pair[0]].add(pair[1])
    return found


def reachable(start: str, of: Arrows) -> set[str]:
    """Boxes that arrows lead to."""
    seen: set[str] = set()
    waiting = list(of[start])
    while waiting:
        box = waiting.pop()
        if box not in seen:
            seen.add(box)
            waiting += of[box]
    return seen


def reduced(of: Arrows) -> Arrows:
    """Without the arrows that others imply; of boxes that import each other in a circle, every arrow stays."""
    beyond = {box: reachable(box, of) | {box} for box in of}

    def implied(start: str, to: str) -> bool:
        ways = (via for via in of[start] if start not in beyond[via] and via not in beyond[to])
        return any(to in beyond[via] for via in ways)

    return {box: {to for to in next_ if not implied(box, to)} for box, next_ in of.items()}


def mermaid(of: Arrows, roots: list[str], verbs: list[str]) -> str:
    """The graph as Mermaid draws it, boxes grouped by layer, in an order that depends on names alone."""
    lines = ["```mermaid", "flowchart TD"]
    groups = {f"{root}/": [box for box in of if box.partition(".")[0] == root and box not in verbs] for root in roots}
    groups["stages/: shared"] = groups.pop("stages/", [])
    groups["stages/: verbs"] = [box for box in verbs if box in of]
    for number, (title, inside) in enumerate(sorted(groups.items())):
        lines += [f'  subgraph group{number} ["{title}"]', *(f'    {_id(box)}["{box}"]' for box in inside), "  end"]
    lines += [f"  {_id(box)} --> {_id(to)}" for box in sorted(of) for to in sorted(of[box])]
    return "\n".join([*lines, "```"])


def _id(box: str) -> str:
    return box.replace(".", "_")


def drawing() -> str:
    """The graph of this checkout."""
    linter = settings()
    roots: list[str] = linter["root_packages"]
    graph = grimp.build_graph(*roots, cache_dir=None)
    layers = next(one["layers"] for one in linter["contracts"] if one.get("containers") == ["stages"])
    verbs = [f"stages.{verb}" for verb in next(layer for layer in layers if " | " in layer).split(" | ")]
    return mermaid(reduced(arrows(graph, boxes(graph.modules, roots))), roots, verbs)


def placed(page: str, graph: str) -> str:
    """The page with the graph between its markers. Raises ValueError when one is missing."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{graph}\n{END}{after}"


def main() -> int:
    """Print, write or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the graph into docs/architecture.md")
    parser.add_argument("--check", action="store_true", help="exit status 1 when docs/architecture.md shows another")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    graph, page = drawing(), PAGE.read_text(encoding="utf-8")
    wanted = placed(page, graph)
    if arguments.write:
        PAGE.write_text(wanted, encoding="utf-8")
    elif not arguments.check:
        print(graph)
    elif page != wanted:
        print(
            "structure: docs/architecture.md shows another graph; expected that of the code; "
            "fix: python scripts/draw_structure.py --write",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
