"""Files that would unpack to too much memory are refused before it is allocated; measured in a process per file."""

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, RLELossless

from bad_inputs import (
    BAD_FILES,
    HEADER,
    LOSSLESS_JPEG_LIES,
    ROW,
    bomb_png,
    deflated_bomb,
    dicom,
    dicom_bytes,
    encoded,
    lossless_jpeg_that_lies,
    picture,
    png_of,
    with_another_syntax_first,
)
from conftest import Call

MOST_MIB = 32
"""Largest memory for a bomb beyond that for a small radiograph, without the size of the file itself."""
SHEET_MIB = 1024
"""Largest memory for reading a sheet of a million rows (docs/inputs.md)."""

MEASURE = """
import json, os, resource, sys
from pathlib import Path
from cxrtool.data.images import read
from cxrtool.errors import ImageError
def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for good in sys.argv[1:3]:
    read(Path(good))  # imports should not count
for name in sys.argv[3:]:
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        before = resident()
        try:
            read(Path(name))
            message = "read"
        except ImageError as error:
            message = error.message
        os.write(start, json.dumps([name, message, resident() - before]).encode())
        os._exit(0)
    os.close(start)
    print(os.read(end, 100_000).decode(), flush=True)
    os.waitpid(child, 0)
"""


def tiff_of(width: int, height: int) -> bytes:
    """Return a small TIFF whose tags state another size."""
    content = bytearray(encoded("TIFF", compression="tiff_adobe_deflate"))
    for tag, number in ((256, width), (257, height)):
        place = content.index(struct.pack("<HHI", tag, 3, 1))
        content[place + 8 : place + 12] = struct.pack("<I", number)
    return bytes(content)


def packed_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(buffer, format="TIFF", compression="tiff_adobe_deflate")
    return buffer.getvalue()


def tiff_of_pages(count: int) -> bytes:
    """Return a TIFF with an endless list of pages, which must not be counted."""
    first = bytearray(encoded("TIFF"))
    (start,) = struct.unpack_from("<I", first, 4)
    (tags,) = struct.unpack_from("<H", first, start)
    directory = bytes(first[start : start + 2 + 12 * tags])
    place = start + 2 + 12 * tags
    pages = bytearray(first)
    for number in range(count):
        struct.pack_into("<I", pages, place, len(pages))
        last = number == count - 1
        place = len(pages) + len(directory)
        pages += directory + (0 if last else len(pages) + len(directory) + 4).to_bytes(4, "little")
    return bytes(pages)


def webp_of(side: int) -> bytes:
    """Return a small lossless WebP whose header states another size: 14 bits each, minus one."""
    content = bytearray(encoded("WEBP", "RGB", lossless=True))
    place = content.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", content, place)
    struct.pack_into("<I", content, place, (bits >> 28 << 28) | (side - 1) << 14 | (side - 1))
    return bytes(content)


def jpeg2000_in_dicom(rows: int, columns: int) -> bytes:
    """Return a DICOM of the given size whose frame states 60,000 x 60,000."""
    dataset = dicom()
    dataset.compress(JPEG2000Lossless)
    dataset.Rows, dataset.Columns = rows, columns
    content = bytearray(dicom_bytes(dataset))
    place = content.index(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(">8I", content, place, 60_000, 60_000, 0, 0, 60_000, 60_000, 0, 0)
    return bytes(content)


def run_lengths() -> bytes:
    """Return 8 MB of run lengths that unpack to half a gigabyte."""
    from pydicom.encaps import encapsulate

    dataset = dicom((np.arange(64 * 48).reshape(64, 48) % 200).astype(np.uint8))
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.PixelData = encapsulate([struct.pack("<II", 1, 64) + bytes(56) + b"\x81\x07" * 4_000_000])
    dataset["PixelData"].is_undefined_length = True
    return dicom_bytes(dataset)


def png_with(kind: bytes, start: bytes) -> bytes:
    """Return a PNG with a chunk of compressed text or colours that unpacks to 200 MB."""
    content = png_of(64, 64)
    squeeze = zlib.compressobj(9)
    data = start + b"".join(squeeze.compress(bytes(1_000_000)) for _ in range(200)) + squeeze.flush()
    chunk = len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    return content[:33] + chunk + content[33:]


def deep_sequences() -> bytes:
    """Return a DICOM with sequences nested 20,000 deep."""
    whole = dicom_bytes(dicom())
    place = whole.index(b"\x08\x00\x60\x00CS")  # before Modality
    opened = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return whole[:place] + opened * 20_000 + whole[place:]


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG header of 900 megapixels": (bomb_png, "64,000,000"),
    "JPEG header of 900 megapixels": (BAD_FILES["header of 900 megapixels"][0], "64,000,000"),
    "PNG of 100 megapixels": (lambda: png_of(10_000, 10_000), "64,000,000"),
    "TIFF header of 900 megapixels": (lambda: tiff_of(30_000, 30_000), "64,000,000"),
    "TIFF of 100 megapixels, packed": (packed_tiff, "64,000,000"),
    "TIFF of 100,000 pages": (lambda: tiff_of_pages(100_000), "several pages"),
    "WebP header of 268 megapixels": (lambda: webp_of(16_384), "64,000,000"),
    "WebP header of 100 megapixels": (lambda: webp_of(10_000), "64,000,000"),
    "PNG with 200 MB of text": (lambda: png_with(b"zTXt", b"Comment\0\0"), "cannot be decoded"),
    "PNG with a colour profile of 200 MB": (lambda: png_with(b"iCCP", b"icc\0\0"), ""),
    "JPEG 2000 file": (lambda: encoded("JPEG2000"), "not an image"),
    "deflated DICOM of 300 MB": (lambda: deflated_bomb(150_000_000), "deflated"),
    "the same, its syntax stated twice": (lambda: with_another_syntax_first(deflated_bomb(150_000_000)), "deflated"),
    "DICOM of 60,000 rows": (lambda: dicom_bytes(dicom(Rows=60_000, Columns=60_000)), "64,000,000"),
    "DICOM with a giant JPEG 2000 frame": (lambda: jpeg2000_in_dicom(64, 48), "its frame has 60000 x 60000"),
    "the same, and the DICOM says so too": (lambda: jpeg2000_in_dicom(60_000, 60_000), "64,000,000"),
    "DICOM with a giant lossless JPEG frame": (lambda: dicom_bytes(lossless_jpeg_that_lies()), LOSSLESS_JPEG_LIES),
    "DICOM of run lengths to 512 MB": (run_lengths, "run lengths"),
    "DICOM of sequences 20,000 deep": (deep_sequences, "cannot be decoded"),
}


