"""One linear map behind a CLIP's text embeddings, put in to be learned and folded into the text projection afterwards.

Embeddings are normalised behind it, so a map of the embeddings is a map of what the projection gives.

Shapes: W width of the text tower, D embedding width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.clip.tuning import logit_parameters
from pipeline.errors import UserError


class _Mapped(nn.Linear):
    """A text projection and the map behind it, at first the identity. open_clip takes a Linear for a projection."""

    def __init__(self, projection_WD: Tensor) -> None:
        width, embedding = projection_WD.shape
        place: dict[str, Any] = {"device": projection_WD.device, "dtype": projection_WD.dtype}
        super().__init__(width, embedding, bias=False, **place)
        self.weight = nn.Parameter(projection_WD.detach().T.clone(), requires_grad=False)
        self.map = nn.Linear(embedding, embedding, bias=False, **place)
        nn.init.eye_(self.map.weight)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.map(super().forward(x))
        return found


def add(model: nn.Module) -> None:
    """Freeze the model and let a map of its text embeddings learn, in place; logit scale and bias still do.

    Raises UserError when the text tower has no projection, or one with a bias.
    """
    tower: Any = getattr(model, "text", model)
    projection_WD = getattr(tower, "text_projection", None)
    if not isinstance(projection_WD, nn.Parameter):
        raise UserError(
            "train",
            "this model's text tower has no plain projection",
            "one of open_clip's own, a matrix, that a map of the texts can be folded into",
            "--set train.text_map=false, or another train.model",
        )
    model.requires_grad_(False)
    del tower.text_projection  # torch puts no module in a parameter's place, nor the other way round
    tower.text_projection = _Mapped(projection_WD)
    for parameter in logit_parameters(model):
        parameter.requires_grad_(True)


def fold(model: nn.Module) -> None:
    """Put what the map learned into a plain text projection, in place."""
    tower: Any = getattr(model, "text", model)
    mapped = tower.text_projection
    del tower.text_projection
    with torch.no_grad():
        tower.text_projection = nn.Parameter((mapped.map.weight @ mapped.weight).T.contiguous())
