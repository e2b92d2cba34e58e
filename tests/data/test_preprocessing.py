"""Preprocessing against Pillow's resize."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bad_inputs import picture
from cxrtool.choices import Fit
from cxrtool.data.preprocessing import Preprocessing, preprocess, to_image
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


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize(("height", "width"), [(200, 300), (300, 200), (256, 256), (97, 131)])
def test_a_mark_in_the_square_is_where_it_is_in_the_image(fit: Fit, height: int, width: int) -> None:
    image = np.zeros((height, width), dtype=np.uint8)
    row, column = height // 2 + 10, width // 2 - 12
    image[row - 4 : row + 5, column - 4 : column + 5] = 255
    square = preprocess(image, Preprocessing(128, fit=fit))
    assert square.shape == (128, 128)
    back = to_image(square.astype(np.float32), height, width, fit)
    assert back.shape == image.shape
    found = np.unravel_index(int(back.argmax()), back.shape)
    assert abs(found[0] - row) <= 5
    assert abs(found[1] - column) <= 5
    assert back[image == 0].mean() < 0.1 * back[image == 255].mean()


def test_crop_and_pad_keep_the_aspect_and_say_what_the_network_does_not_see() -> None:
    image = np.full((100, 200), 90, dtype=np.uint8)
    image[:, 50:150] = 200
    assert (preprocess(image, Preprocessing(50, fit=Fit.CROP)) == 200).all()
    padded = preprocess(image, Preprocessing(50, fit=Fit.PAD))
    assert (padded[:12] == 0).all()
    assert (padded[38:] == 0).all()
    assert (padded[13:37, 14:36] == 200).all()
    everywhere = np.ones((8, 8), dtype=np.float32)
    seen = to_image(everywhere, 100, 200, Fit.CROP)
    assert (seen[:, 50:150] == 1).all()
    assert not seen[:, :50].any()
    assert not seen[:, 150:].any()
    for fit in (Fit.PAD, Fit.STRETCH):
        assert (to_image(everywhere, 100, 200, fit) == 1).all()


@given(
    height=st.integers(32, 400), width=st.integers(32, 400), fit=st.sampled_from(list(Fit)), size=st.integers(32, 80)
)
def test_every_image_fills_or_fits_the_square(height: int, width: int, fit: Fit, size: int) -> None:
    square = preprocess(np.full((height, width), 255, dtype=np.uint8), Preprocessing(size, fit=fit))
    assert square.shape == (size, size)
    filled = square == 255
    if fit is Fit.PAD:
        rows, columns = filled.any(axis=1).sum(), filled.any(axis=0).sum()
        longest = max(height, width)
        assert abs(rows - size * height / longest) <= 1
        assert abs(columns - size * width / longest) <= 1
    else:
        assert filled.all()


def test_one_channel_and_fit_are_stored_and_the_default_is_stored_as_before() -> None:
    grey = Preprocessing(224, (0.5,), (1 / 2048,), fit=Fit.CROP)
    assert Preprocessing.from_dict(grey.to_dict()) == grey
    assert grey.channels == 1
    assert set(Preprocessing().to_dict()) == {"image_size", "mean", "std", "resize"}
    for change in ({"fit": "squeeze"}, {"mean": [0.5], "std": [1, 1, 1]}, {"mean": [], "std": []}):
        with pytest.raises(RequestError):
            Preprocessing.from_dict(Preprocessing().to_dict() | change)
