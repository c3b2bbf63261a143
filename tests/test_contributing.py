"""The five recipes of CONTRIBUTING.md: each is done as the page says, in a copy of the code, and run there."""

import ast
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.paths import ROOT

CODE = ("degla", "pipeline", "stages", "flows", "data", "pyproject.toml")
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
RUN_TIME = ("A benchmark", "A source format", "A language-model backend", "A loss term")

PREAMBLE = """
import json, socket, sys
from pathlib import Path

def refused(*_):
    raise AssertionError("no network")

socket.socket.connect = refused
sys.modules["prefect"] = None
import pipeline
assert Path(pipeline.__file__).is_relative_to(sys.argv[1]), pipeline.__file__
world = Path(sys.argv[2])

def opened(*overrides, name="tiny"):
    from stages.road import Run
    return Run.open(name, list(overrides), recipe=str(world / "tiny.yaml"), home=Path("home").resolve())

def rows(run, query):
    return [list(row) for row in run.sql(query).fetchall()]

def told(**found):
    from stages import road
    print(json.dumps({"schema": road.schema(), **found}))
"""


class Block(NamedTuple):
    """A block of the page: what a file holds, or, with a table, the import and the line that it gains."""

    path: str
    table: str
    text: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if line]


def section(heading: str) -> str:
    found = re.search(rf"^### {heading}\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


def blocks(heading: str) -> list[Block]:
    found = []
    for block in re.findall(r"^   ```\w+\n(.*?)^   ```", section(heading), re.DOTALL | re.MULTILINE):
        first, _, text = textwrap.dedent(block).partition("\n")
        path, _, table = first.removeprefix("# ").partition(": ")
        found.append(Block(path, table, text))
    return found


def write(tree: Path, block: Block) -> None:
    """Do what a block says."""
    path = tree / block.path
    if block.table == "NegativeType":
        (line,) = [line for line in path.read_text().splitlines() if line.startswith("NegativeType = ")]
        path.write_text(path.read_text().replace(line, _with_member(line, block)))
    elif block.table:
        imports, entry = _split(block)
        lines = path.read_text().splitlines(keepends=True)
        start = next(place for place, line in enumerate(lines) if re.match(rf"{block.table}: .*= {{$", line))
        end = next(place for place in range(start, len(lines)) if lines[place].startswith("}"))
        lines.insert(end, f"    {entry}\n")
        first = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom))
        lines[first.lineno - 1 : first.lineno - 1] = [f"{line}\n" for line in imports]
        path.write_text("".join(lines))
    elif path.exists():
        path.write_text(path.read_text() + block.text)
    else:
        path.write_text(block.text)


def _split(block: Block) -> tuple[list[str], str]:
    """The imports a table's line needs, and the line."""
    *imports, entry = block.lines
    assert all(line.startswith(("from ", "import ")) for line in imports), block
    return imports, entry


def _with_member(line: str, block: Block) -> str:
    said = re.fullmatch(r'NegativeType = Literal\[\.\.\., ("\w+")\]\n', block.text)
    assert said, block
    return line.removesuffix("]") + f", {said[1]}]"


