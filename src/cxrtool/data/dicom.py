"""DICOM files as grey pixels, by pydicom.

The standard's own steps in its order: stored values, rescale (modality), window or look-up table (VOI), and at last
MONOCHROME1 turned round. Everything that would be guessed is refused; tags about people are not read.
"""

import io
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.decoded import Decoded, ImageWarning
from cxrtool.data.frames import frame_header, unpacks_to
from cxrtool.errors import RequestError

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_MODALITIES = ("CR", "DX", "RG")
_LATERAL_VIEWS = ("LL", "RL", "LATERAL", "LLD", "RLD")
_PLUGINS = ("pydicom", "pylibjpeg", "pillow")
_CHEST = ("CHEST", "THORAX", "LUNG")


class DicomError(Exception):
    """Why a DICOM cannot be read, in words for people.

    Args:
        reason: what is wrong.
        advice: what to do.
        code: one of `cxrtool.errors.CODES`.
    """

    def __init__(self, reason: str, advice: str = "Check the file.", code: str = "image-unreadable") -> None:
        super().__init__(reason)
        self.reason, self.advice, self.code = reason, advice, code


@dataclass(frozen=True)
class Window:
    """Which grey values are shown.

    Attributes:
        number: of the file's windows or look-up tables, from 1; not used where centre and width are given.
        centre: in the file's rescaled values.
        width: likewise, at least 1.
    """

    number: int = 1
    centre: float | None = None
    width: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``2`` (the file's second window) or ``600/1200`` (centre and width).

        Raises:
            RequestError: it is neither.
        """
        if re.fullmatch(r"[1-9]\d{0,2}", text):
            return cls(int(text))
        given = re.fullmatch(r"(-?\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", text)
        if given is None or float(given[2]) < 1:
            raise RequestError(
                f"window {text!r} cannot be read", "Write 2 for the file's second, or 600/1200 for centre and width."
            )
        return cls(1, float(given[1]), float(given[2]))


def is_dicom(start: bytes) -> bool:
    """Whether a file that starts so is a DICOM (PS3.10: 128 bytes of preamble, then ``DICM``)."""
    return start[128:132] == b"DICM"


def decode_dicom(content: bytes, most_pixels: int, window: Window | None = None) -> Decoded:
    """The radiograph in a DICOM file.

    Args:
        content: the whole file.
        most_pixels: larger ones are refused by their header.
        window: the file's first window or look-up table unless given. A file without any is scaled by its real range,
            or left as it is where it has 8 bits.

    Raises:
        DicomError: there is no image, several frames, sizes that do not fit, a codec that is not here, a transfer
            syntax that may be a bomb, or a rescale or window that makes no sense.
    """
    from pydicom import dcmread

    _silence_warnings()
    # Before dcmread, which inflates that whole syntax even when only tags are asked for.
    if _DEFLATED in _transfer_syntaxes(content):
        raise _deflated()
    return decode_dataset(dcmread(io.BytesIO(content)), most_pixels, window)


def decode_dataset(dataset: "Dataset", most_pixels: int, window: Window | None = None) -> Decoded:
    """The radiograph in a DICOM data set, read or made in memory.

    Args:
        dataset: with its file meta, whose transfer syntax says how the pixel data are to be read; stays as it is.
        most_pixels: as in `decode_dicom`.
        window: likewise.

    Raises:
        DicomError: as `decode_dicom`.
    """
    _silence_warnings()
    _check_shape(dataset, most_pixels)
    told = _tag_warnings(dataset)
    values = _stored_values(dataset)
    if values.ndim == 3:
        told.append(ImageWarning("colour", "a colour DICOM; its luma was taken"))
        values = np.round(values.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32))
    grey = _shown(_rescaled(values, dataset), dataset, window or Window())
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        grey = 255 - grey
    height, width = grey.shape
    return Decoded(np.round(grey).astype(np.uint8), (height, width), tuple(told))


def _silence_warnings() -> None:
    """pydicom's warnings quote what stands in tags, and those may be about a person."""
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


def _deflated() -> DicomError:
    return DicomError("is a deflated DICOM, which may unpack to any size", "Save it uncompressed, e.g. with dcmconv.")


def _transfer_syntaxes(content: bytes) -> set[str]:
    """From the file meta alone (group 2, always explicit little endian); of one given twice pydicom takes the last."""
    from pydicom.filereader import data_element_generator

    file = io.BytesIO(content)
    file.seek(132)
    found: set[str] = set()
    for element in data_element_generator(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2):
        if int(element.tag) == 0x00020010 and isinstance(element.value, bytes):
            found |= {one.strip("\0 ") for one in element.value.decode("ascii", errors="replace").split("\\")}
    return found


def _check_shape(dataset: "Dataset", most_pixels: int) -> None:
    if "PixelData" not in dataset:
        raise DicomError("has no pixel data", "It may be a report or a structured document.")
    if int(dataset.get("NumberOfFrames", 1) or 1) != 1:
        raise DicomError("has several frames (multi-frame)", "Save the radiograph alone.", "image-wrong-shape")
    height, width = int(dataset.get("Rows", 0)), int(dataset.get("Columns", 0))
    if height < 1 or width < 1:
        raise DicomError("says no number of rows or columns")
    if height * width > most_pixels:
        raise DicomError(f"has {width} x {height} pixels; at most {most_pixels:,} are read", code="image-too-large")
    meta = getattr(dataset, "file_meta", None)  # a data set made in memory may lack it
    syntax = None if meta is None else meta.get("TransferSyntaxUID")
    if syntax is None:
        raise DicomError("names no transfer syntax")
    if syntax == _DEFLATED:
        raise _deflated()
    if syntax.is_compressed:
        _codec(dataset)
        _check_frame(dataset, height, width)
        return
    depth = int(dataset.get("BitsAllocated", 0))
    needed = height * width * int(dataset.get("SamplesPerPixel", 1)) * depth // 8
    if not needed <= len(dataset.PixelData) <= needed + 1:
        held = len(dataset.PixelData)
        raise DicomError(f"says {width} x {height} pixels of {depth} bits and holds {held:,} bytes, not {needed:,}")


def _codec(dataset: "Dataset") -> str:
    """The plugin to decode with; never gdcm, which ends the process over some damaged streams."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        there = get_decoder(syntax).available_plugins
    except NotImplementedError:
        there = ()
    chosen = next((plugin for plugin in _PLUGINS if plugin in there), "")
    if syntax.is_compressed and not chosen:
        raise DicomError(f"is compressed in a way that needs a codec ({syntax.name})", "pip install 'cxrtool[dicom]'")
    return chosen


def _check_frame(dataset: "Dataset", height: int, width: int) -> None:
    """The compressed frame's own header must say the same size: memory is taken by that one."""
    from pydicom.encaps import generate_frames
    from pydicom.uid import RLELossless

    frame = next(generate_frames(dataset.PixelData, number_of_frames=1), b"")
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        if not unpacks_to(frame, height * width):
            raise DicomError(f"says {width} x {height} pixels, and its run lengths are other than that")
        return
    header = frame_header(frame)
    if header is None:
        raise DicomError("holds a frame that is neither JPEG nor JPEG 2000")
    if (header.width, header.height) != (width, height):
        raise DicomError(f"says {width} x {height} pixels, and its frame {header.width} x {header.height}")
    if header.components != int(dataset.get("SamplesPerPixel", 1)):
        raise DicomError(f"says {dataset.get('SamplesPerPixel', 1)} samples a pixel, its frame {header.components}")


def _tag_warnings(dataset: "Dataset") -> list[ImageWarning]:
    """Only what these tags mean is told, never what stands in them."""

    def tag(name: str) -> str:
        return str(dataset.get(name, "") or "").strip().upper()

    rules = [
        (
            tag("Modality") not in ("", *_MODALITIES),
            ImageWarning("modality", "the DICOM's modality is not a radiograph's (CR, DX, RG)"),
        ),
        (
            tag("ViewPosition") in _LATERAL_VIEWS,
            ImageWarning("lateral", "the DICOM says a lateral view; the model was made for frontal ones"),
        ),
        (
            tag("BodyPartExamined") != "" and not any(part in tag("BodyPartExamined") for part in _CHEST),
            ImageWarning("body-part", "the DICOM's body part is not the chest"),
        ),
        (
            tag("BurnedInAnnotation") == "YES",
            ImageWarning(
                "burnt-in", "text is burnt into the image, perhaps a name: it shows in every picture made of it"
            ),
        ),
    ]
    return [warning for met, warning in rules if met]


def _stored_values(dataset: "Dataset") -> NDArray[Any]:
    """[H, W] or [H, W, 3]; colour as RGB."""
    from pydicom.pixels.utils import pixel_array

    values = np.asarray(pixel_array(dataset, decoding_plugin=_codec(dataset)))
    if values.shape[:2] != (int(dataset.Rows), int(dataset.Columns)) or values.ndim not in (2, 3):
        raise DicomError("has pixels in a shape that is none of one radiograph")
    return values


def _rescaled(values: NDArray[Any], dataset: "Dataset") -> NDArray[np.float32]:
    """PS3.3 C.11.1: a look-up table, or slope and intercept."""
    from pydicom.pixels.processing import apply_modality_lut

    slope = dataset.get("RescaleSlope")
    if slope is not None and (float(slope) == 0 or not np.isfinite(float(slope))):
        raise DicomError("has a rescale slope of 0")
    return np.asarray(apply_modality_lut(values, dataset), dtype=np.float32)


def _shown(values: NDArray[np.float32], dataset: "Dataset", window: Window) -> NDArray[np.float32]:
    """[H, W] in 0 to 255: by look-up table, window, the 8 bits that are there, or the range found."""
    if window.centre is not None and window.width is not None:
        return _windowed(values, window.centre, window.width, "LINEAR")
    tables = dataset.get("VOILUTSequence")
    if tables:
        return _looked_up(values, dataset, window.number)
    centres, widths = _numbers(dataset.get("WindowCenter")), _numbers(dataset.get("WindowWidth"))
    if centres and widths:
        if window.number > min(len(centres), len(widths)):
            raise DicomError(f"has {len(centres)} windows, not {window.number}", "Choose another with --window.")
        centre, width = centres[window.number - 1], widths[window.number - 1]
        return _windowed(values, centre, width, str(dataset.get("VOILUTFunction", "LINEAR") or "LINEAR").upper())
    if int(dataset.get("BitsStored", 16)) == 8 and values.min() >= 0 and values.max() <= 255:
        return values
    return _by_range(values, dataset)


def _numbers(value: object) -> list[float]:
    if value is None or value == "":
        return []
    try:
        return [float(str(value))]
    except ValueError:
        return [float(str(item)) for item in value]  # type: ignore[attr-defined]


def _windowed(values: NDArray[np.float32], centre: float, width: float, function: str) -> NDArray[np.float32]:
    """PS3.3 C.11.2.1.2 and .3, onto 0 to 255."""
    least = 1.0 if function == "LINEAR" else 0.0
    if not np.isfinite(centre) or not np.isfinite(width) or width < least or width == 0:
        raise DicomError(f"has a window of width {width:g}", "Choose another with --window.")
    if function == "SIGMOID":
        share = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -80, 80)))
    elif function == "LINEAR_EXACT":
        share = (values - centre) / width + 0.5
    else:
        share = (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
    return _to_grey(share)


def _looked_up(values: NDArray[np.float32], dataset: "Dataset", number: int) -> NDArray[np.float32]:
    from pydicom.pixels.processing import apply_voi

    tables = dataset.VOILUTSequence
    if number > len(tables):
        raise DicomError(f"has {len(tables)} look-up tables, not {number}", "Choose another with --window.")
    shown = np.asarray(apply_voi(values.astype(np.int64), dataset, index=number - 1), dtype=np.float32)
    highest = float(2 ** int(tables[number - 1].LUTDescriptor[2]) - 1)
    return _to_grey(shown / np.float32(highest))


def _by_range(values: NDArray[np.float32], dataset: "Dataset") -> NDArray[np.float32]:
    padding = dataset.get("PixelPaddingValue")
    kept = values if padding is None else values[values != np.float32(padding)]
    low, high = (float(kept.min()), float(kept.max())) if kept.size else (0.0, 0.0)
    if high <= low:
        return np.zeros_like(values)
    return _to_grey((values - np.float32(low)) / np.float32(high - low))


def _to_grey(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """[0, 1] to [0, 255]; what lies outside is cut."""
    grey: NDArray[np.float32] = np.clip(share, 0, 1) * np.float32(255)
    return grey
