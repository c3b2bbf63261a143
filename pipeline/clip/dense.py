"""Images with their patches and texts with their tokens, in the space of the embeddings.

A patch is what its last state gives where the class token's gives the image's embedding. A ResNet has no class token: a
place of its last map is what the pool would give that looked at that place alone (MaskCLIP, arXiv 2112.01071).

Shapes: B images, C, H, W pixels, P patches, N texts, L tokens, D embedding width.
"""

from typing import Any

import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from pipeline.clip import prefix_tree
from pipeline.clip.encode import pooling_of, project, tree, unit
from pipeline.clip.text_tree import Tree


def encode_image(model: nn.Module, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """`image_BD`, each row of L2 norm 1, and `patch_BPD`, of any length; of models that `names.has_patches` knows."""
    tower: Any = model.visual
    image_BCHW = image_BCHW.to(memory_format=torch.channels_last)
    if hasattr(tower, "attnpool"):
        found = tower.forward_intermediates(image_BCHW, indices=1)
        pool, map_BCHW = tower.attnpool, found["image_intermediates"][0]
        places = map_BCHW.flatten(2).mT + pool.positional_embedding[1:].to(map_BCHW.dtype)
        return unit(found["image_features"]), pool.c_proj(pool.v_proj(places))
    settings: dict[str, Any] = {"normalize_intermediates": True, "output_extra_tokens": True, "output_fmt": "NLC"}
    found = tower.forward_intermediates(image_BCHW, indices=1, intermediates_only=True, **settings)
    first_B1D, patch_BPD = (
        found[name][0] @ tower.proj for name in ("image_intermediates_prefix", "image_intermediates")
    )
    return unit(first_B1D[:, 0]), patch_BPD


def encode_text(model: nn.Module, tokens_NL: Tensor, grown: Tree | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """`text_ND` as `encode.encode_text` has it, `token_NLD` of any length, and bool `said_NL`.

    The latter says which tokens are the text's own: those behind the start, up to and with the end.
    """
    tower: Any = getattr(model, "text", model)
    length, pooled = tokens_NL.shape[1], pooling_of(tower)
    dtype = tower.transformer.get_cast_dtype()
    grown = tree(tokens_NL, pooled) if grown is None else grown
    if prefix_tree.fits(tower.transformer):
        placed_SW = tower.positional_embedding.index_select(0, grown.place_S)  # [] adds gradients up in any order
        x_SW = tower.token_embedding(grown.token_S).to(dtype) + placed_SW.to(dtype)
        x_SW = prefix_tree.run_all(tower.transformer, x_SW, grown)
        x_NLW = x_SW.index_select(0, grown.state_NL.flatten()).view(*tokens_NL.shape, -1)
    else:
        x_NLW = tower.token_embedding(tokens_NL).to(dtype) + tower.positional_embedding[:length].to(dtype)
        x_NLW = tower.transformer(x_NLW, attn_mask=tower.attn_mask[:length, :length])
    token_NLD = project(tower, tower.ln_final(x_NLW))
    text_ND = text_global_pool(token_NLD, tokens_NL, pooled.kind, eos_token_id=pooled.end_id)
    place_L = torch.arange(length, device=tokens_NL.device)
    return unit(text_ND), token_NLD, (place_L > 0) & (place_L <= grown.end_N[:, None])
