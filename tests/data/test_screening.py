"""What is warned of, on made-up files and on real radiographs."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading, read_radiograph
from cxrtool.data.screening import grey_percentiles, radiograph_likeness
from cxrtool.errors import ImageError


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    st.floats(0, 1),
)
def test_grey_percentiles_are_those_of_numpy(pixels: NDArray[np.uint8], share: float) -> None:
    found = grey_percentiles(pixels, (share, 0.01, 0.99))
    assert found == pytest.approx(tuple(np.quantile(pixels, (share, 0.01, 0.99))), abs=1e-9)


READING = Reading(Preprocessing(64), 1)


@pytest.fixture(scope="module")
def frontal(phantoms: Path) -> Image.Image:
    path = sorted((phantoms / "test").rglob("*frontal.jpg"))[0]
    return Image.open(path).convert("L")


def codes(path: Path, reading: Reading = READING) -> list[str]:
    return [warning.code for warning in read_radiograph(path, reading).warnings]


def test_a_plain_radiograph_has_no_warning(phantoms: Path) -> None:
    for path in sorted((phantoms / "test").rglob("*frontal.jpg")):
        assert codes(path) == []


def test_its_negative_is_warned_of(phantoms: Path, tmp_path: Path) -> None:
    for path in sorted((phantoms / "test").rglob("*frontal.jpg")):
        with Image.open(path) as image:
            negative = np.asarray(image.convert("L"))
        Image.fromarray(255 - negative).save(tmp_path / "negative.png")
        assert codes(tmp_path / "negative.png") == ["inverted"]


def test_formats_that_warn(frontal: Image.Image, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photograph = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((90, 90))
    alpha = frontal.copy()
    alpha.putalpha(200)
    made = {
        "palette.png": (frontal.convert("P"), ["converted"]),
        "cmyk.jpg": (frontal.convert("RGB").convert("CMYK"), ["converted"]),
        "grey-as-rgb.jpg": (frontal.convert("RGB"), []),
        "alpha.png": (alpha, ["alpha"]),
        "twelve.png": (Image.fromarray(np.asarray(frontal).astype(np.uint16) * 16), ["shallow"]),
        "sixteen.png": (Image.fromarray(np.asarray(frontal).astype(np.uint16) * 250), []),
        "small.png": (frontal.resize((32, 32)), []),
        "constant.png": (Image.new("L", (90, 90), 90), ["blank"]),
        "faint.png": (frontal.point(lambda value: 100 + value // 25), ["blank"]),
        "page.png": (frontal.point(lambda value: 255 * (value > 128)), ["two-levels"]),
        "mask.png": (frontal.point(lambda value: 90 * (value > 60)), ["two-levels"]),
        "wide.png": (frontal.resize((190, 96)), ["aspect"]),
        "view1_lateral.png": (frontal, ["lateral"]),
    }
    for name, (image, expected) in made.items():
        image.save(tmp_path / name)
        assert codes(tmp_path / name) == expected, name
    photograph.save(tmp_path / "photograph.jpg")
    assert "colour" in codes(tmp_path / "photograph.jpg")
    frontal.resize((40, 40)).save(tmp_path / "few.png")
    assert codes(tmp_path / "few.png", Reading(Preprocessing(320), 1)) == ["small"]


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(159, 200, ["small"]), (200, 159, ["small"]), (160, 200, [])]
)
def test_the_shorter_side_decides_whether_an_image_is_small(
    frontal: Image.Image, tmp_path: Path, width: int, height: int, expected: list[str]
) -> None:
    frontal.resize((width, height)).save(tmp_path / "image.png")
    assert codes(tmp_path / "image.png", Reading(Preprocessing(320), 1)) == expected


def test_strict_turns_a_warning_into_an_error(tmp_path: Path) -> None:
    Image.new("L", (90, 90), 90).save(tmp_path / "constant.png")
    with pytest.raises(ImageError, match="blank: nearly one grey level"):
        read_radiograph(tmp_path / "constant.png", Reading(Preprocessing(64), 1, strict=True))


def test_likeness_turns_its_sign_with_the_image(frontal: Image.Image) -> None:
    pixels = np.asarray(frontal)
    assert radiograph_likeness(255 - pixels) == pytest.approx(-radiograph_likeness(pixels), abs=1e-6)
    assert radiograph_likeness(np.zeros((64, 64), dtype=np.uint8)) == 0


def test_real_radiographs(nih: Path) -> None:
    """Of 427 one is a negative (looked at); only sizes and colours may be warned about otherwise."""
    warned = {}
    for path in sorted(nih.glob("*/*/*/*.*g")):
        found = codes(path, Reading(Preprocessing(64), 1))
        if found:
            warned["/".join(path.parts[-3:-1])] = found
    assert warned == {"patient17999/study1": ["inverted"]}
    missed = 0
    files = sorted(nih.glob("test/*/*/*.*g"))
    for path in files:
        with Image.open(path) as image:
            buffer = io.BytesIO()
            Image.fromarray(255 - np.asarray(image.convert("L"))).save(buffer, "PNG")
            pixels = np.asarray(Image.open(buffer).resize((64, 64), Image.Resampling.BILINEAR))
        missed += radiograph_likeness(pixels) >= 0
    assert missed == 0
