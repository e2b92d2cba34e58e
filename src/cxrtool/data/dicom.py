"""Decode DICOM files to grey pixels with pydicom.

The steps are those of the standard: stored values, rescale (modality), window or look-up table (VOI), and last the
inversion of MONOCHROME1. A file that would need a guess is refused. Tags about people are not read.
"""

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.decoded import Decoded, ImageWarning
from cxrtool.data.frames import frame_header, unpacks_to
from cxrtool.data.structure import CountedFile, check_elements, check_fragments, check_frame
from cxrtool.errors import RequestError

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_MODALITIES = ("CR", "DX", "RG")
_LATERAL_VIEWS = ("LL", "RL", "LATERAL", "LLD", "RLD")
_PLUGINS = ("pydicom", "pylibjpeg", "pillow")
_CHEST = ("CHEST", "THORAX", "LUNG")


class DicomError(Exception):
    """A DICOM cannot be read.

    Args:
        reason: what is wrong, to be written after the name of the file.
        advice: what to do about it.
        code: key of `cxrtool.errors.CODES`.
    """

    def __init__(self, reason: str, advice: str = "Check the file.", code: str = "image-unreadable") -> None:
        super().__init__(reason)
        self.reason, self.advice, self.code = reason, advice, code


@dataclass(frozen=True)
class Window:
    """The range of values that is shown as black to white.

    Attributes:
        number: number of the window or look-up table in the file, from 1; ignored if centre and width are given.
        centre: centre in rescaled values.
        width: width in rescaled values, at least 1.
    """

    number: int = 1
    centre: float | None = None
    width: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``2`` (the file's second window) or ``600/1200`` (centre and width).

        Raises:
            RequestError: `text` is neither.
        """
        if re.fullmatch(r"[1-9]\d{0,2}", text):
            return cls(int(text))
        centre_width = re.fullmatch(r"(-?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", text)
        if centre_width is None or float(centre_width[2]) < 1:
            raise RequestError(
                f"window {text!r} is invalid", "Write 2 for the file's second window, or 600/1200 for centre and width."
            )
        return cls(1, float(centre_width[1]), float(centre_width[2]))


def is_dicom(start: bytes) -> bool:
    """Return whether a file that starts with these bytes is a DICOM (PS3.10: 128 bytes of preamble, then ``DICM``)."""
    return start[128:132] == b"DICM"


def decode_dicom(content: bytes, max_pixels: int, window: Window | None = None) -> Decoded:
    """Decode the radiograph in a DICOM file.

    Args:
        content: content of the whole file.
        max_pixels: an image with more pixels in its header is refused.
        window: window to use. Default: the file's first window or look-up table. A file without either is scaled from
            the range found, or left unchanged if it has 8 bits.

    Raises:
        DicomError: the file has no image or several frames, its sizes contradict each other, its codec is not
            installed, its transfer syntax is deflated, or its rescale or window is invalid.
        StructureError: the file has too many elements, items, fragments or scans.
    """
    from pydicom import dcmread

    _silence_warnings()
    # Before dcmread, which inflates the whole file even if only tags are read.
    if _DEFLATED in _transfer_syntaxes(content):
        raise _deflated_error()
    file = CountedFile(content)
    dataset = dcmread(file)
    check_elements(dataset, file.reads)
    return decode_dataset(dataset, max_pixels, window)


def decode_dataset(dataset: "Dataset", max_pixels: int, window: Window | None = None) -> Decoded:
    """Decode the radiograph in a DICOM data set, which was read from a file or created in memory.

    Args:
        dataset: data set with file meta, whose transfer syntax says how the pixel data are encoded. Not changed.
        max_pixels: an image with more pixels is refused.
        window: window to use, see `decode_dicom`.

    Raises:
        DicomError: same as `decode_dicom`.
    """
    _silence_warnings()
    _check_shape(dataset, max_pixels)
    warned = _tag_warnings(dataset)
    values = _stored_values(dataset)
    if values.ndim == 3:
        warned.append(ImageWarning("colour", "a colour DICOM, converted to grey (luma)"))
        values = np.round(values.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32))
    grey = _apply_voi(_rescale(values, dataset), dataset, window or Window())
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        grey = 255 - grey
    height, width = grey.shape
    return Decoded(np.round(grey).astype(np.uint8), (height, width), tuple(warned))


def _silence_warnings() -> None:
    """Silence pydicom's warnings, because they quote tags, which may be about a person."""
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


def _deflated_error() -> DicomError:
    return DicomError("is a deflated DICOM, which may unpack to any size", "Save it uncompressed, e.g. with dcmconv.")


def _transfer_syntaxes(content: bytes) -> set[str]:
    """Return every transfer syntax in the file meta (group 2, always explicit VR little endian).

    If the element occurs twice, pydicom uses the last one; so all of them are checked.
    """
    from pydicom.filereader import data_element_generator

    file = CountedFile(content)
    file.seek(132)
    found: set[str] = set()
    for element in data_element_generator(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2):
        if int(element.tag) == 0x00020010 and isinstance(element.value, bytes):
            found |= {uid.strip("\0 ") for uid in element.value.decode("ascii", errors="replace").split("\\")}
    return found


def _check_shape(dataset: "Dataset", max_pixels: int) -> None:
    if "PixelData" not in dataset:
        raise DicomError(
            "has no pixel data", "Choose a DICOM with an image; this one may be a report or another document."
        )
    if int(dataset.get("NumberOfFrames", 1) or 1) != 1:
        raise DicomError(
            "has several frames (multi-frame)", "Save the radiograph as a single-frame DICOM.", "image-wrong-shape"
        )
    height, width = int(dataset.get("Rows", 0)), int(dataset.get("Columns", 0))
    if height < 1 or width < 1:
        raise DicomError("does not state its number of rows or columns")
    if height * width > max_pixels:
        raise DicomError(f"has {width} x {height} pixels; at most {max_pixels:,} are allowed", code="image-too-large")
    meta = getattr(dataset, "file_meta", None)  # a data set created in memory may have none
    syntax = None if meta is None else meta.get("TransferSyntaxUID")
    if syntax is None:
        raise DicomError("does not state its transfer syntax")
    if syntax == _DEFLATED:
        raise _deflated_error()
    if syntax.is_compressed:
        _choose_plugin(dataset)
        _check_frame(dataset, height, width)
        return
    depth = int(dataset.get("BitsAllocated", 0))
    expected = height * width * int(dataset.get("SamplesPerPixel", 1)) * depth // 8
    size = len(dataset.PixelData)
    if not expected <= size <= expected + 1:
        raise DicomError(
            f"states {width} x {height} pixels of {depth} bits, but holds {size:,} bytes, not {expected:,}"
        )


def _choose_plugin(dataset: "Dataset") -> str:
    """Return the pydicom plugin to decode with; never gdcm, which crashes the process on some damaged streams."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        available = get_decoder(syntax).available_plugins
    except NotImplementedError:
        available = ()
    plugin = next((name for name in _PLUGINS if name in available), "")
    if syntax.is_compressed and not plugin:
        reason = f"needs a codec that is not installed ({syntax.name})"
        raise DicomError(reason, "Run pip install 'cxrtool[dicom]', or save it uncompressed.")
    return plugin


def _check_frame(dataset: "Dataset", height: int, width: int) -> None:
    """Check that the header of the compressed frame states the same size, because the decoder allocates by it."""
    from pydicom.encaps import generate_frames
    from pydicom.uid import RLELossless

    check_fragments(dataset.PixelData)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1), b"")
    check_frame(frame)
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        if not unpacks_to(frame, height * width):
            raise DicomError(f"states {width} x {height} pixels, but its run lengths unpack to another size")
        return
    header = frame_header(frame)
    if header is None:
        raise DicomError("holds a frame that is neither JPEG nor JPEG 2000")
    if (header.width, header.height) != (width, height):
        raise DicomError(f"states {width} x {height} pixels, but its frame has {header.width} x {header.height}")
    if header.components != int(dataset.get("SamplesPerPixel", 1)):
        samples = dataset.get("SamplesPerPixel", 1)
        raise DicomError(f"states {samples} samples per pixel, but its frame has {header.components}")


def _tag_warnings(dataset: "Dataset") -> list[ImageWarning]:
    """Return warnings about some tags, without quoting them."""

    def tag(name: str) -> str:
        return str(dataset.get(name, "") or "").strip().upper()

    rules = [
        (
            tag("Modality") not in ("", *_MODALITIES),
            ImageWarning("modality", "the modality of the DICOM is not that of a radiograph (CR, DX, RG)"),
        ),
        (
            tag("ViewPosition") in _LATERAL_VIEWS,
            ImageWarning("lateral", "the DICOM states a lateral view, but the model is for frontal views"),
        ),
        (
            tag("BodyPartExamined") != "" and not any(part in tag("BodyPartExamined") for part in _CHEST),
            ImageWarning("body-part", "the body part in the DICOM is not the chest"),
        ),
        (
            tag("BurnedInAnnotation") == "YES",
            ImageWarning(
                "burnt-in", "text, perhaps a name, is burnt into the image and shows in every picture drawn from it"
            ),
        ),
    ]
    return [warning for met, warning in rules if met]


def _stored_values(dataset: "Dataset") -> NDArray[Any]:
    """Return the stored values, [H, W], or [H, W, 3] RGB for a colour image."""
    from pydicom.pixels.utils import pixel_array

    values = np.asarray(pixel_array(dataset, decoding_plugin=_choose_plugin(dataset)))
    if values.shape[:2] != (int(dataset.Rows), int(dataset.Columns)) or values.ndim not in (2, 3):
        raise DicomError("has pixels in a shape that is not that of one radiograph")
    return values


def _rescale(values: NDArray[Any], dataset: "Dataset") -> NDArray[np.float32]:
    """Apply the modality look-up table, or slope and intercept (PS3.3 C.11.1)."""
    from pydicom.pixels.processing import apply_modality_lut

    slope = dataset.get("RescaleSlope")
    if slope is not None and (float(slope) == 0 or not np.isfinite(float(slope))):
        raise DicomError(f"has a rescale slope of {float(slope):g}")
    return np.asarray(apply_modality_lut(values, dataset), dtype=np.float32)


def _apply_voi(values: NDArray[np.float32], dataset: "Dataset", window: Window) -> NDArray[np.float32]:
    """Map values to [0, 255], by look-up table or window, unchanged if they have 8 bits, else from the range found."""
    if window.centre is not None and window.width is not None:
        return _apply_window(values, window.centre, window.width, "LINEAR")
    tables = dataset.get("VOILUTSequence")
    if tables:
        return _apply_table(values, dataset, window.number)
    centres, widths = _numbers(dataset.get("WindowCenter")), _numbers(dataset.get("WindowWidth"))
    if centres and widths:
        if window.number > min(len(centres), len(widths)):
            count = min(len(centres), len(widths))
            raise DicomError(f"has no window {window.number}, only {count}", "Choose another with --window.")
        centre, width = centres[window.number - 1], widths[window.number - 1]
        return _apply_window(values, centre, width, str(dataset.get("VOILUTFunction", "LINEAR") or "LINEAR").upper())
    if int(dataset.get("BitsStored", 16)) == 8 and values.min() >= 0 and values.max() <= 255:
        return values
    return _scale_range(values, dataset)


def _numbers(value: object) -> list[float]:
    if value is None or value == "":
        return []
    try:
        return [float(str(value))]
    except ValueError:
        return [float(str(item)) for item in value]  # type: ignore[attr-defined]


def _apply_window(values: NDArray[np.float32], centre: float, width: float, function: str) -> NDArray[np.float32]:
    """Map a window to [0, 255] (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    min_width = 1.0 if function == "LINEAR" else 0.0
    if not np.isfinite(centre) or not np.isfinite(width) or width < min_width or width == 0:
        raise DicomError(f"has a window of width {width:g}", "Choose another with --window.")
    if function == "SIGMOID":
        share = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -80, 80)))
    elif function == "LINEAR_EXACT":
        share = (values - centre) / width + 0.5
    else:
        share = (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
    return _to_grey(share)


def _apply_table(values: NDArray[np.float32], dataset: "Dataset", number: int) -> NDArray[np.float32]:
    from pydicom.pixels.processing import apply_voi

    tables = dataset.VOILUTSequence
    if number > len(tables):
        raise DicomError(f"has no look-up table {number}, only {len(tables)}", "Choose another with --window.")
    looked_up = np.asarray(apply_voi(values.astype(np.int64), dataset, index=number - 1), dtype=np.float32)
    highest = float(2 ** int(tables[number - 1].LUTDescriptor[2]) - 1)
    return _to_grey(looked_up / np.float32(highest))


def _scale_range(values: NDArray[np.float32], dataset: "Dataset") -> NDArray[np.float32]:
    padding = dataset.get("PixelPaddingValue")
    inside = values if padding is None else values[values != np.float32(padding)]
    low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)
    if high <= low:
        return np.zeros_like(values)
    return _to_grey((values - np.float32(low)) / np.float32(high - low))


def _to_grey(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale [0, 1] to [0, 255] and clip values outside."""
    grey: NDArray[np.float32] = np.clip(share, 0, 1) * np.float32(255)
    return grey
