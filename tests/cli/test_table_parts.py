"""Tables in terminals of any width."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cxrtool.cli.table_parts import GAP, parts_that_fit

_words = st.lists(st.text("abcdef", min_size=1, max_size=12), min_size=1, max_size=3).map(" ".join)
_figures = st.builds("{:.3f} ({:.3f}-{:.3f})".format, *[st.floats(0, 1)] * 3)
_tables = st.integers(2, 9).flatmap(
    lambda columns: st.lists(st.tuples(_words, *[_words | _figures] * (columns - 1)), min_size=1, max_size=5)
)


@given(_tables, st.integers(48, 200), st.integers(1, 2))
def test_every_part_fits_and_breaks_neither_words_nor_intervals(
    rows: list[tuple[str, ...]], width: int, keys: int
) -> None:
    header = [f"c{number}" for number in range(len(rows[0]))]
    keys = min(keys, len(header) - 1)
    parts = parts_that_fit(header, rows, width, keys)
    shown = [name for part in parts for name in part.header[keys:]]
    assert shown == header[keys:], "every column is shown once"
    for part in parts:
        assert part.header[:keys] == tuple(header[:keys])
        # Lines are two characters at the edges and three between cells; a gap of two follows each column without lines.
        around = 3 * len(part.widths) + 1 if part.lines else GAP * len(part.widths)
        assert sum(part.widths) + around <= width
        for place, room in enumerate(part.widths):
            for row in part.rows:
                assert all(len(piece) <= room for piece in re.findall(r"\([^()]*\)|\S+", row[place]))


def test_a_table_that_fits_keeps_its_lines_and_one_that_does_not_repeats_its_first_column() -> None:
    header = ["finding", "AUROC", "AUPRC"]
    rows = [["Edema", "0.912 (0.880-0.940)", "0.712 (0.640-0.790)"]]
    (whole,) = parts_that_fit(header, rows, 60)
    assert whole.lines
    assert whole.rows == tuple(map(tuple, rows))
    parts = parts_that_fit(header, rows, 28)
    assert [part.header for part in parts] == [("finding", "AUROC"), ("finding", "AUPRC")]
    assert parts[0].rows == (("Edema", "0.912\n(0.880-0.940)"),)
    assert all(first.columns[0] == second.columns[0] == 0 for first, second in pairwise(parts))
