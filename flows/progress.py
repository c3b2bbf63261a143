"""How far a stage is: a bar in a terminal, a line now and then elsewhere, a progress artifact in Prefect."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from pipeline.stage import Progress

EVERY_SECONDS = 10.0


@contextmanager
def shown(stage: str) -> Iterator[Progress]:
    """Show one stage's progress on stderr: rate, done of total, and time left."""
    console = Console(stderr=True)
    if console.is_terminal:
        from flows.bars import bars_on

        with bars_on(console) as bars:
            ids: dict[str, int] = {}

            def bar(what: str, done: int, total: int) -> None:
                unit = what.partition(",")[0]
                if unit not in ids:
                    ids[unit] = bars.add_task(f"{stage} {what}", total=total)
                bars.update(ids[unit], completed=done, total=total, description=f"{stage} {what}")  # type: ignore[arg-type]

            yield bar
    else:
        yield throttled(lambda line, share: print(f"{stage}: {line}", file=sys.stderr, flush=True))


def throttled(tell: Callable[[str, float], None], every: float = EVERY_SECONDS) -> Progress:
    """A progress callback that hands `tell` one line with rate and ETA, and the share done, every few seconds."""
    begun: dict[str, tuple[float, int]] = {}
    last: dict[str, tuple[str, int, int]] = {}
    told: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        unit, moment = what.partition(",")[0], time.monotonic()
        since, at = begun.setdefault(unit, (moment, done))
        before, last[unit] = last.get(unit, (what, done, -1)), (what, done, total)
        if done < before[1]:  # the same unit counted anew, as captions are for every type
            since, at = begun[unit] = (moment, done)
        is_end = done == total != at and before != last[unit]
        if moment - told.get(unit, 0.0) < every and not is_end:
            return
        told[unit] = moment
        rate = (done - at) / (moment - since) if moment > since else 0.0
        left = f"{rate:,.1f}/s, {(total - done) / rate:,.0f} s left" if rate else "starting"
        tell(f"{done:,}/{total:,} {what} ({left if done < total else 'done'})", done / total if total else 1.0)

    return report


def both(*callbacks: Progress) -> Progress:
    """One progress callback that calls several."""

    def report(what: str, done: int, total: int) -> None:
        for callback in callbacks:
            callback(what, done, total)

    return report
