"""Label sheets: a random draw of a run's accepted negatives for a person to read, and the answers kept.

Rows are drawn by hash, so the draws of two artifacts that share most rows do so as well; what was answered before, in
any run of the home, is filled in.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.artifact import Artifact
from pipeline.errors import UserError
from pipeline.negative_types import KINDS, UNITS
from pipeline.schema import LABELS
from stages import labels
from stages.generate import card

KEY = ("pair_id", "type", "caption", "candidate")
ANSWERS = (*labels.QUESTIONS, "plausible")
COLUMNS = (*KEY[1:], *ANSWERS, "pair_id")
_WRITTEN = {True: "1", False: "0", None: "u"}


def draw(negatives: Artifact, pairs: Artifact, n: int, seed: int) -> pa.Table:
    """Up to `n` accepted candidates of each type, COLUMNS, answers as texts. Memory: the sheet.

    Raises UserError when no candidate is accepted.
    """
    found: list[tuple[str, str, str, str]] = []
    with tables.connect({"negatives": negatives.path, "pairs": pairs.path}) as sql:
        for kind in KINDS:
            if kind == UNITS:  # true and false texts in one: the questions are of one text
                continue
            found += sql.execute(
                """select pair_id, type, caption, text from
                   (select pair_id, type, text, sha256(concat_ws(chr(31), $1, pair_id, text)) as place
                    from negatives where status = 'accepted' and type = $2 order by place limit $3)
                   join pairs using (pair_id) order by place""",
                [str(seed), kind, n],
            ).fetchall()
    if not found:
        raise UserError("label", "no negative is accepted", "some to read", "degla show RUN negatives")
    before = {
        tuple(row[name] for name in KEY[1:]): {name: _WRITTEN[row[name]] for name in ANSWERS}
        for path in sorted(labels.file_of(negatives.path).parent.glob("*.parquet"))
        for row in pq.read_table(path, schema=LABELS).to_pylist()
    }
    blank = dict.fromkeys(ANSWERS, "")
    rows = [{**dict(zip(KEY, row, strict=True)), **before.get(row[1:], blank)} for row in found]
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in COLUMNS]))


def keep(sheet: pa.Table, negatives: Artifact, pairs: Artifact) -> int:
    """Keep a sheet's answers beside the artifact, those of an earlier sheet as well, and write the card anew.

    Rows without an answer are passed over. Gives how many rows were answered.

    Raises UserError for an answer that is none, a row that stands twice or is not accepted in this artifact (each with
    its row), and a sheet without answers.
    """
    names = [name for name in ANSWERS if name in sheet.column_names]
    answers = pa.table({name: labels.answers(sheet, name, "label") for name in names})
    written = zip(*(sheet[name].to_pylist() for name in labels.QUESTIONS), strict=True)
    rows = [
        {**key, **said, "row": row}
        for row, (key, said, cells) in enumerate(
            zip(sheet.select(KEY).to_pylist(), answers.to_pylist(), written, strict=True), 1
        )
        if any((cell or "").strip() for cell in cells)
    ]
    if not rows:
        raise UserError("label", "no row is answered", f"1, 0 or u under {', '.join(labels.QUESTIONS)}", "fill it in")
    first: dict[tuple[str, ...], int] = {}
    for row in rows:
        if (same := first.setdefault(tuple(row[name] for name in KEY), row["row"])) != row["row"]:
            raise UserError("label", f"rows {same} and {row['row']} are the same", "each once", "delete one of them")
    with tables.connect({"negatives": negatives.path, "pairs": pairs.path}) as sql:
        sql.register("given", pa.Table.from_pylist(rows))
        strangers = sql.sql(
            """select row, type, candidate, pair_id from given anti join
               (select pair_id, type, caption, text as candidate from negatives join pairs using (pair_id)
                where status = 'accepted' and pair_id in (select pair_id from given)) as accepted
               using (pair_id, type, caption, candidate) order by row limit 1"""
        ).fetchall()
    if strangers:
        row, kind, text, pair = strangers[0]
        what = f"row {row} is no accepted negative of this run ({kind} {text!r} of pair {pair})"
        raise UserError("label", what, "rows of a sheet that degla label wrote for it", "degla label RUN")
    path = labels.file_of(negatives.path)
    before = pq.read_table(path, schema=LABELS).to_pylist() if path.exists() else []
    merged = {tuple(row[name] for name in KEY): row for row in (*before, *rows)}
    content = [{name: row.get(name) for name in LABELS.names} for _, row in sorted(merged.items())]
    tables.write(path, content, LABELS)
    card.write(negatives.path, pairs.path, negatives.meta, negatives.manifest.config)
    return len(rows)
