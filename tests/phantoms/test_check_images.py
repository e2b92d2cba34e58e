"""The drawn images that an engine is checked on."""

import numpy as np

from cxrtool.data.preprocessing import Preprocessing
from cxrtool.phantoms.check_images import check_images


def test_the_images_of_the_check_are_always_the_same() -> None:
    first, again = (check_images(Preprocessing(image_size)) for image_size in (96, 96))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (8, 1, 96, 96)
    assert first.dtype == np.uint8
    assert len({image.tobytes() for image in first}) == 8
    assert check_images(Preprocessing(32)).shape == (8, 1, 32, 32)
