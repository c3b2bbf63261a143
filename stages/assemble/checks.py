"""The checks of data/checks.sql: what must hold between pairs, negatives and dataset."""

import hashlib
import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from pipeline.assets import DATA
from pipeline.errors import UserError
from pipeline.negative_types import BESIDE, NEGATIVE_TYPES

if TYPE_CHECKING:
    import duckdb

CHECKS = DATA / "checks.sql"


class Check(NamedTuple):
    """One named query; it returns the rows that break the rule, their id first."""

    severity: str
    what: str
    query: str

    @property
    def of_dataset(self) -> bool:
        """Whether it asks of what assemble makes, not only of its inputs."""
        return re.search(r"\bdataset\b", self.query) is not None


@cache
def render_checks(kinds: tuple[str, ...] = NEGATIVE_TYPES) -> str:
    """The SQL of data/checks.sql, which is a template over the kinds of text that the dataset has columns of."""
    from jinja2 import StrictUndefined, Template

    types, beside = ([kind for kind in kinds if (kind in BESIDE) == is_beside] for is_beside in (False, True))
    template = CHECKS.read_text(encoding="utf-8")
    return str(
        Template(template, undefined=StrictUndefined, keep_trailing_newline=True).render(types=types, beside=beside)
    )


def checks_digest() -> str:
    """Digest of the SQL that is asked of the five types: it changes with the file and with them."""
    return hashlib.sha256(render_checks().encode()).hexdigest()[:16]


def read_checks(kinds: tuple[str, ...] = NEGATIVE_TYPES) -> list[Check]:
    """All checks: each a `-- error: ...` or `-- warning: ...` line with the query below it."""
    found = re.findall(r"^-- (error|warning): (.+)\n((?:(?!--).*\n?)+)", render_checks(kinds), re.MULTILINE)
    return [Check(severity, what.strip(), query.strip().rstrip(";")) for severity, what, query in found]


def validate(sql: "duckdb.DuckDBPyConnection", checks: list[Check]) -> dict[str, int]:
    """Offending rows per check, over the views pairs, negatives and dataset. Raises UserError on the first error."""
    counts = {}
    for severity, what, query in checks:
        offending = sql.sql(query)
        count, first = offending.aggregate(f'count(*), min("{offending.columns[0]}"::varchar)').fetchall()[0]
        counts[what] = count
        if count and severity == "error":
            raise UserError(
                "assemble", f"{what}: {count} rows, e.g. {first}", "none", "degla run RUN --from generate --force"
            )
    return counts
