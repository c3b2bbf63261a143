"""NegBench's CSV files: multiple choice and retrieval."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.benchmarks import loaders as benchmarks
from stages.benchmarks.means import Aggregate
from stages.benchmarks.negbench import means
from tests.stages.benchmarks.files import assert_refused, jpeg, save

MCQ = "negbench/images/COCO_val_mcq_llama3.1_rephrased.csv"
HEAD = "image_path,correct_answer,caption_0,caption_1,caption_2,caption_3,correct_answer_template\n"
ROW = "data/coco/images/val2017/000000397133.jpg,2,no cup,a dog,a cup but no dog,a cup and a dog,hybrid\n"
PLAIN = 'positive_objects,filepath,image_id,captions\n[\'cup\'],/x/val2017/7.jpg,7,"[\'A cup.\', ""A dog\'s cup.""]"\n'
NEGATED = PLAIN.replace("A cup.", "A cup, no dog.")


def write_negbench(root: Path) -> None:
    for name in ("000000397133", "7"):
        jpeg(root / f"negbench/val2017/{name}.jpg")
    jpeg(root / "negbench/VOCdevkit/VOC2007/JPEGImages/000001.jpg")
    save(root / MCQ, HEAD + ROW)
    voc = ROW.replace("data/coco/images/val2017/000000397133", "VOC2007/000001").replace("hybrid", "negative")
    save(root / "negbench/images/VOC2007_mcq_llama3.1_rephrased.csv", HEAD + voc)
    save(root / "negbench/images/COCO_val_retrieval.csv", PLAIN)
    save(root / "negbench/images/COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true.csv", NEGATED)


def test_the_right_caption_is_put_first_and_images_are_found_by_name(tmp_path: Path) -> None:
    write_negbench(tmp_path)
    found = {one.name: one for one in benchmarks.load("negbench", tmp_path, official=False)}
    assert list(found) == ["coco_mcq", "voc2007_mcq", "coco.i2t", "coco.t2i", "coco_negated.i2t", "coco_negated.t2i"]
    (row,) = found["coco_mcq"].rows
    assert row.texts == ("a cup but no dog", "no cup", "a dog", "a cup and a dog") and row.group == "hybrid"
    assert all(image.path.is_file() for one in found.values() for image in one.images)
    assert found["voc2007_mcq"].rows[0].image_key == "voc:000001.jpg", "which is no number of Visual Genome's"
    assert [row.texts for row in found["coco_negated.t2i"].rows] == [("A cup, no dog.",), ("A dog's cup.",)]
    assert found["coco.i2t"].rows[0].right == (0, 1)
    with pytest.raises(UserError, match="negbench/coco_mcq has valid 1; expected 5914"):
        benchmarks.load("negbench", tmp_path, official=True)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (MCQ, HEAD + ROW.replace(",2,", ",4,"), "row 0 has correct_answer = '4'"),
        (MCQ, HEAD + ROW.replace("a dog", "", 1), "row 0 has caption_1"),
        ("negbench/COCO_val_retrieval.csv", "filepath,captions\n7.jpg,A cup.\n", "row 0 has captions = 'A cup.'"),
        ("negbench/COCO_val_retrieval.csv", "filepath,captions\n7.jpg,[]\n", "a list of texts"),
        ("negbench/COCO_val_retrieval.csv", "filepath,captions\n7.jpg,__import__('os')\n", "a list of texts"),
    ],
)
def test_broken_files_are_one_line_that_says_where(tmp_path: Path, file: str, content: str, message: str) -> None:
    assert_refused(tmp_path, file, content, message)


def test_accuracy_by_type_and_recall_at_five() -> None:
    present = {("negbench", "coco_mcq"): {"negative", "positive"}, ("negbench", "coco.t2i"): set[str]()}
    made = {one.name: one for one in means("negbench", ["coco_mcq", "coco.t2i"], present)}
    assert set(made) == {
        "negbench.coco_mcq", "negbench.coco_mcq.negative", "negbench.coco_mcq.positive",
        "negbench.coco.t2i_r5", "negbench.coco.t2i_r1",
    }  # fmt: skip
    assert isinstance(made["negbench.coco.t2i_r5"], Aggregate) and made["negbench.coco.t2i_r5"].measure == "at5"
    assert made["negbench.coco_mcq.negative"].selectors == [("negbench", "coco_mcq", "negative")]
