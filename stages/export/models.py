"""A trained model for other libraries: open_clip, Hugging Face transformers, ONNX; each checked by its embeddings.

Every export can be interpolated with the start (WiSE-FT) and gets a model card. It is read back by the library it is
for, and rejected when an embedding differs from ours by 1e-5 or more.

Shapes: B images or texts, C channels, H and W pixels, L tokens.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline import clip, tables
from pipeline.artifact import Artifact
from pipeline.clip import Clip, hugging_face, tuning
from pipeline.errors import UserError, need_package
from stages import verdicts
from stages.pages import markdown, percent

ModelFormat = Literal["open_clip", "transformers", "onnx"]
TOLERANCE = 1e-5
"""Largest difference of an embedding's element, fp32, that an export may have."""
PROBES = (
    "a red cup on a blue table",
    "two dogs play in the snow behind a wooden fence",
    "a",
    "the quick brown fox jumps over the lazy dog in the quiet park, again and again",
)

Embed = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""image_BCHW and tokens_BL, padded to the context length -> their embeddings, L2 norm 1."""


def export_model(
    model: Artifact, kind: ModelFormat, target: Path, alpha: float = 1.0, scores: Artifact | None = None
) -> float:
    """Write a trained model into a folder.

    Args:
        model: the model artifact.
        kind: open_clip (loads with open_clip alone), transformers (`CLIPModel.from_pretrained`), onnx (two files).
        target: folder, made if it is not there.
        alpha: (1 - alpha) * start + alpha * trained.
        scores: what the card says of it; only of alpha 1, because that is what was scored.

    Returns:
        The largest difference of an embedding, read back by that library.

    Raises:
        UserError: the folder cannot be written, the library is missing or cannot hold this architecture, or the
            difference is `TOLERANCE` or more.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("export", f"cannot write into {target}: {error.strerror}", "a folder", "name another") from None
    tuned = tuning.mixture(model, alpha)
    write = {"open_clip": _open_clip, "transformers": _transformers, "onnx": _onnx}[kind]
    try:
        embed = write(tuned, target, str(model.path / "student"))
    except UserError:
        with suppress(OSError):
            target.rmdir()  # as long as nothing is in it
        raise
    images, tokens = _probes(tuned)
    with torch.inference_mode():
        ours = clip.encode_image(tuned.model, images), clip.encode_text(tuned.model, tokens)
        theirs = embed(images, tokens)
    difference = max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True))
    if not difference < TOLERANCE:
        raise UserError(
            "export",
            f"{kind} gives embeddings that differ by {difference:.1e}",
            f"less than {TOLERANCE:g}",
            "report it, with the model's architecture",
        )
    tables.write_text(target / "README.md", card(model, scores if alpha == 1 else None, alpha))
    return difference


def _probes(model: Clip) -> tuple[Tensor, Tensor]:
    """Noise images and texts of several lengths, as the model reads them."""
    size: Any = model.description["preprocess"]["size"]
    height, width = size if isinstance(size, list) else (size, size)
    images = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    tokens = clip.pad(model.tokenize(list(PROBES)))
    full = torch.zeros(len(PROBES), model.description["context_length"], dtype=torch.int64)
    full[:, : tokens.shape[1]] = tokens
    return images, full


# -- formats -----------------------------------------------------------------------------------------------------------


def _open_clip(model: Clip, target: Path, name: str) -> Embed:
    clip.save(model, target)
    network: Any = clip.load_with_open_clip(target)
    return lambda images, tokens: (
        network.encode_image(images, normalize=True),
        network.encode_text(tokens, normalize=True),
    )


