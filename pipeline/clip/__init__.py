"""CLIP models: the only package that knows open_clip."""

from pipeline.clip.encode import (
    PICTURES,
    Clip,
    crop,
    device,
    embed_images,
    embed_texts,
    encode_image,
    encode_text,
    normalise,
    read_picture,
    upright,
)
from pipeline.clip.models import (
    imagenet_prompts,
    load,
    load_with_open_clip,
    model_digest,
    save,
    save_weights,
    with_activation,
)
from pipeline.clip.names import CARD, CONFIG, WEIGHTS, hub_answers, is_random, tag_uses_quick_gelu, trained_with
from pipeline.clip.tokens import byte_pairs, pad, tokenizer, tokenizer_digest

__all__ = [
    "CARD",
    "CONFIG",
    "PICTURES",
    "WEIGHTS",
    "Clip",
    "byte_pairs",
    "crop",
    "device",
    "embed_images",
    "embed_texts",
    "encode_image",
    "encode_text",
    "hub_answers",
    "imagenet_prompts",
    "is_random",
    "load",
    "load_with_open_clip",
    "model_digest",
    "normalise",
    "pad",
    "read_picture",
    "save",
    "save_weights",
    "tag_uses_quick_gelu",
    "tokenizer",
    "tokenizer_digest",
    "trained_with",
    "upright",
    "with_activation",
]
