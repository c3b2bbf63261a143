"""Texts to token ids, without padding.

Shapes: B texts, L tokens.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from pipeline.artifact import digest, file_sha256
from pipeline.clip.names import architecture, import_open_clip, load_error, local_folder, open_clip_name, package_folder

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Tokenize = Callable[[list[str]], list[list[int]]]


@cache
def tokenizer(model: str) -> Tokenize:
    """The model's own tokenizer without its padding: texts -> token ids with start and end, at their own length.

    Too long texts are cut at the context length and keep the end token, as open_clip cuts them. For a text tower that
    is not causal or not pooled at the end token the padding counts in the embedding, so there it stays.
    """
    text_cfg = architecture(model)["text_cfg"]
    with import_open_clip() as open_clip, open_clip_name(model) as name:
        try:
            tokenize = open_clip.get_tokenizer(name)
        except Exception as error:
            raise load_error(model, None, error, f"the tokenizer of {model!r}") from error
    context = int(text_cfg.get("context_length", 77))
    if not _cuttable(text_cfg):
        return lambda texts: tokenize(texts).tolist() if texts else []
    end: int = tokenize.eot_token_id
    encode_word = lru_cache(2**18)(tokenize.encode)

    def encode(text: str) -> list[int]:
        # Cleaning is most of the work and changes nothing in plain text, whose words then repeat.
        if not text.isascii() or not text.isprintable() or "&" in text:
            return list(tokenize.encode(text))
        words = tokenize.pat.findall(" ".join(text.lower().split()))
        return list(chain.from_iterable(encode_word(word) for word in words))

    def own_length(texts: list[str]) -> list[list[int]]:
        rows = ([tokenize.sot_token_id, *encode(text), end] for text in texts)
        return [row if len(row) <= context else [*row[: context - 1], end] for row in rows]

    return own_length


def tokenizer_digest(model: str) -> str:
    """Digest of everything that decides the token ids; does not import open_clip. Raises UserError as `load` does."""
    text_cfg = architecture(model)["text_cfg"]
    keys = ("context_length", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs", "pool_type", "no_causal_mask")
    settings = {key: text_cfg.get(key) for key in keys}
    if not text_cfg.get("hf_tokenizer_name"):
        source = file_sha256(package_folder() / "bpe_simple_vocab_16e6.txt.gz")
    elif folder := local_folder(model):
        source = digest({path.name: file_sha256(path) for path in sorted(folder.glob("*token*"))})
    else:
        source = str(text_cfg["hf_tokenizer_name"])
    return digest([settings, source])


def pad(tokens: "Sequence[Sequence[int] | Tensor]", device: "str | torch.device" = "cpu") -> "Tensor":
    """Token lists -> `tokens_BL`, int64, zero-padded to the longest list of this call (at least one list)."""
    import torch

    rows = [torch.as_tensor(row, dtype=torch.int64) for row in tokens]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)


def _cuttable(text_cfg: dict[str, Any]) -> bool:
    causal = not (text_cfg.get("no_causal_mask") or text_cfg.get("embed_cls") or text_cfg.get("hf_model_name"))
    own = not (text_cfg.get("hf_tokenizer_name") or (text_cfg.get("tokenizer_kwargs") or {}).get("reduction_mask"))
    return causal and own and text_cfg.get("pool_type", "argmax") in ("argmax", "eos")


def byte_pairs(model: str) -> tuple[dict[str, int], list[tuple[str, str]]] | None:
    """Vocabulary and merges of the model's byte-pair encoding; None where the tokenizer is of another kind."""
    with import_open_clip() as open_clip, open_clip_name(model) as name:
        tokenize: Any = open_clip.get_tokenizer(name)
    if not hasattr(tokenize, "bpe_ranks"):
        return None
    return dict(tokenize.encoder), sorted(tokenize.bpe_ranks, key=tokenize.bpe_ranks.get)