def _transformers(model: Clip, target: Path, name: str) -> Embed:
    need_package("export", "transformers", "transformers")
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    arch, weights = model.description["arch"], model.model.state_dict()
    image = arch["vision_cfg"]
    if (
        "visual.conv1.weight" not in weights
        or not isinstance(image.get("layers"), int)
        or "token_embedding.weight" not in weights
    ):
        raise UserError(
            "export",
            "this architecture has no place in CLIPModel",
            "ViT and text towers of CLIP's own kind",
            "use onnx",
        )
    activation, context = model.description["activation"], model.description["context_length"]
    config = CLIPConfig(**hugging_face.to_config(arch, activation, context))
    network = CLIPModel(config).eval()
    missing, unexpected = network.load_state_dict(hugging_face.to_names(weights), strict=False)
    if unexpected or any(not name.endswith("position_ids") for name in missing):
        raise UserError(
            "export", f"weights without a place: {[*unexpected, *missing][:3]}", "CLIP's own layers", "use onnx"
        )
    network.save_pretrained(target)
    settings = model.description["preprocess"]
    CLIPImageProcessorPil(
        size={"shortest_edge": image["image_size"]},
        crop_size=image["image_size"],
        image_mean=list(settings["mean"]),
        image_std=list(settings["std"]),
        resample={"bilinear": 2, "bicubic": 3}[settings["interpolation"]],
    ).save_pretrained(target)
    if pairs := clip.byte_pairs(name):
        vocabulary, merges = pairs
        tables.write_text(target / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
        lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
        tables.write_text(target / "merges.txt", "\n".join(lines) + "\n")
        start, end = "<start_of_text>", "<end_of_text>"
        reader = {"tokenizer_class": "CLIPTokenizer", "model_max_length": context}
        ends = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
        tables.write_text(target / "tokenizer_config.json", json.dumps(reader | ends))
    back = CLIPModel.from_pretrained(target).eval()

    def embed(images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        found = back(pixel_values=images, input_ids=tokens)
        return nn.functional.normalize(found.image_embeds, dim=-1), nn.functional.normalize(found.text_embeds, dim=-1)

    return embed


def _onnx(model: Clip, target: Path, name: str) -> Embed:
    need_package("export", "onnxruntime", "onnx")
    need_package("export", "onnxscript", "onnx")
    images, tokens = _probes(model)
    towers = {
        "image": (_Tower(model.model, "encode_image").eval(), images),
        "text": (_Tower(model.model, "encode_text").eval(), tokens),
    }
    for tower, (module, example) in towers.items():
        batch = torch.export.Dim("batch", min=1, max=4096)
        program = torch.onnx.export(
            module, (example,), dynamo=True, input_names=["input"], output_names=["unit_embedding"], verbose=False,
            dynamic_shapes=({0: batch},), external_data=False,
        )  # fmt: skip
        assert program is not None
        program.save(str(target / f"{tower}.onnx"))
    import onnxruntime

    def run(tower: str, given: Tensor) -> Tensor:
        session = onnxruntime.InferenceSession(str(target / f"{tower}.onnx"), providers=["CPUExecutionProvider"])
        # One row at a time as well: the batch must be free.
        pieces = [
            session.run(None, {"input": given[:1].numpy()})[0],
            session.run(None, {"input": given[1:].numpy()})[0],
        ]
        return torch.cat([torch.from_numpy(piece) for piece in pieces])

    return lambda images, tokens: (run("image", images), run("text", tokens))


class _Tower(nn.Module):
    """One tower as a module whose output has L2 norm 1."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, given: Tensor) -> Tensor:
        embedding: Tensor = getattr(self.model, self.method)(given)
        return nn.functional.normalize(embedding, dim=-1)


# -- the card ----------------------------------------------------------------------------------------------------------


def card(model: Artifact, scores: Artifact | None, alpha: float = 1.0) -> str:
    """The model card, Markdown: where it comes from, how it was trained, how far it moved, how it scores, leaks."""
    meta, config = model.meta, model.manifest.config
    start, objective = meta["start"], config["objective"]
    what = "Trained weights"
    if alpha != 1:
        what = f"Interpolated: {1 - alpha:g} of the start, {alpha:g} trained (WiSE-FT)"
    columns = tables.read(model.table_folder("steps")).column_names
    terms = [name.removesuffix("_loss") for name in columns if name.endswith("_loss")]
    weights = {name: objective[name] for name in terms if objective[name]}
    lines = [
        f"# CLIP fine-tuned for composition from {markdown(start['model'])}",
        "",
        f"Start: {markdown(start['model'])}, weights {markdown(start['pretrained'] or 'of the folder, or random')}, "
        f"seed {start['seed']}. {meta['steps']:,} steps of {config['batch']} pairs, {meta['pairs']:,} different pairs; "
        f"step {meta['kept_step']:,} is kept.",
        "",
        "Images and captions are embedded as by any CLIP; activation, preprocessing and tokenizer stand in `degla.json`"
        " of the open_clip folder. Not for deciding about people.",
        "",
        "## Weights",
        "",
        f"{what}. Distance of the trained weights from the start, |change| / |start|: "
        + ", ".join(f"{part} {value:.2e}" for part, value in sorted(meta["weight_delta"].items()))
        + ".",
        "",
        "## Training",
        "",
        f"Loss: {', '.join(f'{name} {value:g}' for name, value in weights.items())}. "
        f"K = {config['negatives_per_caption']} of {', '.join(config['types']) or 'no types'}. AdamW, peak rate "
        f"{config['lr']:g}, {config['epochs']} epochs, {config['precision']}. "
        f"Repeats to: {meta['determinism']['level']}.",
        "",
        "The recipe, every version and digest: `manifest.json` of the model artifact "
        f"`{model.manifest.fingerprint}`; the data: `card.md` of the dataset `{model.manifest.inputs['dataset']}`.",
    ]
    if scores is not None:
        aggregates, random_start = scores.meta["aggregates"], scores.meta.get("random_start", False)
        shown = verdicts.sentences(aggregates, random_start=random_start)
        lines += ["", "## Scores", "", *(f"- {line}" for line in shown)]
        lines += [
            "",
            "Per cent right. Blind: the best of the judges that read only the texts. Shows: what the change shows, "
            "`up` only above every judge without pictures.",
            "",
            "| score | blind | before | after | shows | n |",
            "|---|---:|---:|---:|---|---:|",
        ]
        for name, one in aggregates.items():
            before, after = (percent(one[side]["value"]) for side in ("before", "after"))
            best = verdicts.best_blind(one)
            cells = (
                markdown(name),
                percent(best["value"]) if best else "",
                before,
                after,
                verdicts.verdict(name, one, random_start=random_start).word,
                f"{one['n']:,} of {one['of']:,}",
            )
            lines.append(f"| {' | '.join(cells)} |")
        leaked = _leaked(scores)
        lines += [
            "",
            f"Leaks: {leaked:,} scored rows share an image or a caption with the training pairs; "
            "the scores table marks them.",
        ]
    return "\n".join(lines) + "\n"


def _leaked(scores: Artifact) -> int:
    with tables.connect({"scores": scores.table_folder("scores")}) as sql:
        found = sql.execute("select count(*) from scores where model = 'after' and leaked").fetchone()
    return int(found[0]) if found else 0
