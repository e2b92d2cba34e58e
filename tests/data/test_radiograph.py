"""Reading of one radiograph."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bad_inputs import picture
from cxrtool.data.images import read
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading, read_radiograph


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_decoding_a_large_jpeg_at_reduced_size_keeps_the_pixels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "large.jpg"
    film = Image.fromarray(picture(300, 240)).resize((2000, 2600), Image.Resampling.BICUBIC)
    noisy = np.clip(np.asarray(film) + np.random.default_rng(0).normal(0, 6, (2600, 2000)), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).convert(mode).save(path, quality=92)
    with Image.open(path) as image:
        plain = np.asarray(image.convert("L").resize((320, 320), Image.Resampling.BILINEAR)).astype(float)
    radiograph, shown = (
        read_radiograph(path, Reading(Preprocessing(320), 1, full_size=full_size)) for full_size in (False, True)
    )
    assert radiograph.image.shape == (1300, 1000)
    assert shown.image.shape == (2600, 2000)
    np.testing.assert_array_equal(radiograph.pixels, shown.pixels)
    assert np.abs(radiograph.pixels - plain).mean() < 0.3
    small = Image.fromarray(noisy).resize((900, 1100))
    small.save(path, quality=92)
    assert read(path, target_size=320).pixels.shape == (1100, 900)  # half of it would be below twice what is needed
