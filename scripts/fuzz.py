"""Coverage-guided fuzzing of everything that reads what strangers wrote: rows or one UserError, never anything else.

    pip install -c constraints.txt -e '.[fuzz]'
    python scripts/fuzz.py recipe -max_total_time=120      # or: make fuzz, every target in turn

What follows the target's name goes to libFuzzer; `--list` prints the names. A finding is kept as a file
`crash-...` here; give its path instead of options to see it again.
"""

import io
import json
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import atheris

with atheris.instrument_imports(include=["flows.plan", "pipeline", "stages", "yaml", "tarfile", "zipfile"]):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from flows import plan
    from pipeline import artifact, clip
    from pipeline.errors import UserError
    from stages import images as pictures
    from stages import road
    from stages.benchmarks import fetch
    from stages.benchmarks import loaders as benchmarks
    from stages.generate import checks, prompts, surface
    from stages.ingest import sources
    from stages.ingest.records import Format
    from stages.language_models.replay import Replay
    from stages.language_models.server import read_completion

CAPTION = "A red cup stands on a small blue table."


class Target(NamedTuple):
    """A file that strangers write: its name in a folder, a good content, and what reads the folder."""

    file: str
    good: bytes
    read: Callable[[Path], object]


def source(name: str, file: str, good: bytes, **layout: object) -> Target:
    """Records of a source, all of them texts that can be written."""

    def read(folder: Path) -> None:
        chosen = sources.find(name, folder, Format(captions=file, images=".", **layout))  # type: ignore[arg-type]
        for record in sources.read(chosen, folder / "unpacked"):
            "".join([record.origin, record.image_key, *record.negatives]).encode()
            assert isinstance(record.image, str) and isinstance(record.caption, str)

    return Target(file, good, read)


def benchmark(name: str, file: str, good: bytes) -> Target:
    """Rows of a benchmark, all pictures below its folder."""

    def read(folder: Path) -> None:
        for subset in benchmarks.read(name, folder):
            for picture in subset.images:
                assert picture.path.resolve().is_relative_to((folder / name).resolve()), picture

    return Target(f"{name}/{file}", good, read)


def read_reply(folder: Path) -> None:
    """A response is text of any kind: it is checked, never an error."""
    text = (folder / "reply").read_bytes().decode(errors="replace")
    for kind in checks.BY_TYPE:
        checks.validate(kind, CAPTION, surface.match_surface(CAPTION, text))
        checks.validate(kind, text, CAPTION)


def read_server(folder: Path) -> None:
    """What a server sends is any JSON: a response that can be kept, or a ValueError that fails the one request."""
    with suppress(ValueError, RecursionError):
        response = read_completion(json.loads((folder / "answer").read_bytes()))
        f"{response.text}{response.finish_reason}".encode()
        pa.array([response.prompt_tokens, response.reply_tokens], pa.int32())


def read_archive(folder: Path) -> None:
    """What an archive holds lands below its folder."""
    inside = folder / "root" / "images"
    with suppress(FileNotFoundError):
        (folder / "root" / "outside").unlink()
    inside.mkdir(parents=True, exist_ok=True)
    file = fetch.File(inside, "https://example.org/archive", into=inside)
    (folder / "archive").replace(file.download)
    fetch.fetch(file)
    assert {path.name for path in (folder / "root").iterdir()} == {"images"}


def read_picture(folder: Path) -> None:
    """A picture is examined, never an error; what can be used is read."""
    if pictures.examine(folder, "picture.png", max_pixels=1 << 20).reason is None:
        clip.read_picture(folder / "picture.png")


def parquet(**columns: object) -> bytes:
    """A Parquet file of some columns."""
    pq.write_table(pa.table(columns), stream := io.BytesIO())
    return stream.getvalue()


def tar(**files: bytes) -> bytes:
    """A tar archive; "a_jpg" stands for a.jpg."""
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as packing:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(content)
            packing.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped() -> bytes:
    """A zip archive of one file."""
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as packing:
        packing.writestr("a/b.txt", "text")
    return stream.getvalue()


