"""The table of backends: who can write negatives. One more is a module with its class, and a line here."""

from pathlib import Path

from stages.generate.ranked import RankedBackend
from stages.generate.rules import RulesBackend
from stages.language_models.base import Backend, Corpus, LanguageModel, Settings
from stages.language_models.replay import ReplayBackend
from stages.language_models.server import ServerBackend
from stages.language_models.vllm import VllmBackend


class GivenBackend(Backend):
    """The negatives that the source brought with its pairs: nothing is requested."""

    has_responses = False
    has_model = False
    needs_prompt = False
    is_paid = False
    repairs = False

    def identity(self, settings: Settings) -> str:
        """The same for all: what the pairs hold is an input."""
        return "given"

    def open(self, settings: Settings, corpus: Corpus, log: Path) -> LanguageModel:
        """Never called, as nothing is requested."""
        raise NotImplementedError


BACKENDS: dict[str, Backend] = {
    "vllm": VllmBackend(),
    "openai": ServerBackend(),
    "rules": RulesBackend(),
    "ranked": RankedBackend(RulesBackend(), VllmBackend()),
    "replay": ReplayBackend(),
    "given": GivenBackend(),
}


def is_paid(backend: str) -> bool:
    """True when cached responses of a backend cost time or money; those of one not in the table may have."""
    return backend not in BACKENDS or BACKENDS[backend].is_paid
