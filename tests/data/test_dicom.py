"""DICOM files written by pydicom, against values computed by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from bad_inputs import BAD_DICOMS, RAMP, dicom
from cxrtool.data.dicom_grey import Window
from cxrtool.data.images import list_images, read
from cxrtool.errors import ImageError, RequestError


def saved(path: Path, dataset: FileDataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def grey(tmp_path: Path, dataset: FileDataset, window: str | None = None) -> NDArray[np.float64]:
    chosen = None if window is None else Window.parse(window)
    return read(saved(tmp_path / "image.dcm", dataset), window=chosen).pixels.astype(np.float64)


def test_without_a_window_the_range_found_is_used(tmp_path: Path) -> None:
    np.testing.assert_allclose(grey(tmp_path, dicom()), RAMP * 255.0 / 3071, atol=0.51)


def test_eight_bits_are_unchanged(tmp_path: Path) -> None:
    values = (RAMP % 200).astype(np.uint8)
    np.testing.assert_array_equal(grey(tmp_path, dicom(values)), values)


def test_monochrome1_is_inverted_exactly_once(tmp_path: Path) -> None:
    plain, turned = (grey(tmp_path, dicom(PhotometricInterpretation=f"MONOCHROME{kind}")) for kind in (2, 1))
    np.testing.assert_array_equal(turned, 255 - plain)
    assert plain[0, 0] == 0
    assert turned[0, 0] == 255


def test_rescale_and_window_follow_the_formula_of_the_standard(tmp_path: Path) -> None:
    dataset = dicom(RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=2000)
    values = RAMP * 2.0 - 1000
    expected = np.clip((values - 999.5) / 1999 + 0.5, 0, 1) * 255  # PS3.3 C.11.2.1.2.1
    np.testing.assert_allclose(grey(tmp_path, dataset), expected, atol=0.51)


@pytest.mark.parametrize(
    ("function", "share"),
    [
        ("LINEAR_EXACT", lambda values: np.clip((values - 1500) / 1000 + 0.5, 0, 1)),
        ("SIGMOID", lambda values: 1 / (1 + np.exp(-4 * (values - 1500) / 1000))),
    ],
)
def test_linear_exact_and_sigmoid_windows(tmp_path: Path, function: str, share: Any) -> None:
    dataset = dicom(WindowCenter=1500, WindowWidth=1000, VOILUTFunction=function)
    np.testing.assert_allclose(grey(tmp_path, dataset), share(RAMP.astype(float)) * 255, atol=0.51)


def test_of_several_windows_the_first_or_the_requested_one_is_used(tmp_path: Path) -> None:
    dataset = dicom(WindowCenter=[500, 2500], WindowWidth=[1000, 1000])
    first, second, own = (grey(tmp_path, dataset, window) for window in (None, "2", "500/1000"))
    assert first[RAMP >= 1000].min() == 255
    assert second[RAMP < 2000].max() == 0
    np.testing.assert_array_equal(own, first)
    with pytest.raises(ImageError, match="no window 3, only 2"):
        grey(tmp_path, dataset, "3")


@pytest.mark.parametrize("text", ["0", "soft", "1/0", "100/", "-1", "5/0.5"])
def test_an_invalid_window_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="window"):
        Window.parse(text)


def test_a_look_up_table_is_applied(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (65535 - np.arange(4096) * 16).astype(np.uint16).tobytes()
    dataset = dicom(VOILUTSequence=Sequence([table]))
    np.testing.assert_allclose(grey(tmp_path, dataset), (65535 - RAMP * 16.0) / 65535 * 255, atol=0.51)


def test_signed_values_and_padding(tmp_path: Path) -> None:
    values = RAMP.astype(np.int16) - 1500
    values[0] = -2000
    dataset = dicom(values, PixelRepresentation=1, PixelPaddingValue=-2000)
    dataset.BitsStored, dataset.HighBit = 16, 15
    found = grey(tmp_path, dataset)
    inside = values[1:].astype(float)
    expected = (inside - inside.min()) / (inside.max() - inside.min()) * 255
    np.testing.assert_allclose(found[1:], expected, atol=0.51)
    assert found[0].max() == 0


def test_compressed_syntaxes_give_the_same_pixels(tmp_path: Path) -> None:
    plain = grey(tmp_path, dicom())
    for syntax in (RLELossless, JPEG2000Lossless):
        dataset = dicom()
        try:
            dataset.compress(syntax)
        except (RuntimeError, NotImplementedError):
            pytest.skip("the extra dicom is not installed")
        np.testing.assert_array_equal(grey(tmp_path, dataset), plain)


def test_a_dicom_is_recognised_by_content_without_a_suffix(tmp_path: Path) -> None:
    for name in ("IM000001", "1.2.840.113619.2", "image.jpg", "image.dcm"):
        saved(tmp_path / name, dicom())
        assert read(tmp_path / name).pixels.shape == RAMP.shape
    (tmp_path / "README").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    found = {path.name for path in list_images([tmp_path])}
    assert found == {"IM000001", "1.2.840.113619.2", "image.jpg", "image.dcm"}


@pytest.mark.parametrize("case", BAD_DICOMS)
def test_a_bad_dicom_raises_a_one_line_error(tmp_path: Path, case: str) -> None:
    make, words = BAD_DICOMS[case]
    path = saved(tmp_path / "image.dcm", make())
    with pytest.raises(ImageError, match=words) as caught:
        read(path)
    assert caught.value.message.startswith(str(path))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("share", range(1, 10))
def test_a_truncated_dicom_is_refused(tmp_path: Path, share: int) -> None:
    whole = saved(tmp_path / "whole.dcm", dicom()).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) * share // 10])
    with pytest.raises(ImageError):
        read(tmp_path / "cut.dcm")


def test_a_text_file_named_dcm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.dcm").write_text("not a DICOM at all " * 100)
    with pytest.raises(ImageError, match="not an image"):
        read(tmp_path / "image.dcm")


def test_a_missing_codec_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dicom()
    dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.106"  # JPEG XL: pydicom has no decoder
    path = saved(tmp_path / "image.dcm", dataset)
    with pytest.raises(ImageError, match="codec") as caught:
        read(path)
    assert "cxrtool[dicom-gpl]" in caught.value.advice


def test_a_deflated_file_is_refused_without_inflating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dicom()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = saved(tmp_path / "image.dcm", dataset)

    def inflated(*_: object) -> bytes:
        raise AssertionError("it was inflated")

    monkeypatch.setattr("zlib.decompress", inflated)
    with pytest.raises(ImageError, match="deflated"):
        read(path)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({}, None),
        ({"BurnedInAnnotation": "YES"}, "burnt-in"),
        ({"Modality": "CT"}, "modality"),
        ({"ViewPosition": "LL"}, "lateral"),
        ({"BodyPartExamined": "HAND"}, "body-part"),
    ],
)
def test_tags_give_warnings(tmp_path: Path, tags: dict[str, str], code: str | None) -> None:
    found = read(saved(tmp_path / "image.dcm", dicom(**tags))).warnings
    assert [warning.code for warning in found] == ([code] if code else [])


def test_colour_becomes_luma_with_a_warning(tmp_path: Path) -> None:
    values = np.zeros((64, 48, 3), dtype=np.uint8)
    values[..., 0] = 200
    decoded = read(saved(tmp_path / "image.dcm", dicom(values)))
    assert int(decoded.pixels[0, 0]) == round(0.299 * 200)
    assert "colour" in [warning.code for warning in decoded.warnings]