def picture() -> bytes:
    """A small PNG."""
    Image.new("RGB", (8, 8), "red").save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


def ce_clip() -> bytes:
    """A .npy file of one annotation."""
    row = {"image_id": np.int64(9), "caption": "A cat.", "relation_aug_caption": "Cat a."}
    row |= {"adj_aug_caption": "###", "noun_aug_caption": "A dog.", "verb_aug_caption": "A."}
    np.save(stream := io.BytesIO(), np.array([row], dtype=object), allow_pickle=True)
    return stream.getvalue()


def manifest() -> bytes:
    """A manifest of no file."""
    told = dict.fromkeys(("kind", "stage", "fingerprint", "started", "finished"), "x") | {
        "format": 1,
        "stage_version": 1,
    }
    told |= {name: {} for name in ("config", "inputs", "outside", "meta", "rows", "packages", "git", "hardware")}
    return json.dumps(told | {"files": {"a.txt": "0"}}).encode()


PAIR = b'{"1": {"filename": "a.png", "caption": "A cup.", "negative_caption": "A cat."}}'
COCO = b'{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "id": 2, "caption": "A cup."}]}'
KARPATHY = b'{"images": [{"split": "test", "filepath": "x", "filename": "a.png", "sentences": [{"raw": "A cup."}]}]}'
BOXED = (
    b'[{"image_path": "a.png", "bbox_x": 1, "bbox_y": 2, "bbox_w": 3, "bbox_h": 4, "true_caption": "a", '
    b'"false_caption": "b", "attributes": ["red", "blue"]}]'
)
TARGETS = {
    "recipe": Target(
        "mine.yaml",
        b"description: x\ntrain:\n  lr: 1.0e-6\n  epochs: 2\ngenerate: {engine: {a: [1, b, ~, 2001-01-01]}}\n",
        lambda folder: road.load(str(folder / "mine.yaml")),
    ),
    "override": Target(
        "override",
        b"train.objective.igc=0.5",
        lambda folder: road.load("demo", [(folder / "override").read_bytes().decode(errors="replace")]),
    ),
    "plan": Target(
        "plan.yaml",
        b"description: x\nbase: demo\nseeds: [1]\nrows:\n  - {name: a, title: A, group: rivals, set: [train.lr=1]}\n",
        lambda folder: plan.load(str(folder / "plan.yaml")),
    ),
    "prompts": Target(
        "swap_nouns.yaml",
        b"type: swap_nouns\nrule: |\n  Swap.\nexamples:\n  - {caption: a, negative: b}\n",
        lambda folder: prompts.load(str(folder), ["swap_nouns"], 1),
    ),
    "manifest": Target("manifest.json", manifest(), artifact.verified),
    "reply": Target("reply", b"A blue cup stands on a small red table.", read_reply),
    "server": Target(
        "answer",
        b'{"choices": [{"message": {"content": "A blue cup."}, "finish_reason": "stop"}], '
        b'"usage": {"prompt_tokens": 1}}',
        read_server,
    ),
    "replay": Target(
        "replies.jsonl",
        b'{"type": "swap_nouns", "caption": "a", "reply": "b", "prompt_tokens": 1}\n',
        lambda folder: Replay(folder / "replies.jsonl").close(),
    ),
    "picture": Target("picture.png", picture(), read_picture),
    "archive": Target("archive", zipped(), read_archive),
    "csv": source("csv", "captions.txt", b"image,caption\na.png,A red cup.\n"),
    "coco": source("coco", "annotations.json", COCO),
    "karpathy": source("karpathy", "dataset_coco.json", KARPATHY),
    "negclip_tsv": source(
        "negclip_tsv", "train.tsv", b"\ttitle\tfilepath\tneg_caption\tneg_image\n0\tA cup.\ta.png\t['Cup a.']\t[0]\n"
    ),
    "degla_json": source(
        "degla_json", "DeGLA.json", b'[{"image_id": 1, "original": "A cup.", "enhanced": ["Cup a.", "b"]}]'
    ),
    "webdataset": source(
        "webdataset", "0.tar", tar(a_jpg=b"\xff\xd8\xff", a_txt=b"A cup.", a_json=b'{"negatives": []}')
    ),
    "parquet": source("parquet", "0.parquet", parquet(image=[b"\xff\xd8\xff"], caption=["A cup."])),
    "ce_clip": source("ce_clip", "a.npy", ce_clip(), allow_pickle=True),
    "sugarcrepe": benchmark("sugarcrepe", "swap_obj.json", PAIR),
    "valse": benchmark(
        "valse",
        "existence.json",
        b'{"1": {"image_file": "a.png", "caption": "A cup.", "foil": "A cat.", "linguistic_phenomena": "existence", '
        b'"mturk": {"caption": 3}}}',
    ),
    "aro": benchmark(
        "aro", "coco_order.json", b'[{"image_path": "a.png", "caption_options": ["a", "b", "c", "d", "e"]}]'
    ),
    "aro_boxes": benchmark("aro", "visual_genome_attribution.json", BOXED),
    "sugarcrepe_pp": benchmark(
        "sugarcrepe_pp",
        "swap_obj.json",
        b'[{"id": 1, "filename": "a.png", "caption": "a", "caption2": "b", "negative_caption": "c"}]',
    ),
    "winoground": benchmark(
        "winoground",
        "examples.jsonl",
        b'{"id": 0, "image_0": "0", "image_1": "1", "caption_0": "a", "caption_1": "b"}\n',
    ),
    "cola": benchmark("cola", "COLA_multiobjects_matching_benchmark.json", b'[["x/0.png", "a", "x/1.png", "b"]]'),
    "bivlc": benchmark(
        "bivlc",
        "test.csv",
        b"image,caption,negative_caption,negative_image,type,subtype\na.png,a,b,c.png,replace,obj\n",
    ),
    "bivlc_parquet": benchmark(
        "bivlc",
        "test.parquet",
        parquet(
            image=[{"bytes": b"x", "path": "a.png"}],
            caption=["a"],
            negative_caption=["b"],
            negative_image=[{"bytes": b"y", "path": "b.png"}],
            type=["replace"],
            subtype=["obj"],
        ),
    ),
    "mmvp": benchmark("mmvp", "Questions.csv", b"id,type,statement\n1,Texts,the word hot\n2,Texts,the word cold\n"),
    "vl_checklist": benchmark("vl_checklist", "data/Object/vg_obj.json", b'[["a.png", {"POS": ["a"], "NEG": ["b"]}]]'),
    "retrieval": benchmark("coco_retrieval", "dataset_coco.json", KARPATHY),
    "zeroshot": benchmark("zeroshot", "mine/classes.json", b'{"classnames": ["cat"], "templates": ["a {}"]}'),
}


def main() -> None:
    name, *options = sys.argv[1:] or [""]
    if name == "--list":
        print(*TARGETS)
        return
    if name not in TARGETS:
        sys.exit(f"fuzz: no target {name!r}; expected one of {' '.join(TARGETS)}")
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder, seeds = Path(scratch) / "read", Path(scratch) / "seeds"
        (folder / target.file).parent.mkdir(parents=True)
        seeds.mkdir()
        (seeds / "good").write_bytes(target.good)

        def once(content: bytes) -> None:
            (folder / target.file).write_bytes(content)
            try:
                target.read(folder)
            except UserError as error:
                assert str(error).isprintable()

        if name == "zeroshot":
            (folder / "zeroshot/mine/images/cat").mkdir(parents=True)
        (folder / target.file).write_bytes(target.good)
        target.read(folder)  # an error here is one of this script
        atheris.Setup([sys.argv[0], *options, str(seeds)], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
