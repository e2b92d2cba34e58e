"""DICOM files as they occur, which were once shown wrongly or refused, against values by hand."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from pydicom import Dataset, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from bad_inputs import RAMP, dicom, dicom_bytes, encoded, picture, without
from cxrtool.data.decoded import Decoded
from cxrtool.data.decoding import decode_bytes
from cxrtool.data.dicom_grey import Window
from cxrtool.errors import ImageError
from cxrtool.settings import DEFAULT_LIMITS

PLAIN = RAMP * 255.0 / 3071


def decoded(source: FileDataset | bytes, window: Window | None = None) -> Decoded:
    content = source if isinstance(source, bytes) else dicom_bytes(source)
    return decode_bytes("FILE", content, 0, window, DEFAULT_LIMITS)


def shows(source: FileDataset | bytes, expected: ArrayLike, codes: tuple[str, ...] = ()) -> None:
    found = decoded(source)
    np.testing.assert_allclose(found.pixels.astype(float), expected, atol=1)
    assert tuple(warning.code for warning in found.warnings) == codes


def refuses(source: FileDataset | bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        decoded(source)
    assert "Error" not in caught.value.message, "a Python class is named"


def raw(dataset: FileDataset, tag: int, vr: str, value: bytes) -> None:
    dataset[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)


def item(entries: NDArray[Any], first: int, bits: int, vr: str = "US") -> Dataset:
    table = Dataset()
    table.add_new(0x00283002, vr, [len(entries), first, bits])
    table.add_new(0x00283006, "OW", entries.tobytes())
    return table


def test_empty_tags_count_as_absent() -> None:
    dataset = dicom()
    for tag, vr in ((0x00281053, "DS"), (0x00281052, "DS"), (0x00281050, "DS"), (0x00280120, "US"), (0x00280008, "IS")):
        dataset.add_new(tag, vr, None)
    shows(dataset, PLAIN)
    for keyword in ("ModalityLUTSequence", "VOILUTSequence"):
        empty = Dataset()
        empty.add_new(0x00283002, "US", None)
        empty.add_new(0x00283006, "US", None)
        for items in ([empty], [Dataset()], []):
            shows(dicom(**{keyword: Sequence(items)}), PLAIN)


@pytest.mark.parametrize(
    ("centres", "widths"), [(b"1500\\9\\ ", b"1000\\8\\ "), (b"1500\\ ", b"1000"), (b"\\1500 ", b"\\1000 ")]
)
def test_an_empty_window_among_others_is_skipped(centres: bytes, widths: bytes) -> None:
    dataset = dicom()
    raw(dataset, 0x00281050, "DS", centres)
    raw(dataset, 0x00281051, "DS", widths)
    shows(dataset, np.clip((RAMP - 1499.5) / 999 + 0.5, 0, 1) * 255)


def test_one_of_slope_and_intercept_is_enough() -> None:
    window = {"WindowCenter": 0, "WindowWidth": 2000}
    shows(dicom(RescaleIntercept=-1000, **window), np.clip((RAMP - 999.5) / 1999 + 0.5, 0, 1) * 255)
    shows(dicom(RescaleSlope=0.5, **window), np.clip((RAMP / 2 + 0.5) / 1999 + 0.5, 0, 1) * 255)


@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
@pytest.mark.parametrize("value", [b"NaN ", b"inf ", b"secret"])
def test_a_number_that_is_none_is_refused_and_not_quoted(keyword: str, value: bytes) -> None:
    dataset = dicom(RescaleSlope=1, RescaleIntercept=0, WindowCenter=1500, WindowWidth=1000)
    raw(dataset, int(dataset.data_element(keyword).tag), "DS", value)
    with pytest.raises(ImageError, match=rf"{keyword}|window") as caught:
        decoded(dataset)
    assert "secret" not in caught.value.message


def test_a_window_of_width_1_is_a_step() -> None:
    shows(dicom(WindowCenter=1500.5, WindowWidth=1), np.where(RAMP > 1500, 255, 0))


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_the_first_value_of_a_table_may_be_negative_in_implicit_vr(vr: str) -> None:
    """Implicit VR does not say that it is signed: -1000 is read as 64536."""
    dataset = dicom(RescaleSlope=1, RescaleIntercept=-1000)
    first = -1000 if vr == "SS" else 64536
    dataset.VOILUTSequence = Sequence([item(np.arange(4096, dtype="<u2") * 16, first, 16, vr)])
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    shows(dataset, RAMP * 16 / 65535 * 255)


def test_the_first_value_of_a_table_may_be_above_32767() -> None:
    values = (RAMP + 40_000).astype(np.uint16)
    dataset = dicom(values, BitsStored=16, HighBit=15)
    dataset.VOILUTSequence = Sequence([item(np.arange(4096, dtype="<u2") * 16, 40_000, 16)])
    shows(dataset, RAMP * 16 / 65535 * 255)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_table_of_bytes_has_more_entries_than_256(bits: int) -> None:
    """With one entry a word or two; pydicom wraps the index of the first at 256, and refuses the second."""
    entries = (np.arange(4096) // 16).astype(np.uint16)
    for data in (entries.astype("<u2"), entries.astype(np.uint8)):
        table = item(data, 0, bits)
        table.LUTDescriptor = [4096, 0, bits]
        shows(dicom(VOILUTSequence=Sequence([table])), RAMP // 16)


def test_a_table_that_states_the_size_of_its_cells_is_scaled_by_its_maximum() -> None:
    shows(dicom(VOILUTSequence=Sequence([item(np.arange(4096, dtype="<u2"), 0, 16)])), RAMP / 4095 * 255)
    shows(dicom(VOILUTSequence=Sequence([item(np.arange(4096, dtype="<u2"), 0, 8)])), RAMP / 4095 * 255)


def test_values_beyond_a_table_get_its_ends() -> None:
    table = item(np.arange(1000, dtype="<u2"), 500, 10)
    shows(dicom(VOILUTSequence=Sequence([table])), np.clip(RAMP.astype(int) - 500, 0, 999) / 1023 * 255)


def test_a_table_as_numbers_and_in_big_endian() -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.add_new(0x00283006, "US", np.arange(4096)[::-1].tolist())
    shows(dicom(VOILUTSequence=Sequence([table])), (4095.0 - RAMP) / 4095 * 255)
    dataset = dicom(VOILUTSequence=Sequence([item(np.arange(4096).astype(">u2"), 0, 12)]))
    dataset.PixelData = RAMP.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    shows(buffer.getvalue(), RAMP / 4095 * 255)


def test_a_modality_table_of_signed_pixels_and_of_12_bits() -> None:
    values = (RAMP.astype(np.int32) - 1500).astype(np.int16)
    table = item(np.arange(4095, -1, -1).astype("<u2"), -1500, 12, "SS")
    dataset = dicom(values, PixelRepresentation=1, BitsStored=16, HighBit=15, ModalityLUTSequence=Sequence([table]))
    shows(dataset, 255 - PLAIN)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.__delattr__("LUTData"), "look-up table without data"),
        (lambda table: table.__delattr__("LUTDescriptor"), "without a descriptor"),
        (lambda table: setattr(table, "LUTData", b"\0\0" * 99), "has 99 entries, but states 4,096"),
    ],
)
def test_a_table_that_lacks_something_is_refused(change: Any, words: str) -> None:
    table = item(np.arange(4096, dtype="<u2"), 0, 12)
    change(table)
    refuses(dicom(VOILUTSequence=Sequence([table])), words)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 0), (0.5, -20), (2, 0), (1, -50), (0.003, 0)])
def test_eight_bits_are_shown_whole_whatever_the_rescale(slope: float, intercept: float) -> None:
    values = (RAMP % 200).astype(np.uint8)
    shows(dicom(values, RescaleSlope=slope, RescaleIntercept=intercept), values)
    shows(dicom(values, RescaleSlope=-slope, RescaleIntercept=intercept), 255 - values)


def test_padding_is_compared_before_the_rescale_and_may_be_a_range() -> None:
    values = RAMP.astype(np.uint16) // 2 + 1000
    values[:4] = np.arange(4)[:, None]
    dataset = dicom(values, RescaleSlope=2, RescaleIntercept=-1024, PixelPaddingValue=0)
    dataset.PixelPaddingRangeLimit = 3
    inside = values[4:].astype(float)
    expected = (inside - inside.min()) / (inside.max() - inside.min()) * 255
    np.testing.assert_allclose(decoded(dataset).pixels[4:], expected, atol=1)
    dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = 3, 0
    np.testing.assert_allclose(decoded(dataset).pixels[4:], expected, atol=1)


def test_padding_whose_sign_is_lost() -> None:
    values = RAMP.astype(np.int16) - 1000
    values[0] = -2000
    dataset = dicom(values, PixelRepresentation=1, BitsStored=16, HighBit=15)
    dataset.add_new(0x00280120, "US", 65536 - 2000)
    assert decoded(dataset).pixels[1, 0] == 0


def test_bits_above_the_lowest_are_taken_at_their_place() -> None:
    shows(dicom((RAMP << 4 | 0xF).astype(np.uint16), HighBit=15), PLAIN)
    shows(without("HighBit"), PLAIN)
    dataset = dicom((RAMP << 4).astype(np.uint16), HighBit=15)
    dataset.compress(RLELossless)
    shows(dataset, PLAIN)
    narrow = dicom()
    narrow.compress(JPEG2000Lossless)
    narrow.HighBit = 15  # but its frame has no more than 12
    shows(narrow, PLAIN)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "codes"),
    [
        ("MONOCHROME1", "INVERSE", True, ()),
        ("MONOCHROME2", "IDENTITY", False, ()),
        ("MONOCHROME1", "IDENTITY", False, ("polarity",)),
        ("MONOCHROME2", "INVERSE", True, ("polarity",)),
    ],
)
def test_the_presentation_shape(photometric: str, shape: str, inverted: bool, codes: tuple[str, ...]) -> None:
    dataset = dicom(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    shows(dataset, 255 - PLAIN if inverted else PLAIN, codes)


def palette(bits: int, entries: NDArray[Any]) -> FileDataset:
    values = (RAMP % 200).astype(np.uint8)
    dataset = dicom(values, PhotometricInterpretation="PALETTE COLOR")
    for colour in range(3):
        dataset.add_new(0x00281101 + colour, "US", [256, 0, bits])
        dataset.add_new(0x00281201 + colour, "OW", entries.tobytes())
    return dataset


def test_a_palette_is_looked_up() -> None:
    values, levels = (RAMP % 200).astype(int), 255 - np.arange(256)
    shows(palette(16, (levels * 257).astype("<u2")), 255 - values, ("converted",))
    shows(palette(16, levels.astype("<u2")), 255 - values, ("converted",))
    shows(palette(8, levels.astype(np.uint8)), 255 - values, ("converted",))
    segmented = palette(16, levels.astype("<u2"))
    segmented.SegmentedRedPaletteColorLookupTableData = b"\0\0"
    refuses(segmented, "segmented palette")


def test_colour_has_no_window_and_no_rescale() -> None:
    grey = (RAMP % 256).astype(np.uint8)
    tags = {"WindowCenter": 2048, "WindowWidth": 4096, "RescaleSlope": 3, "RescaleIntercept": -7}
    colour = np.repeat(grey[..., None], 3, axis=2)
    shows(dicom(colour, **tags), grey, ("colour",))
    planar = dicom(colour, PlanarConfiguration=1)
    planar.PixelData = colour.transpose(2, 0, 1).tobytes()
    shows(planar, grey, ("colour",))
    del (unstated := dicom(colour)).PlanarConfiguration
    shows(unstated, grey, ("colour",))


def test_ybr_with_half_the_chroma() -> None:
    grey = (RAMP % 256).astype(np.uint8)
    dataset = dicom(np.repeat(grey[..., None], 3, axis=2), PhotometricInterpretation="YBR_FULL_422")
    pairs = grey.reshape(-1, 2)
    neutral = np.full_like(pairs, 128)
    dataset.PixelData = np.concatenate([pairs, neutral], axis=1).tobytes()
    shows(dataset, grey, ("colour",))


def test_bytes_behind_the_pixels() -> None:
    for filler in (b"\0", b"\xff"):
        dataset = dicom()
        dataset.PixelData += filler * 10_000
        shows(dataset, PLAIN)
    dataset = dicom()
    dataset.PixelData += bytes(range(128))
    shows(dataset, PLAIN, ("excess",))
    dataset.PixelData += bytes(range(256)) * 9
    refuses(dataset, "states 48 x 64 pixels of 16 bits")


def test_a_file_without_its_preamble() -> None:
    dataset = dicom(PatientID="secret")
    whole = dicom_bytes(dataset)
    shows(whole[132:], PLAIN)
    shows(whole[128:], PLAIN)
    for implicit in (True, False):
        buffer = io.BytesIO()
        bare = Dataset()
        bare.update({element.tag: element for element in dicom()})
        bare.save_as(buffer, implicit_vr=implicit, little_endian=True)
        shows(buffer.getvalue(), PLAIN)


def test_a_cut_file_says_so() -> None:
    dataset = dicom()
    dataset.compress(RLELossless)
    content = dicom_bytes(dataset)
    refuses(content[: len(content) * 4 // 5], "is cut off")
    refuses(content[: content.index(b"\xe0\x7f\x10\x00")], "no pixel data, although it states their size")


@pytest.mark.parametrize("frame", [encoded("JPEG", quality=95), encoded("JPEG", quality=95) + b"\0" * 64])
def test_a_sequential_jpeg_whose_scan_states_the_end_0(frame: bytes) -> None:
    start = frame.index(b"\xff\xda")
    changed = bytearray(frame)
    changed[start + 2 + int.from_bytes(frame[start + 2 : start + 4], "big") - 2] = 0
    dataset = dicom(picture(), WindowCenter=128, WindowWidth=256)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([bytes(changed)])
    dataset["PixelData"].is_undefined_length = True
    np.testing.assert_allclose(decoded(dataset).pixels.astype(float), picture(), atol=6)
    np.testing.assert_allclose(decoded(bytes(changed)).pixels.astype(float), picture(), atol=6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: without("PhotometricInterpretation"), "black or white"),
        (lambda: without("BitsAllocated"), "BitsAllocated"),
        (lambda: without("BitsStored"), "BitsStored"),
        (lambda: without("PixelRepresentation"), "PixelRepresentation"),
        (lambda: dicom(BitsStored=20), "20 bits stored in 16"),
        (lambda: dicom(PhotometricInterpretation="HSV"), "photometric"),
        (lambda: dicom(SamplesPerPixel=3), "contradicts"),
    ],
)
def test_what_is_missing_is_named(make: Any, words: str) -> None:
    refuses(make(), words)


def test_a_damaged_frame_names_no_class() -> None:
    dataset = dicom()
    dataset.compress(JPEG2000Lossless)
    content = bytearray(dicom_bytes(dataset))
    place = content.index(b"\xff\x93")
    content[place - 60 : place] = b"\xff" * 60
    refuses(bytes(content), "pixel data are damaged|frame")


def view(code: str, meaning: str) -> Sequence:
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = code, "SCT", meaning
    return Sequence([coded])


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"ViewPosition": "LAT"}, "lateral"),
        ({"ViewPosition": "", "ViewCodeSequence": view("399173006", "")}, "lateral"),
        ({"ViewPosition": "", "ViewCodeSequence": view("R-10232", "")}, "lateral"),
        ({"ViewPosition": "", "ViewCodeSequence": view("X", "Left lateral")}, "lateral"),
        ({"ViewCodeSequence": view("X", "PA, lateral decubitus")}, None),
        ({"ViewCodeSequence": view("399348003", "antero-posterior")}, None),
        ({"PatientOrientation": ["A", "F"]}, "lateral"),
        ({"PatientOrientation": ["P", "F"]}, "lateral"),
        ({"PatientOrientation": ["L", "F"]}, None),
        ({"PatientOrientation": ["LP", "F"]}, None),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for-processing"),
        ({"PresentationIntentType": "FOR PRESENTATION"}, None),
    ],
)
def test_tags_that_are_warned_of(tags: dict[str, object], code: str | None) -> None:
    assert [warning.code for warning in decoded(dicom(**tags)).warnings] == ([code] if code else [])


def test_a_given_window_is_used_instead_of_a_table(tmp_path: Path) -> None:
    dataset = dicom(VOILUTSequence=Sequence([item(np.zeros(4096, dtype="<u2"), 0, 12)]))
    found = decoded(dataset, Window(1, 1500.0, 1000.0)).pixels
    np.testing.assert_allclose(found, np.clip((RAMP - 1499.5) / 999 + 0.5, 0, 1) * 255, atol=1)
