import re

import yaml

from tests.paths import ROOT


def test_pre_commit_formats_as_the_gate_does() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    used = {pin for hook in repository["hooks"] for pin in hook["additional_dependencies"] if pin.startswith("ruff==")}
    assert used == set(re.findall(r"^ruff==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def test_workflows_may_only_read_and_run_what_the_makefile_has() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text()
        assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
        assert set(re.findall(r"\bmake ([a-z-]+)", text.partition("jobs:")[2])) <= targets, path.name


def test_only_one_file_of_the_tests_says_where_the_checkout_is() -> None:
    counting = [path for path in (ROOT / "tests").rglob("*.py") if ".parents" + "[" in path.read_text()]
    assert counting == [ROOT / "tests" / "paths.py"]
