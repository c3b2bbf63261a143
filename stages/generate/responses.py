"""The cache of responses: kept beside the store, per what produced them, whatever becomes of the artifacts.

    $DEGLA_HOME/replies/<type>/<digest>/
        about.json                          model, sampling and prompt that the digest stands for
        <first>-<last>.<content>.parquet    responses, sorted by caption_key and attempt

Files are never changed, only added, each whole or absent. A file's name tells which caption keys it may hold, so a
look-up opens few files however many there are. Changing a check uses every response again; changing one type's prompt
leads to another digest for that type alone; a new caption is simply not there yet.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.artifact import digest
from pipeline.stage import Inputs
from stages.generate.backends import BACKENDS
from stages.generate.config import Config
from stages.generate.constraints import constraint_source
from stages.generate.prompts import Prompt, prompt_digest
from stages.language_models.base import Request, Response

_STATES = pa.dictionary(pa.int32(), pa.string())

REPLIES = pa.schema(
    [
        pa.field("caption_key", pa.string(), nullable=False),
        pa.field("attempt", pa.int8(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("finish_reason", _STATES, nullable=False),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("reply_tokens", pa.int32()),
        pa.field("error", pa.string()),
        pa.field("seconds", pa.float32(), nullable=False, metadata={"description": "share of its batch's wall time"}),
        pa.field("told", pa.string(), metadata={"description": "what a repair was told; null: nothing"}),
    ]
)


Tries = Mapping[tuple[int, str], Response]
"""Responses to one caption by (attempt, what was told with the request)."""


def caption_key(caption: str) -> str:
    """Identity of a caption: the first 16 hex digits of its sha256."""
    return hashlib.sha256(caption.encode()).hexdigest()[:16]


def sources(config: Config, prompts: Mapping[str, Prompt | None], inputs: Inputs) -> dict[str, dict[str, Any]]:
    """What produces the responses of each type: all that decides one beside the caption.

    Empty where nothing is requested. Raises UserError when the model is not there.
    """
    backend = BACKENDS[config.backend]
    if not backend.has_responses:
        return {}
    return {
        kind: {**backend.source(config, prompt_digest(prompt), inputs), **constraint_source(config.structured, kind)}
        for kind, prompt in prompts.items()
    }


def folder_of(home: Path, kind: str, source: dict[str, Any]) -> Path:
    """Where the responses of one type from one source are kept, below `home`."""
    return home / kind / digest(source)


@dataclass(frozen=True)
class ResponseCache:
    """The responses of one type from one source (model, sampling, prompt).

    Attributes:
        folder: where they are kept for good.
        faults: where failed requests are kept while one artifact is being made: they cost nothing, and are requested
            again when the stage is started again after it gave up.
    """

    folder: Path
    faults: Path

    @classmethod
    def of(cls, home: Path, kind: str, source: dict[str, Any], faults: Path) -> "ResponseCache":
        """Those below `home`; writes `about.json` when they are new."""
        found = cls(folder_of(home, kind, source), faults / kind)
        about = found.folder / "about.json"
        if not about.exists():
            with found.claim("about") as mine:
                if mine:  # whoever else holds it is writing the same
                    tables.write_text(about, json.dumps(source, indent=1, ensure_ascii=False))
        return found

    def find(self, first: str, last: str) -> Mapping[str, Tries]:
        """All responses and faults to captions with first <= key <= last, by caption key."""
        found: dict[str, dict[tuple[int, str], Response]] = {}
        for path in (*_overlapping(self.faults, first, last), *_overlapping(self.folder, first, last)):
            for row in pq.read_table(path, schema=REPLIES).to_pylist():
                if first <= row["caption_key"] <= last:
                    found.setdefault(row["caption_key"], {})[row["attempt"], row["told"] or ""] = Response(
                        row["text"], row["finish_reason"], row["prompt_tokens"], row["reply_tokens"], row["error"]
                    )
        return found

    def paid(self, plan: Path, last: str = "f" * 16) -> dict[str, float]:
        """Responses to the captions of a plan, up to a caption key, with their prompt tokens, reply tokens, seconds."""
        if not list(self.folder.glob("*.parquet")):
            return {"replies": 0, "prompt_tokens": 0, "reply_tokens": 0, "seconds": 0.0}
        with duckdb.connect() as sql:
            found = sql.execute(
                "select count(*), sum(prompt_tokens)::bigint, sum(reply_tokens)::bigint, sum(seconds) "
                "from read_parquet($1) where caption_key <= $3 "
                "and caption_key in (select caption_key from read_parquet($2))",
                [str(self.folder / "*.parquet"), str(plan), last],
            ).fetchall()[0]
        count, prompt_tokens, reply_tokens, seconds = (value or 0 for value in found)
        return {
            "replies": count,
            "prompt_tokens": prompt_tokens,
            "reply_tokens": reply_tokens,
            "seconds": round(float(seconds), 3),
        }

    def add(self, requests: list[Request], responses: list[Response], seconds: float) -> None:
        """Keep what came back for one batch, in at most two files: responses, and faults.

        A response's `others` follow it as the next attempts.
        """
        share = seconds / max(len(requests), 1)
        rows = [
            {
                "caption_key": caption_key(request.caption),
                "attempt": request.attempt + more,
                "caption": request.caption,
                "text": response.text,
                "finish_reason": response.finish_reason,
                "prompt_tokens": response.prompt_tokens,
                "reply_tokens": response.reply_tokens,
                "error": response.error,
                "seconds": 0.0 if more else share,
                "told": request.told or None,
            }
            for request, first in zip(requests, responses, strict=True)
            for more, response in enumerate((first, *first.others))
        ]
        rows.sort(key=lambda row: (row["caption_key"], row["attempt"]))
        for folder, is_fault in ((self.folder, False), (self.faults, True)):
            if chosen := [row for row in rows if (row["error"] is not None) == is_fault]:
                content = digest(chosen)
                name = f"{chosen[0]['caption_key']}-{chosen[-1]['caption_key']}.{content}.parquet"
                tables.write(folder / name, chosen, REPLIES)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """True when this process may work on the named shard, False when another one does. Dies with its owner."""
        path = self.folder / ".claims" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def _overlapping(folder: Path, first: str, last: str) -> list[Path]:
    """Files that may hold keys of the range; in order of name, so that the same file always wins."""
    found = []
    for path in sorted(folder.glob("*.parquet"), reverse=True) if folder.is_dir() else ():
        lowest, _, highest = path.name.split(".", 1)[0].partition("-")
        if not path.name.startswith(".") and lowest <= last and highest >= first:
            found.append(path)
    return found
