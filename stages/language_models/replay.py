"""Responses read from a file: generations are data, and can be used again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact import path_digest
from pipeline.errors import UserError
from stages.language_models.base import Backend, Corpus, Message, Request, Response, Settings

_COLUMNS = {
    "type": "VARCHAR",
    "caption": "VARCHAR",
    "reply": "VARCHAR",
    "attempt": "INTEGER",
    "finish_reason": "VARCHAR",
    "prompt_tokens": "INTEGER",
    "reply_tokens": "INTEGER",
}


class ReplayBackend(Backend):
    """`generate.model` is the file."""

    needs_prompt = False
    is_paid = False

    def identity(self, settings: Settings) -> str:
        """Digest of the file."""
        path = Path(settings.model)
        if not path.is_file():
            raise UserError(
                "generate", f"no file {settings.model}", "a Parquet or JSONL file of replies", "generate.model"
            )
        return path_digest(path)

    def open(self, settings: Settings, corpus: Corpus, log: Path) -> "Replay":
        """Open the file."""
        return Replay(Path(settings.model))


class Replay:
    """Responds from a Parquet or JSONL file with columns type, caption, reply, and optionally attempt (0),
    finish_reason ("stop"), prompt_tokens, reply_tokens. A request the file does not hold fails, alone. Needs no
    prompts, and no memory to speak of: the file is searched once per call.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError when the file cannot be read, or a row lacks its type, caption or reply."""
        import duckdb

        self._sql = duckdb.connect()
        try:
            if path.suffix == ".parquet":
                rows = self._sql.read_parquet(str(path))
            else:
                rows = self._sql.read_json(str(path), columns=_COLUMNS, format="newline_delimited")
            missing = {"type", "caption", "reply"} - set(rows.columns)
            columns = ", ".join(name if name in rows.columns else f"null as {name}" for name in _COLUMNS)
            rows.project(columns).create_view("replies")
            lacking = missing or rows.filter("type is null or caption is null or reply is null").limit(1).fetchall()
        except (duckdb.Error, OSError) as error:
            raise _unusable(f"{path}: {str(error).splitlines()[0]}") from None
        if lacking:
            raise _unusable(f"{path}: a row without type, caption or reply")

    def respond(self, kind: str, prefix: list[Message], requests: Sequence[Request]) -> list[Response]:
        """Look each request up; a repair without a line of its own finds the line of the try before."""
        import pyarrow as pa

        asked = pa.table(
            {"caption": [request.caption for request in requests], "attempt": [request.attempt for request in requests]}
        )
        self._sql.register("asked", asked)
        found = self._sql.execute(
            "select asked.caption, asked.attempt, reply, coalesce(finish_reason, 'stop'), prompt_tokens, reply_tokens "
            "from replies join asked on replies.caption = asked.caption "
            "and coalesce(replies.attempt, 0) <= asked.attempt where type = $1 "
            "qualify row_number() over (partition by asked.caption, asked.attempt order by replies.attempt desc) = 1",
            [kind],
        ).fetchall()
        responses = {(caption, attempt): Response(*rest) for caption, attempt, *rest in found}
        missing = Response.failed("the replay file has no reply to this")
        return [responses.get((request.caption, request.attempt), missing) for request in requests]

    def facts(self) -> dict[str, Any]:
        """Nothing worth telling."""
        return {}

    def close(self) -> None:
        """Let go of the file."""
        self._sql.close()


def _unusable(what: str) -> UserError:
    return UserError("generate", what, "a Parquet or JSONL file of type, caption, reply", "generate.model")
