"""vLLM's offline engine in a process of its own, so that its memory, threads and log are its own, and end with it.

The parent (`Engine`) never imports vLLM. The child (`serve`) leads its own process group, which also holds the engine
core that vLLM starts; a watch on a pipe kills the whole group the moment the parent dies, however it dies. Prompts of
one call share a long prefix: it is rendered and tokenised once (chat.py), the engine computes it once (prefix caching),
and only the caption's few tokens differ.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.assets import IMPORT_ROOT
from pipeline.child_log import ChildLog
from pipeline.crew import cores
from pipeline.errors import TransientError, UserError
from pipeline.stage import Inputs
from stages.language_models.base import LINE, Backend, Corpus, Message, Request, Response, Settings, sampling
from stages.language_models.chat import encode, special_tokens, text_start
from stages.language_models.folders import SMOLLM2, folder_digest, local_model

MAX_MODEL_LEN = 8192
"""Tokens; the 50-example prompts take about 2,500."""

_CAUSE = re.compile(r"(?:\b[A-Za-z_.]*(?:Error|Exception|Exit)\b): +(\S.*)")
_DULL = ("engine core initialization failed", "see root cause", "see stack trace")


class VllmBackend(Backend):
    """`generate.model` is a folder, or a name on the model hub."""

    is_sampler = True
    is_constrained = True
    is_scorer = True

    def identity(self, settings: Settings) -> str:
        """Digest of the folder; a hub model's name and revision."""
        folder = local_model(settings.model)
        if folder is not None:
            return folder_digest(folder)
        if settings.model.startswith((".", "/", "~", "data/")):
            fix = "degla gguf" if settings.model == SMOLLM2 else "generate.model"
            raise UserError("generate", f"no model folder {settings.model}", "a folder, or a name on the hub", fix)
        return f"{settings.model}@{settings.revision or 'main'}"

    def source(self, settings: Settings, prompt: str, inputs: Inputs) -> dict[str, Any]:
        """Name, sampling and prompt."""
        return {
            **super().source(settings, prompt, inputs),
            **sampling(settings, prompt, is_constrained=bool(settings.structured)),
        }

    def open(self, settings: Settings, corpus: Corpus, log: Path) -> "Engine":
        """Start an engine of its own."""
        return Engine(
            str(local_model(settings.model) or settings.model),
            revision=settings.revision,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=settings.seed,
            samples=settings.samples,
            structured=bool(settings.structured),
            workers=settings.workers,
            chat_template=settings.chat_template,
            settings=settings.engine,
            log=log,
        )


