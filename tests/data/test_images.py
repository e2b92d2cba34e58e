import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bad_inputs import BAD_FILES, encoded, picture
from cxrtool.data.images import list_images, read
from cxrtool.errors import ImageError


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_raises_a_one_line_error(tmp_path: Path, case: str) -> None:
    make, word = BAD_FILES[case]
    path = tmp_path / "image.jpg"
    path.write_bytes(make())
    with pytest.raises(ImageError) as caught:
        read(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert word in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("share", range(1, 10))
def test_a_truncated_jpeg_is_refused(tmp_path: Path, share: int) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded()[: len(encoded()) * share // 10])
    with pytest.raises(ImageError):
        read(path)


def test_missing_and_irregular_files_are_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, word in [
        (tmp_path / "gone.jpg", "no such file"),
        (tmp_path, "folder"),
        (tmp_path / "pipe.jpg", "regular"),
        (Path("/dev/zero"), "regular"),
    ]:
        with pytest.raises(ImageError, match=word):
            read(path)


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(encoded())
    (tmp_path / "data").mkdir()
    link = tmp_path / "data" / "link.jpg"
    link.symlink_to(tmp_path / "secret.jpg")
    assert read(link).pixels.shape == (96, 80)
    with pytest.raises(ImageError, match="leads out of"):
        read(link, tmp_path / "data")
    with pytest.raises(ImageError, match="leads out of"):
        read(tmp_path / "data" / ".." / "secret.jpg", tmp_path / "data")


def test_a_folder_whose_name_begins_with_that_of_the_root_is_outside(tmp_path: Path) -> None:
    for folder in ("data", "data-private"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data-private" / "secret.jpg").write_bytes(encoded())
    link = tmp_path / "data" / "link.jpg"
    link.symlink_to(tmp_path / "data-private" / "secret.jpg")
    for path in (link, tmp_path / "data-private" / "secret.jpg"):
        with pytest.raises(ImageError, match="leads out of"):
            read(path, tmp_path / "data")


def saved(path: Path, content: bytes) -> NDArray[np.uint8]:
    path.write_bytes(content)
    return read(path).pixels


def test_every_format_gives_the_same_grey_pixels(tmp_path: Path) -> None:
    for kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(saved(tmp_path / "image.jpg", encoded(kind)), picture())
    np.testing.assert_array_equal(saved(tmp_path / "i.webp", encoded("WEBP", "RGB", lossless=True)), picture())
    for mode in ("RGB", "P", "RGBA", "LA"):
        np.testing.assert_allclose(saved(tmp_path / "image.png", encoded("PNG", mode)), picture(), atol=1)
    assert np.abs(saved(tmp_path / "c.jpg", encoded("JPEG", "CMYK", quality=95)).astype(int) - picture()).mean() < 3


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = picture().astype(np.uint16) * 200
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, format="PNG")
    low, high = deep.min(), deep.max()
    expected = np.round((deep.astype(float) - low) * 255 / (high - low))
    np.testing.assert_allclose(saved(tmp_path / "deep.png", buffer.getvalue()), expected, atol=1)


def test_exif_orientation_is_applied_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    turned = saved(tmp_path / "turned.png", encoded("PNG", exif=exif))
    np.testing.assert_array_equal(turned, np.rot90(picture(), -1))


def test_folders_are_listed_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", ".hidden.jpg", "notes.txt", "deep/c.jpg", ".git/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    gone = tmp_path / "gone.jpg"
    assert [path.name for path in list_images([tmp_path, gone])] == ["a.jpg", "b.PNG", "gone.jpg"]
    assert [path.name for path in list_images([tmp_path], recursive=True)] == ["a.jpg", "b.PNG", "c.jpg"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_raise_only_image_errors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(encoded(data.draw(st.sampled_from(["JPEG", "PNG", "BMP", "TIFF", "WEBP"]))))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzzed.jpg"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    with contextlib.suppress(ImageError):
        image = read(path).pixels
        assert image.dtype == np.uint8
        assert image.ndim == 2
