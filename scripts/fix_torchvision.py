"""Make PyPI's torchvision importable beside a CPU build of torch, in this environment.

PyPI's x86-64 torchvision is a CUDA build; beside a CPU torch its native library does not load, and `import
torchvision` dies because two operator schemas are missing. This writes a `.pth` file with an import hook that
declares them just before torchvision is imported (transforms and datasets then work; the native operators, which
nothing here uses, do not). Where torch has CUDA, or torchvision imports as it is, nothing is written.

Run: python scripts/fix_torchvision.py
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

HOOK = '''\
"""Declares the two operator schemas that a CUDA torchvision lacks beside a CPU torch."""

import importlib.abc
import sys


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            torch._degla_torchvision_schemas = library
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
'''


def imports() -> bool:
    return subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode == 0


def main() -> None:
    if imports():
        return
    site = Path(sysconfig.get_path("purelib"))
    (site / "degla_torchvision.py").write_text(HOOK)
    (site / "degla_torchvision.pth").write_text("import degla_torchvision\n")
    if not imports():
        sys.exit(
            "env: torchvision does not import beside this torch; expected matching builds; "
            "fix: see docs/using.md, Versions"
        )


if __name__ == "__main__":
    main()
