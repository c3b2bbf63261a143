"""NegBench: four captions of what an image shows and does not show, and retrieval by captions with negations."""

from collections.abc import Iterator
from pathlib import Path

from stages.benchmarks import fields
from stages.benchmarks.means import Aggregate, Present, mean
from stages.benchmarks.records import right_first
from stages.benchmarks.retrieval import Captioned, both_directions
from stages.benchmarks.rows import Row, Subset

CHOICES = {"coco_mcq": "COCO_val_mcq_llama3.1_rephrased.csv", "voc2007_mcq": "VOC2007_mcq_llama3.1_rephrased.csv"}
RETRIEVAL = {
    "coco": "COCO_val_retrieval.csv",
    "coco_negated": "COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true.csv",
}


def read(folder: Path) -> Iterator[Subset]:
    """The authors' CSV files, below images/ of their data folder or here; images by the last part of the path.

    Multiple choice: image_path, caption_0 to caption_3, correct_answer, correct_answer_template (positive, negative,
    hybrid). Retrieval: filepath, captions (a list). Images are COCO's in val2017/ and VOC's test images of 2007.
    """
    base = folder / "images" if (folder / "images").is_dir() else folder
    coco, voc = folder / "val2017", folder / "VOCdevkit/VOC2007/JPEGImages"
    for name, file in CHOICES.items():
        if (path := base / file).is_file():
            source = "coco" if name.startswith("coco") else "voc"
            rows = tuple(_choices(path, source, coco if source == "coco" else voc))
            yield Subset("negbench", name, "choice", "wrong", fields.digest(path), rows)
    for name, file in RETRIEVAL.items():
        if (path := base / file).is_file():
            queries = list(_captions(path, coco))
            yield from both_directions("negbench", fields.digest(path), queries, queries, f"{name}.")


def _choices(path: Path, source: str, images: Path) -> Iterator[Row]:
    for row_id, item in fields.table(path):
        name = fields.text(path, row_id, item, "image_path").rpartition("/")[2]
        _, image = fields.below(path, row_id, "image_path", name, images)
        options = fields.texts(path, row_id, item, *(f"caption_{k}" for k in range(4)))
        right = fields.text(path, row_id, item, "correct_answer")
        texts = right_first(path, row_id, "correct_answer", options, right)
        kind = fields.text(path, row_id, item, "correct_answer_template")
        yield Row(row_id, f"{source}:{name}", image, tuple(texts), group=kind)


def _captions(path: Path, images: Path) -> Iterator[Captioned]:
    for row_id, item in fields.table(path):
        name = fields.text(path, row_id, item, "filepath").rpartition("/")[2]
        _, image = fields.below(path, row_id, "filepath", name, images)
        for order, caption in enumerate(fields.listed(path, row_id, item, "captions")):
            yield Captioned(f"{row_id}.{order}", f"coco:{name}", image, caption)


def means(benchmark: str, names: list[str], present: Present) -> list[Aggregate]:
    """Of each choice: accuracy, and by type of the right caption; of each retrieval recall at 5 and at 1.

    What negations cost is the difference of `coco` and `coco_negated`, whose captions are of the same images.
    """
    made = []
    for name in names:
        rows = [[(benchmark, name, None)]]
        if name in CHOICES:
            made.append(mean(f"{benchmark}.{name}", "accuracy", rows, chance=0.25, subset=name))
            for kind in sorted(present[benchmark, name]):
                says = f"accuracy where the right caption is {kind}"
                made.append(mean(f"{benchmark}.{name}.{kind}", says, [[(benchmark, name, kind)]], chance=0.25))
        else:
            says = "R@{}: a right one among the first {}"
            made.append(mean(f"{benchmark}.{name}_r5", says.format(5, 5), rows, measure="at5"))
            made.append(mean(f"{benchmark}.{name}_r1", says.format(1, 1), rows, subset=name))
    return made
