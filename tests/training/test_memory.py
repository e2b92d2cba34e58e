"""The batch size that is suggested when memory runs out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.engines.device import Runtime
from cxrtool.training import memory

CPU = Runtime(torch.device("cpu"), False, False)


@given(st.integers(1, 512), st.integers(0, 600))
def test_the_largest_half_that_fits_with_a_margin_is_found(batch_size: int, room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_fits", lambda images, *_: images <= room)
        found = memory.batch_that_fits(batch_size, 64, CPU)
    halves = [batch_size // 2**power for power in range(1, 10)]
    fitting = [size for size in halves if size >= 2 and round(1.1 * size) <= room]
    assert found == max(fitting, default=0)


def test_a_training_step_is_made() -> None:
    assert memory.batch_that_fits(4, 32, CPU) == 2