def texts(root: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in CODE:
        below = (root / name).rglob("*") if (root / name).is_dir() else [root / name]
        files = (path for path in below if path.is_file() and "__pycache__" not in path.parts)
        found |= {str(path.relative_to(root)): path.read_bytes() for path in files}
    return found


def changes(tree: Path) -> dict[str, list[str]]:
    """Every file of the copy that is not as in the checkout -> its lines that went (-) and came (+), blank ones not."""
    before, after = texts(ROOT), texts(tree)
    found = {}
    for name in before.keys() | after.keys():
        one, other = before.get(name, b""), after.get(name, b"")
        if one != other:
            lines = difflib.ndiff(one.decode().splitlines(), other.decode().splitlines())
            found[name] = [line for line in lines if line[0] in "+-" and line[2:].strip()]
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in CODE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    assert not changes(copy)
    return copy


@pytest.fixture
def world(tmp_path: Path, tiny_recipe: Path) -> Path:
    """The twelve pictures, a tiny recipe over them, their captions as lines, and as a benchmark."""
    root = tmp_path / "world"
    shutil.copytree(tiny_recipe.parent, root)
    settings = yaml.safe_load(tiny_recipe.read_text())
    settings["ingest"]["root"] = str(root)
    (root / "tiny.yaml").write_text(yaml.safe_dump(settings))
    rows = [line.split(",") for line in (root / "captions.csv").read_text().splitlines()[1:]]
    (root / "captions.tsv").write_text("".join(f"{image}\t{caption}\n" for image, caption in rows) + "a bad line\n")
    toy = root / "root" / "toy"
    shutil.copytree(root / "images", toy / "images")
    items = [{"file": image, "caption": text, "foil": text.replace("house", "horse")} for image, text in rows]
    (toy / "toy.json").write_text(json.dumps(items))
    return root


def run(tree: Path, world: Path, script: str, *folders: Path) -> dict[str, Any]:
    """What a script tells that is run on this code, without Prefect and network."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("DEGLA", "PREFECT"))}
    path = os.pathsep.join(map(str, (tree, *folders)))
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), str(tree), str(world)],
        cwd=world,
        env=keep | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"printed": done.stdout, "schema": json.loads(found["schema"])}


def follow(tree: Path, heading: str) -> dict[str, list[str]]:
    """Do all blocks of a recipe; what may then differ from the checkout."""
    expected: dict[str, list[str]] = {}
    for block in blocks(heading):
        write(tree, block)
        expected[block.path] = [f"+ {line}" for line in block.lines if line.strip()]
        if block.table and block.table != "NegativeType":
            imports, entry = _split(block)
            expected[block.path] = [f"+ {line}" for line in (*imports, f"    {entry}")]
    return expected


def enum(schema: dict[str, Any], verb: str, field: str) -> list[str]:
    """The names the schema allows for a setting."""
    definition = schema["$defs"][schema["properties"][verb]["$ref"].rpartition("/")[2]]["properties"][field]
    names: list[str] = definition.get("items", definition)["enum"]
    return names


def test_a_benchmark(tree: Path, world: Path) -> None:
    expected = follow(tree, "A benchmark")
    found = run(
        tree,
        world,
        """
        from functools import partial
        from flows.cli.main import app
        from pipeline import clip
        from stages.evaluate import Config
        from stages.evaluate.measure import measure
        load = partial(clip.load, "data/clip_tiny", None, seed=0)
        scored = [
            measure({"model": load}, Config(root=world / "root", official=official)).aggregates
            for official in (False, True)
        ]
        assert scored[0] == scored[1]
        app(["data", "list", "toy", "--root", str(world / "root")], standalone_mode=False)
        told(scores=scored[0])
        """,
    )
    score = found["scores"]["toy.all"]
    assert (score["n"], score["of"], score["chance"]) == (24, 24, 0.5) and 0 <= score["model"]["value"] <= 1
    assert "whether a caption beats a foil" in found["printed"] and "24" in found["printed"]
    assert changes(tree) == expected


def test_a_source_format(tree: Path, world: Path) -> None:
    expected = follow(tree, "A source format")
    found = run(
        tree,
        world,
        """
        road = opened("ingest.source=lines", "ingest.format.captions=captions.tsv")
        road.make("ingest")
        told(
            pairs=rows(road, "select count(*), min(source) from pairs"),
            rejected=rows(road, "select origin, reason, detail from pairs_rejected"),
        )
        """,
    )
    assert found["pairs"] == [[24, "lines"]]
    assert found["rejected"] == [["captions.tsv:25", "row_shape", "no tab"]]
    assert enum(found["schema"], "ingest", "source")[-1] == "lines"
    assert changes(tree) == expected


def test_a_language_model_backend(tree: Path, world: Path) -> None:
    expected = follow(tree, "A language-model backend")
    found = run(
        tree,
        world,
        """
        road = opened("generate.backend=echo")
        for stage in ("ingest", "generate"):
            road.make(stage)
        said = "select distinct model, status, reason, raw_reply = caption from negatives join pairs using (pair_id)"
        told(said=rows(road, said), count=rows(road, "select attempt, count(*) from negatives group by 1 order by 1"))
        """,
    )
    assert found["said"] == [["echo", "rejected", "identical", True]] and found["count"] == [[0, 24 * 5], [1, 24 * 5]]
    assert enum(found["schema"], "generate", "backend")[-1] == "echo"
    assert changes(tree) == expected


def test_a_loss_term(tree: Path, world: Path) -> None:
    expected = follow(tree, "A loss term")
    found = run(
        tree,
        world,
        """
        road = opened("train.objective.margin=1", "train.batch=8")
        for stage in ("ingest", "generate", "assemble", "train"):
            road.make(stage)
        told(steps=rows(road, "select margin_loss, isfinite(margin_loss), isfinite(loss) from steps"))
        """,
    )
    assert len(found["steps"]) == 2
    assert all(value > 0 and finite == [True, True] for value, *finite in found["steps"])
    assert "margin" in found["schema"]["$defs"]["Loss"]["properties"]
    assert changes(tree) == expected


SIX = ("reshuffle_order", "swap_nouns", "swap_adjectives", "replace_nouns", "replace_adjectives", "swap_numbers")


def counted(world: Path) -> None:
    """Captions with two numbers, and replies that let them change places."""
    replies = []
    lines = ["image,caption"]
    for image in sorted(path.name for path in (world / "images").iterdir()):
        colour, _, shape = image.removesuffix(".png").partition("-")
        caption = f"Two {colour} dogs near a {shape} chase three black cats."
        lines.append(f"{image},{caption}")
        said = dict.fromkeys(SIX, "not applicable")
        said["swap_nouns"] = f"Two {colour} cats near a {shape} chase three black dogs."
        said["swap_numbers"] = f"Three {colour} dogs near a {shape} chase two black cats."
        replies += [json.dumps({"type": kind, "caption": caption, "reply": text}) for kind, text in said.items()]
    (world / "captions.csv").write_text("\n".join(lines) + "\n")
    (world / "replies.jsonl").write_text("\n".join(replies) + "\n")


def raised(tree: Path, verbs: Iterable[str]) -> dict[str, list[str]]:
    """Raise the versions of stages by one."""
    expected = {}
    for verb in verbs:
        path = tree / "stages" / verb / "stage.py"
        (old,) = [line for line in path.read_text().splitlines() if "version=" in line]
        new = re.sub(r"version=(\d+)", lambda found: f"version={int(found[1]) + 1}", old)
        path.write_text(path.read_text().replace(old, new))
        expected[f"stages/{verb}/stage.py"] = [f"- {old}", f"+ {new}"]
    return expected


def test_a_negative_type(tree: Path, world: Path) -> None:
    (old,) = [
        line for line in (tree / "pipeline/negative_types.py").read_text().splitlines() if line[:14] == "NegativeType ="
    ]
    expected = follow(tree, "A negative type")
    assert re.search(r"raise\s+the versions of `generate` and `assemble`", section("A negative type"))
    expected |= raised(tree, ("generate", "assemble"))
    listed, prompt, *_ = blocks("A negative type")
    expected["pipeline/negative_types.py"] = [f"- {old}", f"+ {_with_member(old, listed)}"]
    write(tree, prompt._replace(path=prompt.path.replace("english", "scenes")))
    expected[prompt.path.replace("english", "scenes")] = expected[prompt.path]
    counted(world)
    found = run(
        tree,
        world,
        """
        from flows import plan
        from flows.plan import Row
        from stages.export import datasets
        from stages.generate.likely_types import likely_types
        from stages.generate.prompts import render_prompt
        from stages.road import load
        road = opened("generate.backend=replay", f"generate.model={world / 'replies.jsonl'}")
        for stage in road.stages:
            road.make(stage)
        scenes = ("ingest.source=scenes", "ingest.world.pictures=12", "ingest.world.benchmark_rows=5")
        drawn = opened(*scenes, name="drawn")
        for stage in ("ingest", "generate", "assemble"):
            drawn.make(stage)
        left = Row(name="x", title="x", group="types", without="swap_numbers")
        (cell,) = plan.cells(plan.load("ablation", ["degla"], [1]).model_copy(update={"rows": (left,)}), "x")
        images = road["pairs"].path / road["pairs"].meta["image_root"]
        datasets.export(road["dataset"], images, "negclip_tsv", world / "negclip_tsv")
        told(
            dataset=rows(road, "select caption, swap_numbers, len(swap_numbers_tokens) from dataset"),
            negatives=rows(road, "select type, status, count(*) from negatives group by all order by all"),
            drawn=rows(drawn, "select count(swap_nouns) > 5, count(swap_numbers) from dataset"),
            train=road.recipe.train.types,
            kept=cell.recipe.train.types,
            heldout=rows(road, "select distinct subset::varchar from scores where benchmark = 'heldout' order by all"),
            prompt=render_prompt(
                load("paper", ["generate.examples_per_prompt=2"]).generate, "swap_numbers", "One cup on two plates."
            ),
            prompts=render_prompt(
                load("demo", ["generate.backend=vllm", "generate.examples_per_prompt=2"]).generate, "swap_numbers", "x"
            ),
            likely=likely_types("A cat.", "A dog."),
            page=road.report.read_text(),
            card=(road["dataset"].path / "card.html").read_text(),
            export=(world / "negclip_tsv").read_text(),
            rules=load("demo", ["generate.backend=rules"]).generate.types,
        )
        """,
    )
    assert len(found["dataset"]) == 12
    for caption, text, tokens in found["dataset"]:
        assert text == caption.replace("Two", "Three").replace("three", "two") and tokens > 8
    counts = {(kind, status): count for kind, status, count in found["negatives"]}
    assert counts["swap_numbers", "accepted"] == counts["swap_nouns", "accepted"] == 12
    assert {kind for kind, _ in counts} == set(SIX) and found["drawn"] == [[True, 0]]
    for types in (found["train"], found["rules"]):
        assert tuple(types) == SIX
    assert enum(found["schema"], "generate", "types") == [*SIX, "negation", "units"]
    assert tuple(found["kept"]) == SIX[:-1] and found["likely"][-1] == "swap_numbers"
    assert ["swap_numbers"] in found["heldout"]
    assert "One cup on two plates." in found["prompt"] and "change places" in found["prompts"]
    assert "swap numbers" in found["page"] and "swap_<wbr>numbers" in found["page"]
    assert "swap_numbers" in found["card"].replace(" ", "_") and "Three red dogs" in found["export"]
    assert changes(tree) == expected


def test_the_blocks_are_as_ruff_wants_them(tree: Path) -> None:
    """But for where an import and a longer line end up, which it settles itself."""
    for heading in (*RUN_TIME, "A negative type"):
        follow(tree, heading)
    new = [block.path for heading in RUN_TIME for block in blocks(heading) if block.path.endswith(".py")]
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["format", "."], ["check", "--fix", "."], ["format", "."]):
        done = subprocess.run([*ruff, *command, "--no-cache"], cwd=tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    said = {block.path: block.text for heading in RUN_TIME for block in blocks(heading) if not block.table}
    assert all((tree / path).read_text() == said[path] for path in new if path in said)


def test_four_tables_are_extended_by_a_script_of_one_s_own(world: Path, tmp_path: Path) -> None:
    """The same files beside a script, the same lines said at run time, and the code as it is."""
    mine, script = tmp_path / "mine", []
    mine.mkdir()
    for heading in RUN_TIME:
        for block in blocks(heading):
            if block.table:
                name, _, value = (" ".join(_split(block)[1].split())).rstrip(",").partition(": ")
                module = block.path.removesuffix(".py").replace("/", ".")
                script += [f"from {module} import *", *(_local(line) for line in block.lines[:-1])]
                script.append(f"{block.table}[{name}] = {value.replace('stages.train.margin', 'margin')}")
            elif block.path.endswith(".py"):
                (mine / Path(block.path).name).write_text(block.text)
    text = """
        road = opened(
            "ingest.source=lines", "ingest.format.captions=captions.tsv", "train.objective.margin=1", "train.batch=8",
            f"evaluate.root={world / 'root'}", "evaluate.blind=false",
        )
        for stage in road.stages:
            road.make(stage)
        echoed = opened("generate.backend=echo", name="echoed")
        for stage in ("ingest", "generate"):
            echoed.make(stage)
        told(
            steps=rows(road, "select isfinite(margin_loss) from steps"),
            scores=road["scores"].meta["aggregates"],
            said=rows(echoed, "select distinct model, reason from negatives"),
            page=road.report.read_text(),
        )
        """
    found = run(ROOT, world, "\n".join(script) + textwrap.dedent(text), mine)
    assert found["steps"] == [[True], [True]] and found["scores"]["toy.all"]["n"] == 24
    assert found["said"] == [["echo", "identical"]] and "<h3>toy</h3>" in found["page"]


def _local(line: str) -> str:
    """An import of the page, for a module that lies beside the script."""
    return re.sub(r"from stages\.\w+(?:\.(\w+))? import", lambda m: f"from {m[1]} import" if m[1] else "import", line)
