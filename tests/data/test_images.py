import contextlib
import io
import os
import struct
import subprocess
import sys
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


@pytest.mark.parametrize("progressive", [False, True])
def test_a_whole_jpeg_may_have_bytes_behind_it(tmp_path: Path, progressive: bool) -> None:
    """Phones append a film or a depth map; the end of a thumbnail inside the file is not its end."""
    exif = Image.Exif()
    exif[0x9286] = b"\xff\xd8\xff\xd9" * 4
    whole = encoded(quality=95, progressive=progressive, exif=exif)
    expected = saved(tmp_path / "whole.jpg", whole)
    np.testing.assert_allclose(expected.astype(int), picture(), atol=8)
    for rest in (bytes(9000), bytes(range(256)) * 40, encoded("PNG")):
        np.testing.assert_array_equal(saved(tmp_path / "more.jpg", whole + rest), expected)
    with pytest.raises(ImageError, match="truncated"):
        saved(tmp_path / "cut.jpg", whole[:-2] + bytes(9000))


def test_of_a_jpeg_with_further_pictures_the_first_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    first = Image.fromarray(picture())
    first.save(buffer, format="MPO", save_all=True, append_images=[first.resize((40, 48))], quality=95)
    np.testing.assert_allclose(saved(tmp_path / "phone.jpg", buffer.getvalue()).astype(int), picture(), atol=8)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_whose_lowest_value_is_white_is_inverted(tmp_path: Path, kind: type) -> None:
    deep = picture().astype(kind) * (1 if kind is np.uint8 else 200)
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, format="TIFF")
    content = bytearray(buffer.getvalue())
    plain = saved(tmp_path / "black.tif", bytes(content)).astype(int)
    place = content.index(struct.pack("<HHI", 262, 3, 1))
    assert content[place + 8] == 1
    content[place + 8] = 0
    np.testing.assert_array_equal(saved(tmp_path / "white.tif", bytes(content)), 255 - plain)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_warned_of_only_where_something_is_transparent(tmp_path: Path, mode: str) -> None:
    opaque = Image.fromarray(picture()).convert(mode)
    opaque.save(tmp_path / "opaque.png", **({"transparency": 255} if mode == "P" else {}))
    assert "alpha" not in [warning.code for warning in read(tmp_path / "opaque.png").warnings]
    np.testing.assert_allclose(read(tmp_path / "opaque.png").pixels.astype(int), picture(), atol=1)
    grey = np.asarray(Image.fromarray(picture()).convert("LA")).copy()
    grey[:10, :, 1] = 0
    clear = Image.fromarray(grey)
    if mode == "P":
        clear = Image.fromarray(picture())
        clear.save(tmp_path / "clear.png", transparency=int(picture()[5, 5]))
    else:
        clear.convert(mode).save(tmp_path / "clear.png")
    decoded = read(tmp_path / "clear.png")
    assert "alpha" in [warning.code for warning in decoded.warnings]
    assert decoded.pixels[5, 5] == 0


def test_libtiff_writes_nothing_of_its_own(tmp_path: Path) -> None:
    """In a process of its own, because it writes past Python's stderr."""
    for number, compression in enumerate(("tiff_adobe_deflate", "tiff_lzw", "jpeg")):
        content = bytearray(encoded("TIFF", compression=compression))
        content[40:400:7] = bytes(len(content[40:400:7]))
        (tmp_path / f"{number}.tif").write_bytes(bytes(content))
    script = (
        "import sys; from pathlib import Path\n"
        "from cxrtool.data.images import read; from cxrtool.errors import ImageError\n"
        "for path in map(Path, sys.argv[1:]):\n"
        "    try: read(path)\n"
        "    except ImageError as error: print(error.message)\n"
    )
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "cannot be decoded: it is damaged" in done.stdout


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