def test_no_bomb_allocates_much_memory(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    good = [tmp_path / "good.png", tmp_path / "good.dcm"]
    good[0].write_bytes(encoded("PNG"))
    good[1].write_bytes(dicom_bytes(dicom()))
    paths = []
    for number, (make, _) in enumerate(BOMBS.values()):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, good), *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(measured) == len(BOMBS)
    for (name, (_, words)), path, (_, message, grown) in zip(BOMBS.items(), paths, measured, strict=True):
        size = path.stat().st_size / 2**20
        sys.stdout.write(f"{name}: {size:.2f} MiB, {grown:.0f} MiB more: {message[len(str(path)) :][:90]}\n")
        record_property(name, f"{grown:.0f} MiB")
        assert words in message, name
        assert grown - size < MOST_MIB, name
    assert not done.stderr


def test_limits_are_settings(tmp_path: Path, call: Call, run_folder: Path) -> None:
    (tmp_path / "large.png").write_bytes(png_of(1200, 1100))
    allowed = call("predict", "large.png", "--model", run_folder, "--json")
    refused = call("predict", "large.png", "--model", run_folder, "--json", "--max-megapixels", 1)
    assert allowed.json["predictions"][0]["error"] is None
    assert "at most 1,000,000 are allowed" in refused.json["predictions"][0]["error"]
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1100), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    heavy = call("predict", "noise.png", "--model", run_folder, "--json", "--max-file-mib", 1)
    assert "at most 1,048,576 are allowed" in heavy.json["predictions"][0]["error"]
    named = call("config", "--json").json
    assert (named["runtime.max_megapixels"]["value"], named["runtime.max_file_mib"]["value"]) == (64, 256)


@pytest.mark.parametrize("command", ["check-data", "eval", "train", "cache"])
def test_limits_reach_every_reader(tmp_path: Path, call: Call, phantoms: Path, command: str) -> None:
    """The limit is set below the size of one image of the data set."""
    import shutil

    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    large = Image.fromarray(picture()).resize((1200, 1100))
    for split in ("train", "test"):
        large.save(min((data / split).rglob("*frontal.jpg")))
    limit = ("--max-megapixels", 1)
    done = {
        "check-data": lambda: call("check-data", data, *limit, "--json"),
        "cache": lambda: call("cache", data, "--image-size", 32, *limit),
        "train": lambda: call(
            "train", "--data", data, "--init", "none", "--image-size", 32, "--out", "run", "--device", "cpu", *limit
        ),
        "eval": lambda: call("eval", "--data", data, "--model", make_model(call), *limit),
    }[command]()
    assert "at most 1,000,000 are allowed" in done.stdout + done.stderr


def make_model(call: Call) -> Path:
    import torch

    torch.save(_random_state(), "start.pt")
    call("import", "start.pt", "imported", "--image-size", 32)
    return Path("imported")


def _random_state() -> object:
    from cxrtool.data.preprocessing import Preprocessing
    from cxrtool.model.densenet import build_network

    return build_network(Preprocessing(32), "none", 0).state_dict()


def test_a_million_rows_within_the_stated_memory(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    rows = ROW.replace("patient00042", "patient{0:07d}")
    with (tmp_path / "train.csv").open("w") as file:
        file.write(HEADER + "\n")
        file.writelines(rows.format(number) + "\n" for number in range(1_000_000))
    script = (
        "import sys; from pathlib import Path\n"
        "from cxrtool.choices import Views; from cxrtool.data.manifest import load_manifest\n"
        "print(len(load_manifest(Path(sys.argv[1]), 'train', Views.ALL)))\n"
        # Not getrusage, whose maximum a child inherits from its parent.
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=200, check=True
    )
    count, peak = map(int, done.stdout.split())
    record_property("peak_mib", peak)
    assert count == 1_000_000
    assert peak < SHEET_MIB
