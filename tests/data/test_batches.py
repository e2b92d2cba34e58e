import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.data.batches import split_batches
from cxrtool.training.augment import epoch_order


@given(st.integers(0, 200), st.integers(2, 33))
def test_batches_contain_each_row_once_and_never_a_single_row(count: int, size: int) -> None:
    order = epoch_order(0, 1, count)
    groups = split_batches(order, size, least=2)
    assert np.concatenate([*groups, np.array([], dtype=np.int64)]).tolist() == order.tolist()
    assert all(2 <= len(group) <= size + 1 for group in groups) or count == 1
