"""generate: every caption gets its hard negatives, one per type, each checked; every response is cached for good.

Two layers. Responses (responses.py) are data: requested once per caption, type and source, kept beside the store, and
used again by every later artifact. The negatives table is a pure function of pairs, responses and checks, in parts
fixed by content. So a killed run loses at most the responses of the last `keep_every` seconds, changed checks request
nothing, a changed prompt requests one type, several processes can fill the responses of one run together (`assist`).

Writes negatives (NEGATIVES), one row per candidate, rejected ones with their reason; prompts (PROMPTS), what their
digests stand for; card.md and card.html, which say how good they are.
"""

from pathlib import Path
from typing import Any

from pipeline.artifact import path_digest
from pipeline.stage import Inputs, Progress, Stage
from stages.generate.backends import BACKENDS
from stages.generate.config import OWN, Config
from stages.generate.prompts import prompt_digest, prompts_of
from stages.language_models.folders import folder_digest
from stages.text.words import LEXICON


def outside(config: Config) -> dict[str, str]:
    """Digests of the model, the prompts it is given, and the lexicon of the checks."""
    if not config.kinds:
        return {}
    told = {f"prompt {kind}": prompt_digest(prompt) for kind, prompt in prompts_of(config).items()}
    if config.verify not in (None, OWN):
        told["judge"] = folder_digest(Path(str(config.verify)).expanduser())
    return {"model": BACKENDS[config.backend].identity(config), "lexicon": path_digest(LEXICON), **told}


def run(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Make the `negatives` artifact.

    Raises UserError when the model cannot be had, or more requests failed or candidates were rejected than allowed, and
    TransientError when the model is gone; responses that came in until then stay cached.
    """
    from stages.generate import negatives  # DuckDB, Arrow

    return negatives.make(config, inputs, out, progress)


def assist(config: Config, inputs: Inputs, out: Path, progress: Progress) -> dict[str, Any]:
    """Request what a run still lacks, together with the process that makes its artifact in `out`, from any machine."""
    from stages.generate import negatives

    return negatives.assist(config, inputs, out, progress)


STAGE = Stage(
    name="generate", makes="negatives", needs=("pairs",), version=9, config=Config, outside=outside, run=run,
    assist=assist,
)  # fmt: skip
