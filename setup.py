"""The wheel: the checkout's folders pipeline/, stages/, flows/ and data/ become parts of the one package `degla`.

Three top-level packages of such common names would collide in other people's environments. In the checkout they stay
as they are, so that editors, mypy and import-linter see plain packages.
"""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGES = ("pipeline", "stages", "flows")
IMPORT = re.compile(rf"^(\s*)from ({'|'.join(PACKAGES)})\b", re.MULTILINE)
ENTRYPOINT = re.compile(rf"(entrypoint: )({'|'.join(PACKAGES)})\b")


class OnePackage(build_py):
    """Builds the packages as setuptools does, then puts them and the data below `degla` and renames the imports."""

    def run(self) -> None:
        """Build; an editable install is left as it is."""
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib)
        for name in (*PACKAGES, "data"):  # of an earlier build
            shutil.rmtree(built / "degla" / name, ignore_errors=True)
        for name in PACKAGES:
            (built / name).replace(built / "degla" / name)
        for module in (built / "degla").rglob("*.py"):
            module.write_text(IMPORT.sub(r"\1from degla.\2", module.read_text(encoding="utf-8")), encoding="utf-8")
        shutil.copytree("data", built / "degla" / "data")
        deployments = Path("prefect.yaml").read_text(encoding="utf-8")
        (built / "degla" / "prefect.yaml").write_text(ENTRYPOINT.sub(r"\1degla.\2", deployments), encoding="utf-8")


setup(cmdclass={"build_py": OnePackage})