class Engine:
    """The parent's side: starts the engine, sends requests, and makes sure that it is gone afterwards."""

    def __init__(
        self,
        model: str,
        *,
        revision: str | None,
        temperature: float,
        top_p: float,
        seed: int,
        samples: int = 1,
        structured: bool = True,
        workers: int = 1,
        settings: dict[str, Any],
        log: Path,
        chat_template: dict[str, Any] | None = None,
    ) -> None:
        """Start the engine and wait until it is ready.

        Args:
            model: a local folder, or a name on the model hub.
            revision: of the hub's model.
            samples: texts per request, the further ones as its response's `others`, each once.
            structured: only what `LINE` allows can be written, unless a request says otherwise.
            workers: engines that share this machine's cores.
            settings: further keyword arguments of `vllm.LLM`.
            log: file for what the engine prints (`pipeline.child_log`).
            chat_template: arguments of the model's chat template.

        Raises UserError, with the first useful line of the cause, when vLLM is not installed, the model cannot be
        loaded, or the engine does not start; TransientError when it dies while it starts.
        """
        self._model = model
        self._facts: dict[str, Any] = {}
        self._is_idle = True
        start = time.monotonic()
        is_local = Path(model).is_dir()
        self._said = ChildLog("engine", log)
        mine, its = socket.socketpair()
        watch, self._lifeline = os.pipe()
        with its, self._said.end as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import serve; serve()", str(its.fileno()), str(watch)],
                pass_fds=(its.fileno(), watch),
                stdin=subprocess.DEVNULL,
                stdout=output.fileno(),
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(workers, offline=is_local),
            )
        os.close(watch)
        self._pipe = Connection(mine.detach())
        try:
            self._pipe.send(
                {
                    "model": model,
                    "revision": None if is_local else revision,
                    "sampling": {"temperature": temperature, "top_p": top_p, "n": samples},
                    "seed": seed,
                    "structured": structured,
                    "chat_template": chat_template or {},
                    "settings": settings,
                }
            )
            self._facts = {**self._receive(), "ready_seconds": round(time.monotonic() - start, 1)}
        except BaseException:
            self.close()
            raise

    def respond(self, kind: str, prefix: list[Message], requests: Sequence[Request]) -> Iterator[Response]:
        """Responses in the order of the requests, as they come in. Raises TransientError when the engine dies."""
        came: dict[int, Response] = {}
        self._send(("respond", prefix, list(requests)))
        self._is_idle = False
        for index in range(len(requests)):
            while index not in came:
                came |= self._receive("responses")
            yield came.pop(index)
        facts = self._receive()
        self._is_idle = True
        for name, count in facts.items():
            self._facts[name] = self._facts.get(name, 0) + count

    def likelihood(self, texts: Sequence[str]) -> list[float]:
        """Natural log of each text's probability, as that of a document of its own (`chat.text_start`).

        Raises TransientError when the engine dies.
        """
        self._send(("likelihood", list(texts)))
        return list(self._receive())

    def facts(self) -> dict[str, Any]:
        """Version, device, seconds to get ready; prompt tokens, those found in the prefix cache, seconds of work."""
        return dict(self._facts)

    def close(self) -> None:
        """Stop the engine, wait for it, and see that no process of its group is left."""
        if self._lifeline < 0:
            return
        try:
            if self._is_idle:  # else it is in the midst of responses that nobody waits for
                self._pipe.send(None)
                self._process.wait(timeout=20)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            pass
        self._pipe.close()
        os.close(self._lifeline)
        self._lifeline = -1
        group = self._process.pid
        for deadline, kill in ((5.0, signal.SIGTERM), (10.0, signal.SIGKILL), (10.0, signal.SIGKILL)):
            if _gone(group, 0.0):
                break
            try:
                os.killpg(group, kill)
            except (ProcessLookupError, PermissionError):
                break
            self._process.poll()
            if _gone(group, deadline):
                break
        self._process.wait(timeout=20)
        self._said.join()

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._died() from None

    def _receive(self, expected: str = "done") -> Any:
        try:
            what, value = self._pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if what == "failed":
            raise self._broken(value)
        assert what == expected
        return value

    def _died(self) -> TransientError:
        """Ended without a word, as by a kill or for want of memory: another one may live."""
        self.close()  # and with it, the log is whole
        why = cause(self._said.file) or "ended without a word"
        return TransientError(
            f"generate: vLLM with model {self._model!r}: {why}; expected an engine that stays; fix: the same command "
            f"continues from here; the engine's log is {self._said.file}"
        )

    def _broken(self, what: str) -> UserError:
        self.close()
        return UserError(
            "generate",
            f"vLLM with model {self._model!r}: {cause(self._said.file) or what}",
            "an engine that starts and stays",
            f"generate.model, generate.engine, or degla doctor; the engine's log is {self._said.file}",
        )


def cause(log: Path) -> str | None:
    """The first useful error line of an engine's log: the message of the first exception that is not a mere echo."""
    for line in log.read_text(errors="replace").splitlines():
        found = _CAUSE.search(line)
        if found and not any(dull in line.lower() for dull in _DULL):
            return found.group(1).strip()[:300]
    return None


