"""A model of natural language inference, which tells whether one text follows from another."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError

ENTAILS = ("entailment", "entail", "entails")
"""How models call the label, in lower case."""


class Entailment:
    """A model of natural language inference: a folder of Hugging Face's `*ForSequenceClassification`."""

    BATCH = 64

    def __init__(self, folder: Path) -> None:
        """Raises UserError when the folder holds no such model, or none of its labels is called entailment."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise _unusable(f"{folder}: {str(error).splitlines()[0]}") from None
        names = {index: str(name).lower() for index, name in model.config.id2label.items()}
        found = [index for index, name in names.items() if name in ENTAILS]
        if len(found) != 1:
            raise _unusable(f"{folder} has the labels {', '.join(names.values())}")
        self._entails, self._device = found[0], "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.eval().to(self._device)

    def follows(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Probability of entailment, of all of the model's labels."""
        import torch

        found: list[float] = []
        for start in range(0, len(pairs), self.BATCH):
            premises, texts = zip(*pairs[start : start + self.BATCH], strict=True)
            batch = self._tokenizer(list(premises), list(texts), padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                logits = self._model(**batch.to(self._device)).logits.float()
            found += logits.softmax(-1)[:, self._entails].tolist()
        return found

    def grammatical(self, texts: Sequence[str]) -> None:
        """It is not asked."""


def _unusable(what: str) -> UserError:
    expected = "a Hugging Face folder of a model for sequence classification with a label entailment"
    return UserError("generate", what, expected, "generate.verify")
