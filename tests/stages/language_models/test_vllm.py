from pathlib import Path

import pytest

from stages.generate.config import Config
from stages.language_models.base import LINE
from stages.language_models.vllm import VllmBackend, _environment, cause, engine_defaults


@pytest.mark.parametrize("on_cpu", [True, False])
def test_no_prompt_may_take_another_s_prefix(on_cpu: bool) -> None:
    made = [engine_defaults(on_cpu=on_cpu, longest=4096, seed=1, may_cascade=may) for may in (True, False)]
    assert [one.get("disable_cascade_attn") for one in made] == [True, None]


def test_the_cause_of_a_failed_start_is_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        "INFO start\n(EngineCore pid=1) ERROR 01-01 [core.py:1] EngineCore failed to start.\n"
        "(EngineCore pid=1) ERROR 01-01 [core.py:2] ValueError: No available memory for the cache blocks.\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert cause(log) == "No available memory for the cache blocks."


def test_a_reply_without_a_grammar_is_another_reply() -> None:
    """Nothing that the grammar decided is taken from the cache for a run without it."""
    made = [VllmBackend().source(Config(structured=structured), "prompt", {})["reply"] for structured in (True, False)]
    assert made == [LINE, None]


@pytest.mark.parametrize(
    ("cores", "workers", "said", "threads"),
    [(8, 2, None, "4"), (2, 3, None, "1"), (8, 1, None, "7"), (1, 1, None, "1"), (8, 2, "3", "3")],
)
def test_engines_on_one_machine_share_its_cores_and_one_alone_leaves_one_free(
    cores: int, workers: int, said: str | None, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.language_models.vllm.cores", lambda: cores)
    if said is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert _environment(workers, offline=True).get("OMP_NUM_THREADS") == threads