def engine_defaults(*, on_cpu: bool, longest: int, seed: int, may_cascade: bool) -> dict[str, Any]:
    """Arguments of `vllm.LLM` unless the settings say otherwise.

    Args:
        on_cpu: the platform is a CPU.
        longest: tokens the model can read.
        seed: of the engine; each request brings its own.
        may_cascade: this vLLM takes the argument that switches cascade attention off: 0.33 knows neither.
    """
    defaults: dict[str, Any] = {
        "dtype": "float32" if on_cpu else "auto",
        "enforce_eager": on_cpu,
        "enable_prefix_caching": True,
        # On the CPU vLLM cannot take back the draw of a seeded request whose prompt was split over two steps.
        "enable_chunked_prefill": not on_cpu,
        "max_model_len": min(longest, MAX_MODEL_LEN),
        "seed": seed % 2**31,
    }
    if may_cascade:
        # Cascade attention computes the prefix that all running requests share in one go, and may take in one that does
        # not share it (vLLM's PR 55227).
        defaults["disable_cascade_attn"] = True
    if on_cpu:  # said in bytes, or vLLM refuses to start where less than 92 % of the memory is free
        defaults["kv_cache_memory_bytes"] = int(os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")) << 30
        defaults["block_size"] = 32  # of the CPU's usual 128 more of a prefix is computed anew for each caption
    return defaults


def _environment(workers: int, *, offline: bool) -> dict[str, str]:
    ours = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(IMPORT_ROOT), os.environ.get("PYTHONPATH")))),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    # One machine's engine talks to itself over loopback; who spreads one over several says other addresses.
    here = {"VLLM_HOST_IP": "127.0.0.1"}
    # Threads spin at every barrier: of two cores, one left free costs no time and 0.4 to 0.6 of the CPU time.
    here["OMP_NUM_THREADS"] = str(max((cores() - (workers == 1)) // workers, 1))
    return {**here, **os.environ, **ours, **({"HF_HUB_OFFLINE": "1"} if offline else {})}


def _gone(group: int, patience: float) -> bool:
    """True once no live process of the group is left (zombies hold no memory and do not count)."""
    deadline = time.monotonic() + patience
    while _alive(group):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def _alive(group: int) -> bool:
    if not Path("/proc/self/stat").exists():
        try:
            os.killpg(group, 0)
        except OSError:
            return False
        return True
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(its_group) == group and state not in "ZX":
            return True
    return False


# -- the child ---------------------------------------------------------------------------------------------------------


def serve() -> None:
    """The child's main loop: load, then answer until told to stop. Started by `Engine` only."""
    pipe, watch = Connection(int(sys.argv[1])), int(sys.argv[2])
    threading.Thread(target=_die_with_parent, args=(watch,), daemon=True).start()
    try:
        model = _Loaded(pipe, **pipe.recv())
        pipe.send(("done", model.facts))
        while (message := pipe.recv()) is not None:
            what, *arguments = message
            pipe.send(("done", getattr(model, what)(*arguments)))
    except Exception as error:
        import traceback

        traceback.print_exc()
        pipe.send(("failed", f"{type(error).__name__}: {error}".splitlines()[0]))
        sys.exit(1)
    model.llm.llm_engine.engine_core.shutdown()
    sys.stdout.flush()
    os._exit(0)  # nothing of worth is left, and the interpreter's own way out takes seconds


def _die_with_parent(watch: int) -> None:
    os.read(watch, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


class _Loaded:
    """The engine, inside the child."""

    def __init__(
        self,
        pipe: Connection,
        *,
        model: str,
        revision: str | None,
        sampling: dict[str, Any],
        seed: int,
        structured: bool,
        chat_template: dict[str, Any],
        settings: dict[str, Any],
    ) -> None:
        import vllm
        from transformers import AutoConfig
        from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        if on_cpu:  # this process is the engine's own already; two more would each take half a minute to import vLLM
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        longest = getattr(
            AutoConfig.from_pretrained(model, revision=revision), "max_position_embeddings", MAX_MODEL_LEN
        )
        defaults = engine_defaults(
            on_cpu=on_cpu,
            longest=longest,
            seed=seed,
            may_cascade=hasattr(vllm.EngineArgs, "disable_cascade_attn"),
        )
        self.llm = vllm.LLM(model=model, revision=revision, **{**defaults, **settings})
        self._tokenizer, self._chat_template = self.llm.get_tokenizer(), chat_template
        self._special = special_tokens(self._tokenizer)
        self._longest = int(self.llm.llm_engine.model_config.max_model_len)
        self._sampling = {
            **sampling,
            "skip_special_tokens": True,
            "output_kind": vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        }
        if structured:
            self._sampling["structured_outputs"] = vllm.sampling_params.StructuredOutputsParams(regex=LINE)
        self._pipe = pipe
        self.facts = {
            "vllm": vllm.__version__,
            "device": current_platform.get_device_name() if not on_cpu else "cpu",
            "dtype": str(self.llm.llm_engine.model_config.dtype).removeprefix("torch."),
        }

    def respond(self, prefix: list[Message], requests: list[Request]) -> dict[str, float]:
        """Send every response, by the place of its request, as soon as it is there; what all of them took."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import StructuredOutputsParams

        start = time.monotonic()
        prompts = self._prompts(prefix, requests)
        engine, failed = self.llm.llm_engine, {}
        places: dict[str, int] = {}
        for index, (request, ids) in enumerate(zip(requests, prompts, strict=True)):
            if any(token in request.caption for token in self._special):
                failed[index] = Response.failed("the caption holds a special token of the model")
            elif len(ids) + request.max_tokens > self._longest:
                failed[index] = Response.failed(
                    f"prompt of {len(ids)} tokens and {request.max_tokens} for the reply exceed {self._longest}"
                )
            else:
                own = {"structured_outputs": StructuredOutputsParams(**request.allowed)} if request.allowed else {}
                params = SamplingParams(max_tokens=request.max_tokens, seed=request.seed, **{**self._sampling, **own})
                name = str(next(self.llm.request_counter))
                (prompt,) = engine.renderer.render_cmpl([TokensPrompt(prompt_token_ids=ids)])
                engine.add_request(name, prompt, params)
                places[name] = index
        self._pipe.send(("responses", failed))
        prompt_tokens = cached_tokens = 0
        while engine.has_unfinished_requests():
            came = {}
            for output in engine.step():
                asked = len(output.prompt_token_ids)
                texts: dict[str, Any] = {}
                for done in sorted(output.outputs, key=lambda one: one.index):
                    texts.setdefault(done.text, done)
                first, *others = [
                    Response(text, str(done.finish_reason), 0, len(done.token_ids)) for text, done in texts.items()
                ]
                came[places[output.request_id]] = replace(first, prompt_tokens=asked, others=tuple(others))
                prompt_tokens += asked
                cached_tokens += output.num_cached_tokens or 0
            if came:
                self._pipe.send(("responses", came))
        return {
            "prompt_tokens": prompt_tokens,
            "cached_tokens": cached_tokens,
            "work_seconds": round(time.monotonic() - start, 3),
        }

    def _prompts(self, prefix: list[Message], requests: list[Request]) -> list[list[int]]:
        """Token ids of each request's chat; a repair that the model cannot read is a request like the first."""

        def encoded(chats: list[list[Message]]) -> list[list[int]]:
            return encode(self._tokenizer, prefix, chats, self._chat_template)

        prompts = encoded([request.turns for request in requests])
        unread = [
            index
            for index, (request, ids) in enumerate(zip(requests, prompts, strict=True))
            if request.told
            and (len(ids) + request.max_tokens > self._longest or any(t in request.rejected for t in self._special))
        ]
        for index, ids in zip(unread, encoded([requests[index].turns[:1] for index in unread]), strict=True):
            prompts[index] = ids
        return prompts

    def likelihood(self, texts: list[str]) -> list[float]:
        """Sum of the log-probabilities of a text's tokens; what exceeds the model's length is left out."""
        from vllm import SamplingParams, TokensPrompt

        start = [text_start(self._tokenizer)]
        ids = [
            (start + one)[: self._longest - 1] for one in self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        ]
        outputs = self.llm.generate(
            [TokensPrompt(prompt_token_ids=one) for one in ids],
            SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0),
            use_tqdm=False,
        )
        return [
            sum(
                told[token].logprob
                for token, told in zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
                if told
            )
            for output in outputs
        ]
