"""When making negatives is given up: requests that fail, or responses that are rejected, more often than allowed.

Both are looked at while the responses of a type come in, so that a model that is not up to it is not paid to the end,
and once more when all are there. Errors and refusals have a limit each: a server that fails says nothing of the model.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.errors import UserError
from stages.generate.checks import Verdict
from stages.generate.config import Config
from stages.language_models.base import Response

PILOT = 256
"""First responses of a type and attempt that are checked as they come in."""

BURST = 4096
"""Requests over which errors are spread at least: some that fail together do not end a long run."""


class Watch:
    """The responses of one type while they come in.

    `attempts` tries are made of each caption; a try's refusals may exceed the limit, as long as further tries that are
    refused as often would bring them below it.
    """

    def __init__(self, config: Config, kind: str, captions: int, attempts: int) -> None:
        self._config, self._kind, self._captions, self._attempts = config, kind, captions, attempts
        self._errors, self._requests = Counter[int](), Counter[int]()
        self._checked = Counter[int]()
        self._reasons: dict[int, Counter[str]] = {attempt: Counter() for attempt in range(attempts)}  # "" = none

    def wants(self, attempt: int) -> bool:
        """True while `see` looks at verdicts."""
        return self._checked[attempt] < PILOT

    def see(self, attempt: int, response: Response, verdicts: Iterable[Verdict]) -> None:
        """Count a response, and what its pairs' checks say of it. Raises UserError when a limit is exceeded."""
        self._requests[attempt] += 1
        if response.error is not None:
            self._errors[attempt] += 1
            spread = max(self._requests[attempt], min(self._captions, BURST))
            if self._errors[attempt] > self._config.max_error_rate * spread:
                raise _failing(self._config, self._kind, self._errors[attempt], self._requests[attempt], response.error)
        elif self.wants(attempt):
            self._checked[attempt] += 1
            self._reasons[attempt].update((one.reason or "") if one.status == "rejected" else "" for one in verdicts)
            if not self.wants(attempt):
                self._judge(attempt)

    def _judge(self, attempt: int) -> None:
        """Raise UserError when the refusals left after this attempt can hardly come below the limit."""
        left = 1.0
        for before in range(attempt + 1):
            if self.wants(before):  # too few to tell
                return
            left *= 1 - self._reasons[before][""] / self._reasons[before].total()
        if left > self._config.max_reject_rate ** ((attempt + 1) / self._attempts):
            reasons = Counter({reason: count for reason, count in self._reasons[attempt].items() if reason})
            raise _rejecting(
                self._config,
                f"{self._kind}: {reasons.total()} of the first {self._reasons[attempt].total()} rejected "
                f"({', '.join(f'{reason} {count}' for reason, count in reasons.most_common(5))})",
            )


def hold(config: Config, checked: Path, types: dict[str, Any]) -> None:
    """Raise UserError when too many pairs of a type are left without a negative.

    Args:
        config: the limits.
        checked: the negatives table.
        types: its counts, as of `negatives.counts`.
    """
    for kind, entry in types.items():
        pairs, total = entry["pairs"], sum(entry["pairs"].values())
        if pairs.get("error", 0) > config.max_error_rate * total:
            ((error,),) = _asked(
                checked, kind, "select first(raw_reply) from negatives where type = $1 and reason = 'error'"
            )
            raise _failing(config, kind, pairs["error"], total, error)
        if pairs.get("rejected", 0) > config.max_reject_rate * total:
            ((reason, rows, pair, reply),) = _asked(
                checked,
                kind,
                "select reason, count(*), first(pair_id), first(raw_reply) from negatives "
                "where type = $1 and status = 'rejected' group by reason order by 2 desc, 1 limit 1",
            )
            raise _rejecting(
                config,
                f"{pairs['rejected']} of {total} {kind} rejected ({pairs['rejected'] / total:.0%}), most for {reason} "
                f"({rows}, e.g. pair {pair}: {reply!r})",
            )


def _asked(checked: Path, kind: str, query: str) -> list[tuple[Any, ...]]:
    with tables.connect({"negatives": checked}) as sql:
        rows: list[tuple[Any, ...]] = sql.execute(query, [kind]).fetchall()
    return rows


def _rejecting(config: Config, what: str) -> UserError:
    """The error of too many refusals."""
    return UserError(
        "generate",
        what,
        f"at most {100 * config.max_reject_rate:g}%",
        "try another generate.model or generate.prompts, or raise generate.max_reject_rate; responses are cached",
    )


def _failing(config: Config, kind: str, errors: int, requests: int, error: str) -> UserError:
    return UserError(
        "generate",
        f"{errors} of {requests} requests for {kind} failed, e.g. {error!r}",
        f"at most {config.max_error_rate:.0%}",
        "see to what fails and start again, or raise generate.max_error_rate; responses are cached",
    )
