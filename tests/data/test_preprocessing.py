"""Preprocessing against Pillow's resize."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bad_inputs import picture
from cxrtool.data.preprocessing import Preprocessing, preprocess
from cxrtool.errors import RequestError


def test_preprocess_is_pillows_antialiased_bilinear() -> None:
    image = picture(640, 480)
    expected = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(preprocess(image, Preprocessing(64)), expected)
    checkerboard = ((np.indices((640, 640)).sum(axis=0) % 2) * 255).astype(np.uint8)
    assert np.ptp(preprocess(checkerboard, Preprocessing(64))[4:-4, 4:-4].astype(int)) <= 2  # no aliasing


@given(st.integers(0, 255), st.integers(32, 90), st.integers(32, 90), st.integers(32, 96))
def test_a_constant_image_stays_constant(level: int, height: int, width: int, size: int) -> None:
    result = preprocess(np.full((height, width), level, dtype=np.uint8), Preprocessing(size))
    assert result.shape == (size, size)
    assert (result == level).all()


def test_preprocessing_reads_back_and_refuses_invalid_values() -> None:
    assert Preprocessing.from_dict(Preprocessing(96).to_dict()) == Preprocessing(96)
    for change in ({"image_size": 8}, {"image_size": "x"}, {"std": [0, 1, 1]}, {"mean": [1]}, {"resize": "crop"}):
        with pytest.raises(RequestError):
            Preprocessing.from_dict(Preprocessing().to_dict() | change)
