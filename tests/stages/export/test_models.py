"""Exports of a trained model: read back by the library they are for, with the embeddings of our own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import clip, tables
from pipeline.artifact import Artifact, now
from pipeline.clip import tuning
from pipeline.errors import UserError
from pipeline.schema import SCORES
from pipeline.store import Store
from stages.export import models as model_exports
from stages.export.models import card, export_model
from stages.train import stage as train
from tests.stages.training import config, small_inputs


@pytest.fixture(scope="module", params=[True, False], ids=["quick_gelu", "gelu"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A ViT trained for two epochs, as an artifact."""
    folder = tmp_path_factory.mktemp("export")
    arch = {
        "embed_dim": 16,
        "quick_gelu": request.param,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    (folder / "start").mkdir()
    (folder / "start" / clip.CONFIG).write_text(json.dumps({"model_cfg": arch}))
    inputs = small_inputs(folder, pictures=12)
    settings = config({"model": str(folder / "start")}, epochs=2, lr=0.01)
    store = Store(folder / "home")
    with store.build("model", "m") as out:
        meta = train.run(settings, inputs, out, lambda *report: None)
        manifest = {"kind": "model", "stage": "train", "stage_version": 2, "fingerprint": "m", "outside": {}}
        manifest |= {"config": settings.model_dump(mode="json"), "inputs": {"dataset": "d"}, "started": now()}
        return store.publish(out, manifest=manifest | {"meta": meta})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["open_clip", "transformers", "onnx"])
def test_an_export_has_our_embeddings(model: Artifact, tmp_path: Path, kind: Any) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    assert export_model(model, kind, tmp_path) < 1e-5
    assert (tmp_path / "README.md").read_text().startswith("# CLIP fine-tuned")
    assert export_model(model, kind, tmp_path, alpha=0.5) < 1e-5, "over an older export"
    assert "0.5 trained (WiSE-FT)" in (tmp_path / "README.md").read_text()


def test_transformers_reads_texts_and_pictures_as_we_do(model: Artifact, tmp_path: Path) -> None:
    from PIL import Image
    from transformers import CLIPImageProcessorPil, CLIPTokenizer

    export_model(model, "transformers", tmp_path)
    ours = clip.load(str(model.path / "student"))
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    texts = ["A red cup, on a blue table!", "two dogs' bones (3 of them)", "café"]
    assert [tokenizer(text)["input_ids"] for text in texts] == ours.tokenize(texts)
    picture = Image.effect_noise((50, 40), 80).convert("RGB")
    seen = CLIPImageProcessorPil.from_pretrained(tmp_path)(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(seen, ours.preprocess(picture), atol=0.02, rtol=0)


def test_a_transformers_export_comes_back(model: Artifact, tmp_path: Path) -> None:
    export_model(model, "transformers", tmp_path)
    ours, back = clip.load(str(model.path / "student")), clip.load(str(tmp_path))
    weights = back.model.state_dict()
    assert weights.keys() == ours.model.state_dict().keys()
    for name, tensor in ours.model.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    same = ("activation", "tokenizer", "context_length")
    assert {key: back.description[key] for key in same} == {key: ours.description[key] for key in same}
    assert back.description["preprocess"] == ours.description["preprocess"]
    texts = ["a red cup", "two dogs on a bench"]
    assert torch.equal(clip.embed_texts(back, texts), clip.embed_texts(ours, texts))


def test_a_wrong_embedding_is_refused(model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = model_exports._open_clip

    def off(*given: Any) -> Any:
        embed = original(*given)
        return lambda pictures, tokens: (embed(pictures, tokens)[0] + 2e-5, embed(pictures, tokens)[1])

    monkeypatch.setattr(model_exports, "_open_clip", off)
    with pytest.raises(UserError, match=r"open_clip gives embeddings that differ by 2\.0e-05"):
        export_model(model, "open_clip", tmp_path)


def test_interpolation_goes_from_the_start_to_the_trained_weights(model: Artifact, tmp_path: Path) -> None:
    start, tuned = clip.load(**model.meta["start"]), clip.load(str(model.path / "student"))
    for alpha in (0.0, 0.25, 1.0):
        export_model(model, "open_clip", tmp_path / str(alpha), alpha=alpha)
        found = clip.load(str(tmp_path / str(alpha))).model.state_dict()
        for name, tensor in start.model.state_dict().items():
            if tensor.is_floating_point():
                expected = (1 - alpha) * tensor + alpha * tuned.model.state_dict()[name]
                torch.testing.assert_close(found[name], expected, atol=1e-6, rtol=1e-5)
    assert tuning.weight_delta(start.model, tuned.model) == pytest.approx(model.meta["weight_delta"])


def test_an_architecture_without_a_place_is_refused(model: Artifact, tmp_path: Path) -> None:
    tiny = clip.load("data/clip_tiny", seed=0)
    with pytest.raises(UserError, match="this architecture has no place in CLIPModel"):
        model_exports._transformers(tiny, tmp_path, "data/clip_tiny")


def test_a_refused_export_leaves_nothing(model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "mixture", lambda *_: clip.load("data/clip_tiny", seed=0))
    with pytest.raises(UserError, match="no place in CLIPModel"):
        export_model(model, "transformers", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="export: cannot write into .*file"):
        export_model(model, "open_clip", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_card_tells_loss_and_distance(model: Artifact) -> None:
    page = card(model, None)
    assert "Loss: base 1, distill 0.005, igc 0.1, tgc 0.1." in page
    assert f"text {model.meta['weight_delta']['text']:.2e}" in page
    assert "## Scores" not in page


def test_the_card_claims_no_more_than_the_report(model: Artifact, tmp_path: Path) -> None:
    def around(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.02, "high": value + 0.02}

    change = around(0.4) | {"p": 0.001, "detectable": 0.03}
    both = {"before": around(0.5), "after": around(0.9), "difference": change, "chance": 0.5}
    one = both | {"n": 9, "of": 9, "blind": {"rule": around(0.88)}}
    store = Store(tmp_path)
    with store.build("scores", "s") as out:
        tables.write(tables.part(out, 0), [], SCORES)
        manifest = {"kind": "scores", "stage": "evaluate", "stage_version": 4, "fingerprint": "s", "outside": {}}
        manifest |= {"config": {}, "inputs": {}, "started": now(), "meta": {"aggregates": {"composition": one}}}
        page = card(model, store.publish(out, manifest=manifest))
    assert "| composition | 88.0 | 50.0 | 90.0 | blind | 9 of 9 |" in page
    assert "- composition: +40.0 points" in page and "does not show understanding of pictures" in page
