"""Models: tokens, cut texts, loading by name and folder, round trips, refusals."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline import clip
from pipeline.errors import UserError

TINY = "data/clip_tiny"
PADDED = open_clip.get_tokenizer("ViT-B-32")
TEXTS = ["a red cube", "the striped green ball is left of a large blue box", "", "x " * 200, "naïve café & co — 42"]


@pytest.fixture(scope="module")
def tiny() -> clip.Clip:
    return clip.load(TINY, seed=3)


@pytest.fixture(scope="module")
def arch() -> dict:
    """A transformer-only architecture with the given activation, small enough for a test."""
    return {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }


def folder_with(tmp_path: Path, arch: dict, **extra: object) -> str:
    tmp_path.mkdir(parents=True, exist_ok=True)
    (tmp_path / clip.CONFIG).write_text(json.dumps({"model_cfg": {**arch, **extra}}))
    return str(tmp_path)


def rows_of_open_clip(texts: list[str]) -> list[list[int]]:
    padded = PADDED(texts)
    return [row[: int(row.argmax()) + 1].tolist() for row in padded]


PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80)
AWKWARD = st.lists(
    st.sampled_from(
        ["'s", "''s", "don't", "!'s", "...", "<start_of_text>", "<", "a1b2", "  ", "&amp;", "\t", "``", "Red-"]
    )
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(PLAIN, AWKWARD, st.text(max_size=120)), min_size=1, max_size=4))
def test_tokens_are_open_clips_without_the_padding(texts: list[str]) -> None:
    assert clip.tokenizer("ViT-B-32")(texts) == rows_of_open_clip(texts)


def test_too_long_texts_keep_the_end_token() -> None:
    (row,) = clip.tokenizer(TINY)(["x " * 200])
    assert len(row) == 77 and row[-1] == 49407


def test_cut_texts_embed_as_full_ones_do(tiny: clip.Clip) -> None:
    tokens = tiny.tokenize(TEXTS)
    full = tiny.model.encode_text(PADDED(TEXTS), normalize=True)
    torch.testing.assert_close(clip.encode_text(tiny.model, clip.pad(tokens)), full, atol=1e-6, rtol=0)
    for index, row in enumerate(tokens):
        torch.testing.assert_close(clip.encode_text(tiny.model, clip.pad([row]))[0], full[index], atol=1e-6, rtol=0)


@pytest.mark.parametrize("extra", [{"custom_text": True}, {"custom_text": True, "bias": True}, {"no_causal": True}])
def test_other_text_towers_embed_as_open_clip_does(tmp_path: Path, arch: dict, extra: dict) -> None:
    text_cfg = dict(arch["text_cfg"])
    if extra.pop("bias", False):
        text_cfg["proj_bias"] = True
    if extra.pop("no_causal", False):
        text_cfg |= {"no_causal_mask": True, "pool_type": "last"}
        extra["custom_text"] = True
    other = clip.load(folder_with(tmp_path, {**arch, "text_cfg": text_cfg}, **extra))
    full = other.model.encode_text(PADDED(TEXTS), normalize=True)
    found = clip.embed_texts(other, TEXTS, batch=2)
    torch.testing.assert_close(found, full.detach(), atol=1e-6, rtol=0)


def test_embeddings_come_in_the_order_given(tiny: clip.Clip, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (70, 90, 3), dtype=np.uint8)) for _ in range(3)]
    for index, picture in enumerate(pictures):
        picture.save(tmp_path / f"{index}.png")
    seen: list[tuple[str, int, int]] = []
    found = clip.embed_images(
        tiny, [tmp_path / f"{index}.png" for index in range(3)], batch=2, progress=lambda *args: seen.append(args)
    )
    for index, picture in enumerate(pictures):
        alone = clip.embed_images(tiny, [lambda picture=picture: picture])
        torch.testing.assert_close(found[index], alone[0], atol=1e-6, rtol=0)
    assert seen == [("images", 2, 3), ("images", 3, 3)]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    texts = clip.embed_texts(tiny, TEXTS, batch=2)
    for index, text in enumerate(TEXTS):
        torch.testing.assert_close(texts[index], clip.embed_texts(tiny, [text])[0], atol=1e-6, rtol=0)


def test_a_missing_picture_is_named(tiny: clip.Clip, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*absent\.jpg"):
        clip.embed_images(tiny, [tmp_path / "absent.jpg"])


def test_a_jpeg_is_turned_upright_and_may_be_decoded_small(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (800, 400), "red").save(tmp_path / "turned.jpg", exif=exif)
    assert clip.read_picture(tmp_path / "turned.jpg").size == (400, 800)
    assert clip.read_picture(tmp_path / "turned.jpg", size=64).size == (100, 200)


def test_the_seed_alone_decides_random_weights(tiny: clip.Clip) -> None:
    before = torch.random.get_rng_state()
    same, other = clip.load(TINY, seed=3), clip.load(TINY, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, tensor in tiny.model.state_dict().items():
        assert torch.equal(tensor, same.model.state_dict()[name])
    assert not torch.equal(tiny.model.token_embedding.weight, other.model.token_embedding.weight)


def test_random_weights_are_known_as_such(tiny: clip.Clip, tmp_path: Path) -> None:
    clip.save(tiny, tmp_path)
    assert clip.is_random("ViT-B-32", None) and clip.is_random("data/clip_tiny", None)
    assert not clip.is_random(str(tmp_path), None) and not clip.is_random("data/starting_clip", None)
    assert not clip.is_random("ViT-B-32", "openai") and not clip.is_random("hf-hub:owner/name", None)
    assert not clip.is_random("ViT-B-32", str(tmp_path / clip.WEIGHTS))


def test_a_saved_folder_gives_the_same_bits_and_needs_open_clip_alone(tiny: clip.Clip, tmp_path: Path) -> None:
    clip.save(tiny, tmp_path)
    again = clip.load(str(tmp_path), seed=99)
    for name, tensor in tiny.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])
    assert again.description == tiny.description
    alone, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    picture = Image.effect_noise((80, 70), 60).convert("RGB")
    torch.testing.assert_close(preprocess(picture), tiny.preprocess(picture))
    with torch.no_grad():
        expected = clip.encode_image(tiny.model, tiny.preprocess(picture)[None])
        torch.testing.assert_close(alone.eval().encode_image(preprocess(picture)[None], normalize=True), expected)


def test_the_activation_is_kept_and_checked(tmp_path: Path, arch: dict) -> None:
    quick = clip.load(folder_with(tmp_path / "arch", arch, quick_gelu=True))
    plain = clip.load(folder_with(tmp_path / "plain", arch))
    assert (quick.description["activation"], plain.description["activation"]) == ("quick_gelu", "gelu")
    clip.save(quick, tmp_path / "saved")
    assert clip.load(str(tmp_path / "saved")).description["activation"] == "quick_gelu"

    with pytest.raises(UserError, match="trained with activation 'quick_gelu' and would be used with 'gelu'"):
        clip.load(str(tmp_path / "plain"), str(tmp_path / "saved" / clip.WEIGHTS))
    config = json.loads((tmp_path / "saved" / clip.CONFIG).read_text())
    config["model_cfg"]["quick_gelu"] = False
    (tmp_path / "saved" / clip.CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match="activation"):
        clip.load(str(tmp_path / "saved"))


def test_a_file_that_does_not_say_its_activation_must_be_asked_for_one(tmp_path: Path) -> None:
    """OpenAI's and NegCLIP's files under ViT-B-32 are the trap: they would silently compute GELU."""
    bare = tmp_path / "negclip.pt"
    torch.save({"logit_scale": torch.zeros(())}, bare)
    assert clip.trained_with("ViT-B-32", str(bare)) is None
    assert clip.trained_with("ViT-B-32-quickgelu", str(bare)) == "quick_gelu"
    assert clip.trained_with("ViT-B-32", "openai") == "quick_gelu"
    assert clip.trained_with("ViT-B-32", "laion2b_e16") == clip.trained_with("ViT-B-32") == "gelu"
    with pytest.raises(UserError, match="does not say whether it was trained with GELU or QuickGELU"):
        clip.load("ViT-B-32", str(bare))
    for model, weights, wrong in (("ViT-B-32", "openai", "gelu"), ("ViT-B-32-quickgelu", str(bare), "gelu")):
        with pytest.raises(UserError, match="trained with activation 'quick_gelu' and would be used with 'gelu'"):
            clip.load(model, weights, activation=wrong)


def test_the_other_activation_changes_embeddings_and_back_again_nothing(tmp_path: Path, arch: dict) -> None:
    quick = clip.load(folder_with(tmp_path / "quick", arch, quick_gelu=True), seed=1)
    gelu = clip.with_activation(quick, "gelu")
    texts = ["a red cup", "two dogs"]
    assert gelu.description["activation"] == "gelu" and quick.description["activation"] == "quick_gelu"
    assert not torch.equal(clip.embed_texts(quick, texts), clip.embed_texts(gelu, texts))
    back = clip.with_activation(gelu, "quick_gelu")
    assert torch.equal(clip.embed_texts(quick, texts), clip.embed_texts(back, texts))
    plain = clip.load(folder_with(tmp_path / "plain", arch), seed=1)
    assert torch.equal(clip.embed_texts(plain, texts), clip.embed_texts(gelu, texts)), "as if built with GELU"


def test_other_preprocessing_is_refused(tiny: clip.Clip, tmp_path: Path) -> None:
    clip.save(tiny, tmp_path)
    config = json.loads((tmp_path / clip.CONFIG).read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (tmp_path / clip.CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match="preprocess"):
        clip.load(str(tmp_path))


def test_half_precision_weights_load_as_fp32(tiny: clip.Clip, tmp_path: Path) -> None:
    clip.save(tiny, tmp_path)
    weights = load_file(tmp_path / clip.WEIGHTS)
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(half, tmp_path / clip.WEIGHTS)
    loaded = clip.load(str(tmp_path)).model.state_dict()
    for name, tensor in loaded.items():
        assert tensor.dtype == weights[name].dtype and torch.equal(tensor, half[name].to(tensor.dtype)), name


def test_digests_follow_the_content(tiny: clip.Clip, tmp_path: Path) -> None:
    clip.save(tiny, tmp_path / "a")
    clip.save(clip.load(TINY, seed=4), tmp_path / "b")
    clip.save(tiny, tmp_path / "c")
    first, second, third = (clip.model_digest(str(tmp_path / name)) for name in "abc")
    assert first == third != second
    config = json.loads((tmp_path / "c" / clip.CONFIG).read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (tmp_path / "c" / clip.CONFIG).write_text(json.dumps(config))
    assert clip.model_digest(str(tmp_path / "c")) != first, "other pixels are another model"
    assert clip.model_digest("ViT-B-32", "openai") != clip.model_digest("ViT-B-32", "laion2b_e16")
    assert clip.tokenizer_digest(TINY) == clip.tokenizer_digest("ViT-B-32")
    assert clip.tokenizer_digest("ViT-B-16-SigLIP") != clip.tokenizer_digest("ViT-B-32")


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-Z-99", None, "there is no model 'ViT-Z-99'"),
        ("no/such/folder", None, "there is no model"),
        (TINY, "folder", "holds no weights"),
        (TINY, "openai", "pretrained is 'openai'"),
        ("ViT-B-32", "absent.safetensors", "which is no file"),
    ],
)
def test_what_is_not_there_is_refused_by_name(model: str, pretrained: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        clip.load(model, pretrained)
    with pytest.raises(UserError, match=message):
        clip.model_digest(model, pretrained)


def test_an_unknown_tag_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no weights 'nonsense'; expected one of: openai"):
        clip.load("ViT-B-32", "nonsense")
    with pytest.raises(UserError, match="computes QuickGELU"):
        clip.tag_uses_quick_gelu("ViT-B-32", {"quick_gelu": True}, "laion2b_e16")
    assert clip.tag_uses_quick_gelu("ViT-B-32", {}, "openai")


def test_broken_weights_are_refused(tmp_path: Path, arch: dict) -> None:
    model = folder_with(tmp_path, arch)
    (tmp_path / clip.WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot load"):
        clip.load(model)
    (tmp_path / clip.CONFIG).write_text("{")
    with pytest.raises(UserError, match="holds no model"):
        clip.load(model)


def test_without_a_network_the_hub_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*args: object, **kwargs: object) -> socket.socket:
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    clip.hub_answers.cache_clear()
    started = time.monotonic()
    with pytest.raises(UserError, match="cannot be reached from here"):
        clip.load("ViT-B-32", "openai")
    assert time.monotonic() - started < 5
    clip.hub_answers.cache_clear()


def test_a_model_folder_runs_no_code_of_its_own(tmp_path: Path) -> None:
    config = json.loads(Path("data/clip_tiny/open_clip_config.json").read_text())
    told = {"hf_tokenizer_name": "some/where", "tokenizer_kwargs": {"trust_remote_code": True}}
    config["model_cfg"]["text_cfg"] |= told
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(UserError, match="asks for trust_remote_code"):
        clip.tokenizer(str(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("how", [True, False])
def test_weights_run_no_code(tmp_path: Path, how: bool) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"a": Evil()}, tmp_path / "w.pt", _use_new_zipfile_serialization=how)
    with pytest.raises(UserError, match="cannot load"):
        clip.load("data/clip_tiny", str(tmp_path / "w.pt"))
    assert not (tmp_path / "ran").exists()


def test_gradients_of_texts_are_the_same_bits_with_several_threads(tiny: clip.Clip) -> None:
    texts = [
        f"the {colour} {thing} number {n}"
        for colour in ("red", "blue")
        for thing in ("cube", "ball")
        for n in range(99)
    ]
    tokens_NL = clip.pad(tiny.tokenize(texts), "cpu")
    parameter, threads, found = tiny.model.positional_embedding, torch.get_num_threads(), set()
    torch.set_num_threads(4)
    try:
        for _ in range(20):
            (gradient,) = torch.autograd.grad(clip.encode_text(tiny.model, tokens_NL).pow(3).sum(), parameter)
            found.add(gradient.numpy().tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
