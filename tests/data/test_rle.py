"""Run lengths against pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from cxrtool.data.rle import decode_rle, encode_rle
from cxrtool.errors import RequestError


@given(arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_run_lengths_are_cocos(mask: np.ndarray) -> None:
    ours = encode_rle(mask)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert ours == {"size": list(theirs["size"]), "counts": theirs["counts"].decode()}
    np.testing.assert_array_equal(decode_rle(theirs["counts"], tuple(theirs["size"])), mask)
    np.testing.assert_array_equal(decode_rle(str(ours["counts"]), mask.shape), mask)


def test_a_large_mask_with_long_runs() -> None:
    mask = np.zeros((2320, 2828), dtype=bool)
    mask[300:1900, 700:1500] = True
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_rle(mask)["counts"] == theirs["counts"].decode()


def test_run_lengths_that_do_not_fill_the_mask_are_refused() -> None:
    with pytest.raises(RequestError, match="run lengths"):
        decode_rle([3, 4], (2, 2))
