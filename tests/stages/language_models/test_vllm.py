from pathlib import Path

from stages.language_models.vllm import cause


def test_the_cause_of_a_failed_start_is_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        "INFO start\n(EngineCore pid=1) ERROR 01-01 [core.py:1] EngineCore failed to start.\n"
        "(EngineCore pid=1) ERROR 01-01 [core.py:2] ValueError: No available memory for the cache blocks.\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert cause(log) == "No available memory for the cache blocks."
