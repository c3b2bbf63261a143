"""Coverage-guided fuzzing of everything that reads what strangers wrote: rows or one UserError, never anything else.

    pip install atheris
    python scripts/fuzz.py recipe -max_total_time=120

Targets: recipe; csv, coco, karpathy, negclip_tsv, degla_json; reply, server; sugarcrepe, valse, aro, sugarcrepe_pp,
winoground, cola. What follows the target's name goes to libFuzzer. A finding is kept as a file `crash-...` here; give
its path instead of options to see it again.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["flows.recipe", "pipeline", "stages"]):
    from flows import recipe
    from pipeline.errors import UserError
    from stages import benchmarks, checks, language_model, sources, surface

CAPTION = "A red cup stands on a small blue table."
SOURCES = {
    "csv": ("captions.txt", b"image,caption\na.png,A red cup.\n"),
    "coco": (
        "annotations/captions_train2014.json",
        b'{"images": [{"id": 1, "file_name": "a.png"}], '
        b'"annotations": [{"image_id": 1, "id": 2, "caption": "A cup."}]}',
    ),
    "karpathy": (
        "dataset_coco.json",
        b'{"images": [{"split": "train", "filepath": "x", "filename": "a.png", "sentences": [{"raw": "A cup."}]}]}',
    ),
    "negclip_tsv": (
        "train.tsv",
        b"\ttitle\tfilepath\tneg_caption\tneg_image\n0\tA cup.\ta.png\t['Cup a.']\t[0, 0, 0]\n",
    ),
    "degla_json": ("DeGLA.json", b'[{"image_id": 1, "original": "A cup.", "enhanced": ["Cup a.", "b", "c", "d"]}]'),
}
"""File and a good content of each source that is one file."""

PAIR = b'{"1": {"filename": "a.png", "caption": "A cup.", "negative_caption": "A cat."}}'
BENCHMARKS = {
    "sugarcrepe": ("swap_obj.json", PAIR),
    "valse": (
        "existence.json",
        b'{"1": {"image_file": "a.png", "caption": "A cup.", "foil": "A cat.", "linguistic_phenomena": "existence", '
        b'"mturk": {"caption": 3}}}',
    ),
    "aro": ("coco_order.json", b'[{"image_path": "a.png", "caption_options": ["a", "b", "c", "d", "e"]}]'),
    "sugarcrepe_pp": (
        "swap_obj.json",
        b'[{"id": 1, "filename": "a.png", "caption": "a", "caption2": "b", "negative_caption": "c"}]',
    ),
    "winoground": (
        "examples.jsonl",
        b'{"id": 0, "image_0": "0", "image_1": "1", "caption_0": "a", "caption_1": "b"}\n',
    ),
    "cola": ("COLA_multiobjects_matching_benchmark.json", b'[["x/0.png", "a", "x/1.png", "b"]]'),
}
"""File and a good content of benchmarks that are read from one file."""


REPLY = b'{"choices": [{"message": {"content": "A blue cup."}, "finish_reason": "stop"}], "usage": {}}'


def read_recipe(folder: Path, content: bytes) -> None:
    (folder / "mine.yaml").write_bytes(content)
    recipe.load(str(folder / "mine.yaml"))


def read_source(name: str, folder: Path, content: bytes) -> int:
    (folder / SOURCES[name][0]).parent.mkdir(exist_ok=True)
    (folder / SOURCES[name][0]).write_bytes(content)
    layout = sources.Format(captions=SOURCES[name][0], images=".")
    return len(list(sources.read(name, folder, layout, folder / "unpacked")))


def read_benchmark(name: str, folder: Path, content: bytes) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / BENCHMARKS[name][0]).write_bytes(content)
    benchmarks.read(name, folder)


def read_reply(folder: Path, content: bytes) -> None:
    """A reply is text of any kind: it is judged, never an error."""
    text = content.decode(errors="replace")
    for kind in checks.BY_TYPE:
        checks.judge(kind, CAPTION, surface.match_surface(CAPTION, text))
        checks.judge(kind, text, CAPTION)


def read_server(folder: Path, content: bytes) -> None:
    """What a server sends is any JSON: a reply, or a ValueError that fails the one ask."""
    with suppress(ValueError):
        language_model._read_completion(json.loads(content))


def main() -> None:
    name, *options = sys.argv[1:] or [""]
    readers: dict[str, Callable[[Path, bytes], None]] = {
        "recipe": read_recipe,
        "reply": read_reply,
        "server": read_server,
    }
    readers |= {key: lambda folder, content, key=key: read_source(key, folder, content) for key in SOURCES}
    readers |= {key: lambda folder, content, key=key: read_benchmark(key, folder, content) for key in BENCHMARKS}
    if name not in readers:
        sys.exit(f"fuzz: no target {name!r}; expected one of {', '.join(readers)}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def once(content: bytes) -> None:
            try:
                readers[name](folder, content)
            except UserError as error:
                assert "\n" not in str(error)

        seeds = folder / "seeds"
        seeds.mkdir()
        good = {key: content for key, (_, content) in (SOURCES | BENCHMARKS).items()}.get(name, REPLY)
        (seeds / "good").write_bytes(good)
        if name in SOURCES or name in BENCHMARKS:
            readers[name](folder, good)  # an error here is one of this script
        atheris.Setup([sys.argv[0], *options, str(seeds)], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
