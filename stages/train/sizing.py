"""How much memory a training step would take, by shapes alone: no weights, no images, nothing computed.

The model is torch's meta device's, in which tensors have shapes and no values, and what its encoders would keep for the
backward pass is counted by the same hooks as in `memory.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)

from pipeline import clip, tables
from pipeline.artifact import Artifact
from pipeline.clip import tuning
from stages.train.batches import Batch
from stages.train.config import Config
from stages.train.loop import let_learn
from stages.train.memory import SAMPLE, Needed, halved, needed
from stages.train.objective import Objective
from stages.train.units import UNITS

TOKENS = 20
"""Of a text, where the dataset is not there to tell."""


def pairs_at_once(config: Config) -> int:
    """Pairs that a process encodes at once."""
    return -(-config.batch // config.processes // config.accumulate)


def size(config: Config, dataset: Artifact | None) -> Needed | None:
    """Bytes that a step takes on each device; of a dataset the lengths of its first texts count.

    None for a model whose code depends on values, and where images are joined. Raises UserError for a model that is not
    known, or cannot be trained so.
    """
    if config.needs_joined:
        return None
    student = clip.outline(config.model)
    pooled = clip.pooling(student)
    let_learn(student, config)
    objective = Objective(config.objective, student, config.precision)
    tuning.speed_up(student, checkpoint_gradients=config.checkpoint_gradients, compiled=False)
    sample = some_pairs(config, dataset, student)
    mode = FakeTensorMode()

    def shape(tensor: Tensor) -> FakeTensor:
        return FakeTensor(mode, tensor.detach().to("meta"), torch.device("cpu"))

    for module in student.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module.register_parameter(name, nn.Parameter(shape(parameter), requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, shape(buffer))
    samples = [piece.located(pooled).map(shape) for piece in halved(sample)]
    try:
        with mode:
            return needed(objective, samples, pairs_at_once(config))
    except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException):
        return None


def some_pairs(config: Config, dataset: Artifact | None, model: Any) -> Batch:
    """A few pairs with their negatives as a model takes them, of images without content.

    A paraphrase is as long as its caption, a unit half of that, and a negative's image as large as the others.
    """
    side = model.visual.image_size
    height, width = side if isinstance(side, tuple) else (side, side)
    texts = _texts(config, dataset, min(TOKENS, model.context_length))
    count = len(texts)
    units = 2 * UNITS * config.needs_units
    given = [
        pair[1:] + pair[:1] * config.needs_paraphrases + [pair[0][: -(-len(pair[0]) // 2)]] * units for pair in texts
    ]
    type_BK = torch.full((count, config.negatives_per_caption), -1)
    for row, pair in enumerate(texts):
        type_BK[row, : len(pair) - 1] = 0
    images = torch.zeros(count, 3, height, width)
    shown = count if config.negative_images else 0
    return Batch(
        image_BCHW=images,
        tokens_NL=clip.pad([pair[0] for pair in texts] + [text for pair in given for text in pair]),
        type_BK=type_BK,
        other_MCHW=images[:shown],
        depicted_B=torch.full((count,), bool(shown)),
        rephrased_B=torch.full((count,), config.needs_paraphrases),
        told_BU=torch.ones(count, UNITS, dtype=torch.bool) if units else None,
    )


def _texts(config: Config, dataset: Artifact | None, length: int) -> list[list[list[int]]]:
    """Tokens of each pair's caption and negatives."""
    if dataset is None:
        words = torch.arange(SAMPLE * (1 + config.negatives_per_caption) * length).view(SAMPLE, -1, length)
        return [pair.tolist() for pair in words + 1]  # no two begin alike
    folder = dataset.table_folder("dataset")
    there = set(tables.columns(folder))  # which may be of other settings
    columns = ["caption_tokens", *(name for kind in config.types if (name := f"{kind}_tokens") in there)]
    first = next(iter(tables.batches(folder, SAMPLE, columns))).to_pylist()
    found = [[row[name] for name in columns if row[name]] for row in first]
    return [texts[: 1 + config.negatives_per_caption] for texts in found]
