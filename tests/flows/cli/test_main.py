"""The command line over a finished tiny run: what each command says, and that a mistake is one line and status 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.main import main
from stages.road import Run
from tests.pipeline.test_run import finished, home, opened

__all__ = ["finished", "home"]


def degla(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `degla WORDS...`."""
    monkeypatch.setenv("DEGLA_HOME", str(home))
    monkeypatch.setattr("sys.argv", ["degla", *words])
    with pytest.raises(SystemExit) as ended:
        main()
        raise SystemExit(0)
    out = capsys.readouterr()
    return int(ended.value.code or 0), out.out, out.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "tiny"], "current"),
        (["sql", "tiny", "select count(*) as pairs from pairs"], "pairs"),
        (["show", "tiny", "pairs", "--limit", "1"], "caption"),
        (["plan", "tiny", "--set", "train.lr=0.5"], "train     config.lr: 1e-06 -> 0.5"),
        (["plan", "tiny"], "nothing to make"),
        (["diff", "tiny", "tiny"], "no row flipped"),
        (["gc"], "0.0 MiB  to gain"),
        (["prompt", "swap_nouns", "A red cup is on a blue table."], "[user]\nA red cup is on a blue table."),
        (["recipe", "demo", "--set", "train.lr=0.5"], "lr: 0.5"),
        (["recipe", "--schema"], '"properties"'),
        (["data", "list"], "sugarcrepe"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_answers(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    status, out, err = degla(home, monkeypatch, capsys, *words)
    assert status == 0 and said in out, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status"], {"tiny"}),
        (["runs"], {"run", "state", "scores", "promoted"}),
        (["log", "tiny"], {"at", "stage", "made", "changed"}),
        (["plan", "tiny"], {"stage", "action", "reasons"}),
        (["diff", "tiny", "tiny"], {"settings", "dataset", "scores", "flipped"}),
        (["promote", "tiny", "--if", "heldout.mean >= 0"], {"met", "values"}),
        (["sql", "tiny", "select 1 as one"], {"one"}),
        (["show", "tiny", "pairs", "--limit", "1"], {"caption"}),
        (["doctor"], {"verdict", "what", "detail"}),
        (["data", "list"], {"sugarcrepe"}),
        (["recipe", "demo"], {"ingest", "train"}),
        (["prompt", "swap_nouns", "a red cup on a table"], {"type", "caption", "prompt"}),
        (["label", "tiny", "--n", "1", "--out", "{}/sheet.tsv"], {"sheet", "rows", "questions"}),
        (["export", "tiny", "negclip_tsv", "{}/pairs.tsv"], {"format", "target", "split", "rows"}),
        (["export", "tiny", "clip_benchmark", "{}/results"], {"format", "target", "files"}),
        (["export", "tiny", "croissant", "{}/published"], {"format", "target", "to_say"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_program_gets_json(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    said: set[str],
) -> None:
    words = [word.format(tmp_path) for word in words]
    status, out, err = degla(home, monkeypatch, capsys, *words, "--json")
    found = json.loads(out)
    assert status == 0 and said <= (found[0] if isinstance(found, list) else found).keys(), err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "nothing"], "recipe: cannot read 'nothing' (No such file or directory); expected one of "),
        (["run", "tiny", "--only", "trian"], "run: no stage 'trian'; expected one of ingest, "),
        (
            ["run", "tiny", "--from", "report", "--until", "train"],
            "run: no stage is left; expected --from before --until",
        ),
        (
            ["run", "tiny", "--only", "train", "--set", "train.lrr=1"],
            "recipe: train.lrr is wrong (given 1); expected one of ",
        ),
        (["trian"], "degla: no such command 'trian'; expected degla [OPTIONS] COMMAND [ARGS]...; fix: degla --help"),
        (["run", "--on", "train"], "degla run: no such option: --on (Possible options: --name, --only, --row); "),
        (["run", "--jobs", "0"], "degla run: invalid value for '--jobs'; expected greater than or equal to 1; fix: "),
        (["sql", "tiny"], "degla sql: missing argument 'query'; expected degla sql [OPTIONS] {name} {query}; fix: "),
        (["sql", "tiny", "select 1", "--format", "xml"], "degla sql: invalid value for '--format': 'xml' is not one "),
        (["status", "nobody"], "status: no run 'nobody'; expected one of tiny; fix: degla run"),
        (["sql", "tiny", "select * from nowhere"], "sql: Catalog Error: "),
        (["sql", "tiny", ""], "sql: 0 statements in ''; expected one; fix: degla sql tiny 'describe pairs'"),
        (["sql", "tiny", "select 1; select 2"], "sql: 2 statements in 'select 1; select 2'; expected one; "),
        (
            ["prompt", "swap_nouns", " "],
            "prompt: the caption is ' '; expected a caption; fix: degla prompt swap_nouns ",
        ),
        (["data", "check", "--root", "/nowhere"], "data: /nowhere is not there; expected a folder with benchmarks; "),
        (["notify", "slack"], "notify: 'slack' is no address; expected https://...; fix: "),
        (["notify", "https://a.org", "--when", "dead"], "notify: nothing ends 'dead'; expected one of completed, "),
        (["export", "tiny", "mteb", "there"], "export: no score of run 'tiny' is one of mteb's tasks; expected "),
        (["export", "tiny", "excel", "there"], "export: no format 'excel'; expected one of open_clip, "),
        (["sql", "nobody", "select 1"], "sql: run 'nobody' has no table; expected one of tiny; fix: degla run"),
        (
            ["diff", "tiny", "nobody"],
            "diff: run 'nobody' has nothing to compare; expected one of tiny; fix: degla runs",
        ),
        (["plan", "tiny", "--set", "ingest.root=/nowhere"], "ingest: /nowhere/captions.csv is not there"),
        (["export", "nobody", "open_clip", "there"], "export: run 'nobody' has no model; expected a trained run"),
        (["prompt", "swap_verbs", "A cup."], "prompt: no type 'swap_verbs'; expected one of reshuffle_order, "),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_status_2(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    status, _, err = degla(home, monkeypatch, capsys, *words)
    assert status == 2 and err.startswith(line) and err.count("\n") == 1, err


@pytest.mark.parametrize("words", [[], ["data"]])
def test_no_command_shows_which_there_are(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    status, out, err = degla(home, monkeypatch, capsys, *words)
    assert status == 2 and "Commands" in out and not err


def test_nothing_to_do_is_said_stage_by_stage_and_starts_no_server(
    home: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.serve.find_server", None)
    status, out, err = degla(home, monkeypatch, capsys, "run", str(tiny_recipe))
    assert status == 0, err
    assert [line.split()[:2] for line in out.splitlines()[:6]] == [
        [stage, "reused"] for stage in ("ingest", "generate", "assemble", "train", "evaluate", "report")
    ]
    assert out.splitlines()[-1] == f"report: {home / 'tiny' / 'report' / 'report.html'}"


def test_what_another_run_made_is_taken_from_the_store_without_a_server(
    home: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.serve.find_server", None)
    words = ("run", str(tiny_recipe), "--name", "other", "--until", "evaluate")  # the report says the run's name
    status, out, err = degla(home, monkeypatch, capsys, *words)
    assert status == 0, err
    assert [line.split()[1] for line in out.splitlines()[:5]] == ["reused"] * 5
    assert (home / "other" / "scores").resolve() == (home / "tiny" / "scores").resolve()


def test_without_prefect_stages_are_made_here(
    home: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.serve.find_server", None)
    (home / "tiny" / "report").resolve().rename(home / "away")
    words = ("run", str(tiny_recipe), "--no-prefect")
    status, out, err = degla(home, monkeypatch, capsys, *words)
    assert status == 0, err
    assert [line.split()[1] for line in out.splitlines()[:6]] == ["reused"] * 5 + ["made"]
    status, out, _ = degla(home, monkeypatch, capsys, *words, "--only", "report", "--force")
    assert status == 0 and out.splitlines()[0].split()[:2] == ["report", "made"]
    status, _, err = degla(home, monkeypatch, capsys, "run", "ablation", "--no-prefect")
    assert status == 2 and err.startswith("run: ablation is an ablation, which is a flow; expected a recipe or a run")


def test_a_second_command_with_other_settings_is_one_line_and_changes_nothing(
    home: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = opened(home, tiny_recipe)
    with first.at_work(["train"]):
        before = (home / "tiny" / "recipe.yaml").read_text()
        status, _, err = degla(home, monkeypatch, capsys, "run", str(tiny_recipe), "--set", "train.lr=0.5")
        assert status == 2 and err.count("\n") == 1
        assert err.startswith(
            "run: another command is at work on run 'tiny' with other settings (train.lr: 1e-06 -> 0.5)"
        )
        assert (home / "tiny" / "recipe.yaml").read_text() == before


def test_a_start_brings_no_heavy_package() -> None:
    heavy = ("torch", "prefect", "numpy", "pyarrow", "duckdb", "scipy", "matplotlib", "textblob", "open_clip", "httpx")
    script = f"import sys, degla.__main__; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "[]"


def test_scores_of_an_earlier_model_are_not_shown_as_the_new_ones(
    home: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(home, tiny_recipe, "train.lr=1e-5").make("train")
    status, out, err = degla(home, monkeypatch, capsys, "run", "tiny", "--only", "train")
    assert status == 0, err
    assert out.splitlines()[-1] == "the scores are an earlier model's; next: degla run tiny --from evaluate"
    assert "before" not in out and "report:" not in out


def test_a_recipe_named_beside_the_run_is_the_one_used(
    home: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's own settings are asked for by its name alone."""
    opened(home, tiny_recipe, "train.lr=1e-5").make("train")
    other = tiny_recipe.with_name("other.yaml")
    other.write_text(tiny_recipe.read_text())
    status, _, err = degla(home, monkeypatch, capsys, "run", str(other), "--name", "tiny", "--only", "train")
    assert status == 0 and Run.open("tiny", home=home)["model"].manifest.config["lr"] == 1e-6, err


def test_ctrl_c_says_that_the_same_command_resumes(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.cli.main.open_store", interrupted)
    status, _, err = degla(home, monkeypatch, capsys, "status")
    assert (status, err) == (130, "stopped; run the same command again to resume\n")


def test_nothing_of_duckdb_is_said_to_leak_behind_an_error(home: Path) -> None:
    code = "import sys; sys.argv = ['degla', *sys.argv[1:]]; from flows.cli.main import main; main()"
    command = [sys.executable, "-c", code, "sql", "tiny", "select * from nowhere"]
    ended = subprocess.run(command, env=os.environ | {"DEGLA_HOME": str(home)}, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
