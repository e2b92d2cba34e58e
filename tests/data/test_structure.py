"""Limits on the structure of files: what is above them is refused cheaply, and what encoders write is below them."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence

from bad_inputs import dicom, encoded
from bombs import BOMBS
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading, read_radiograph
from cxrtool.data.structure import StructureError, check_fragments, check_structure
from cxrtool.errors import ImageError

BUDGET_MIB, BUDGET_SECONDS = 64, 2

# Each bomb is read alone in one process; the peak is reset before each.
SCRIPT = """
import gc, json, time
import pydicom.pixels, pydicom.encaps
from bombs import BOMBS
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading, read_radiograph
from cxrtool.errors import ImageError

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024

for name, (make, words) in BOMBS.items():
    content = make()
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")
    before, began = peak(), time.process_time()
    try:
        read_radiograph(content, Reading(Preprocessing(32), 1))
    except ImageError:
        pass
    print(json.dumps([name, len(content), peak() - before, time.process_time() - began]))
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_of_too_much_structure_is_refused_by_what_it_has_too_much_of(name: str) -> None:
    make, words = BOMBS[name]
    with pytest.raises(ImageError) as caught:
        read_radiograph(make(), Reading(Preprocessing(32), 1))
    assert words in caught.value.message
    assert caught.value.message.endswith("more than a radiograph needs")


def test_no_small_file_takes_more_than_its_budget() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of memory can be reset on Linux only")
    tests = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tests, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(BOMBS)
    assert [row for row in rows if row[2] > BUDGET_MIB or row[3] > BUDGET_SECONDS] == []


@pytest.mark.parametrize(
    "content",
    [
        encoded("JPEG"),
        encoded("JPEG", "CMYK", progressive=True),
        encoded("JPEG", "RGB", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
        encoded("PNG"),
        encoded("PNG", "P"),
        encoded("TIFF"),
        encoded("TIFF", compression="tiff_lzw"),
        encoded("TIFF", big_tiff=True),
        encoded("BMP"),
        encoded("WEBP"),
    ],
)
def test_what_encoders_write_passes_whole_or_cut(content: bytes) -> None:
    read_radiograph(content, Reading(Preprocessing(32), 1))
    for end in range(0, len(content), 7):
        check_structure(content[:end])


def test_a_large_progressive_jpeg_passes() -> None:
    """64 megapixels may have the ten scans that encoders write."""
    content = bytearray(encoded("JPEG", "RGB", progressive=True))
    at = content.index(b"\xff\xc2") + 5
    content[at : at + 4] = (8000).to_bytes(2, "big") * 2
    check_structure(bytes(content))


def test_fragments_of_four_kilobytes_pass_and_empty_ones_do_not() -> None:
    fragment = b"\xfe\xff\x00\xe0\x00\x10\x00\x00" + b"\0" * 4096
    check_fragments(b"\xfe\xff\x00\xe0\0\0\0\0" + fragment * 4000)
    with pytest.raises(StructureError, match="fragments"):
        check_fragments(b"\xfe\xff\x00\xe0\0\0\0\0" * 4000)


def test_a_dicom_of_many_elements_and_a_large_table_passes() -> None:
    values = np.arange(64 * 48).reshape(64, 48).astype(np.uint16)
    table = Dataset()
    table.LUTDescriptor = [0, 0, 16]  # 65,536 entries
    table.LUTData = np.arange(65536, dtype=np.uint16).tobytes()
    made = dicom(values, VOILUTSequence=Sequence([table]))
    for number in range(3000):
        made.add_new(0x00291000 + number, "LO", "x")
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    pixels = read_radiograph(buffer.getvalue(), Reading(Preprocessing(32), 1)).image
    assert pixels.shape == (64, 48)
