"""The blocks that a list is divided into."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.data.input_list import InputList
from cxrtool.predict.table_parts import TableParts, rows_per_block


@given(st.integers(0, 300), st.integers(1, 700))
def test_blocks_are_the_whole_list_in_whole_batches(total: int, batch_size: int) -> None:
    with InputList((Path(f"{number}.jpg") for number in range(total)), batch_size) as inputs:
        blocks = list(TableParts(Path("parts"), inputs).blocks())
    assert [row for rows in blocks for row in rows] == list(range(total))
    assert all(rows.start % batch_size == 0 for rows in blocks)


@pytest.mark.parametrize(
    ("total", "batch_size", "expected"),
    [(0, 16, 64), (427, 16, 64), (20_000, 16, 304), (10**7, 16, 512), (10**7, 100, 500), (10**7, 4096, 4096)],
)
def test_few_images_are_shared_too_and_many_make_no_large_blocks(total: int, batch_size: int, expected: int) -> None:
    assert rows_per_block(total, batch_size) == expected
