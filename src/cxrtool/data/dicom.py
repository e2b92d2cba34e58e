"""Decode DICOM files to grey pixels: pydicom reads tags and unpacks frames, this package renders the values.

The steps are those of the standard, with the formulas in `cxrtool.data.dicom_rendering`: stored values, modality
(rescale or table), VOI (window or table), and last the inversion of MONOCHROME1. A file that would need a guess is
refused. Tags about people are not read.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.data import dicom_rendering as rendering
from cxrtool.data.decoded import Decoded, ImageWarning
from cxrtool.data.dicom_grey import Window, render_grey
from cxrtool.data.dicom_tags import COLOUR, PALETTE, DicomError, integer, is_signed, required, text, value_of
from cxrtool.data.dicom_warnings import tag_warnings
from cxrtool.data.frames import FrameHeader, frame_header, is_whole_jpeg, sequential_scan_ends_early, unpacks_to
from cxrtool.data.structure import CountedFile, StructureError, check_elements, check_fragments, check_frame

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"
_JPEG_DCT = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_PLUGINS = ("pydicom", "pylibjpeg", "pillow")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_META_START = re.compile(rb"\x02\x00[\x00\x01\x02\x10]\x00(UL|OB|UI)", re.DOTALL)
# Group 8 from its group length, character set, image type, date, time or SOP class on, with or without a stated VR.
_BARE_START = re.compile(
    rb"\x08\x00[\x00\x05\x08\x12\x13\x16\x18]\x00(UL\x04\x00|CS.\x00|DA.\x00|TM.\x00|UI.\x00|[\x02-\x60]\x00\x00\x00)",
    re.DOTALL,
)
_PIXEL_DATA_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
_MOST_EXCESS = 8
"""Bytes of various values behind the pixels are refused from this share (1/8) of the image on: rows may be wrong."""


def is_dicom(start: bytes) -> bool:
    """Return whether a file that starts with these bytes is a DICOM.

    PS3.10 asks for 128 bytes of preamble and ``DICM``; files without them, which start with group 2 or 8, are read too.
    """
    return start[128:132] == b"DICM" or start[:4] == b"DICM" or _has_no_preamble(start)


def _has_no_preamble(start: bytes) -> bool:
    return bool(_META_START.match(start) or _BARE_START.match(start))


def decode_dicom(content: bytes, max_pixels: int, window: Window | None = None) -> Decoded:
    """Decode the radiograph in a DICOM file.

    Args:
        content: content of the whole file.
        max_pixels: an image with more pixels in its header is refused.
        window: window to use. Default: the file's first window or look-up table. A file without either is scaled from
            the range found, or from its whole range if it has 8 bits.

    Raises:
        DicomError: the file has no image or several frames, its sizes contradict each other, its codec is not
            installed, its transfer syntax is deflated, or its rescale, window or a table is invalid.
        StructureError: the file has too many elements, items, fragments or scans.
    """
    _silence_warnings()
    with _stage("is a DICOM that cannot be decoded: its tags are damaged or cut off"):
        dataset = _read(_with_preamble(content))
    if "PixelData" not in dataset and any(tag in content for tag in _PIXEL_DATA_TAGS):
        raise DicomError("is cut off: its pixel data have no end", "Copy it again.")
    return decode_dataset(dataset, max_pixels, window)


def _with_preamble(content: bytes) -> bytes:
    """Add what the start of the file lacks, so that its meta information is at one place. A bare data set has none."""
    if content[:4] == b"DICM":
        return bytes(128) + content
    if content[128:132] != b"DICM" and _META_START.match(content):
        return bytes(128) + b"DICM" + content
    return content


def _read(content: bytes) -> "Dataset":
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if content[128:132] != b"DICM":
        dataset = _parse(content, force=True)
        implicit, little = dataset.original_encoding
        dataset.file_meta = FileMetaDataset()
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        return dataset
    # Before dcmread, which inflates the whole file even if only tags are read.
    if _DEFLATED in _transfer_syntaxes(content):
        raise _deflated_error()
    return _parse(content)


def _parse(content: bytes, force: bool = False) -> "Dataset":
    """Parse tags with pydicom, within the limits of `cxrtool.data.structure`."""
    from pydicom import dcmread

    file = CountedFile(content)
    dataset = dcmread(file, force=force)
    check_elements(dataset, file.reads)
    return dataset


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
    with _stage("is a DICOM that cannot be decoded: a tag about its pixels is invalid"):
        frame = _check_shape(dataset, max_pixels)
        warned = [*tag_warnings(dataset), *_excess_warnings(dataset)]
    with _stage("is a DICOM that cannot be decoded: its pixel data are damaged, or are not what its tags state"):
        values = _stored_values(dataset, frame)
    with _stage("is a DICOM that cannot be decoded: a tag about its grey levels is invalid"):
        pixels, converted = render_grey(values, dataset, window or Window())
    height, width = pixels.shape
    return Decoded(pixels, (height, width), (*warned, *converted))


@contextmanager
def _stage(reason: str) -> Iterator[None]:
    """Turn any exception in the block into a `DicomError`: pydicom and its decoders quote tags in theirs."""
    try:
        yield
    except (DicomError, StructureError, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - pydicom and its decoders raise anything
        raise DicomError(reason) from None


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


def _check_shape(dataset: "Dataset", max_pixels: int) -> FrameHeader | None:
    """Check what the tags state of the pixels before any is decoded; return the header of a compressed frame."""
    if value_of(dataset, "PixelData") is None:
        raise _no_pixels_error(dataset)
    if integer(dataset, "NumberOfFrames") not in (None, 0, 1):
        raise DicomError(
            "has several frames (multi-frame)", "Save the radiograph as a single-frame DICOM.", "image-wrong-shape"
        )
    height, width = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
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
    _check_kind(dataset)
    if syntax.is_compressed:
        _available_plugins(dataset)
        return _check_frame(dataset, height, width)
    size, expected = len(dataset.PixelData), _expected_size(dataset)
    if size < expected or (size - expected > expected // _MOST_EXCESS and not _is_filler(dataset.PixelData[expected:])):
        depth = integer(dataset, "BitsAllocated")
        raise DicomError(
            f"states {width} x {height} pixels of {depth} bits, but holds {size:,} bytes, not {expected:,}",
            "Copy it again; it may be cut off." if size < expected else "Check the file.",
        )
    return None


def _no_pixels_error(dataset: "Dataset") -> DicomError:
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        return DicomError("holds pixels as floating-point numbers, which no radiograph has")
    if integer(dataset, "Rows"):
        return DicomError("has no pixel data, although it states their size", "Copy it again; it may be cut off.")
    return DicomError(
        "has no pixel data", "Choose a DICOM with an image; this one may be a report or another document."
    )


def _check_kind(dataset: "Dataset") -> None:
    """Check that photometric interpretation, samples and bits are stated and fit to each other (PS3.3 C.7.6.3.1)."""
    kind, samples = text(dataset, "PhotometricInterpretation"), integer(dataset, "SamplesPerPixel") or 1
    if not kind:
        raise DicomError("does not state whether low values are black or white (PhotometricInterpretation)")
    if kind not in (*_GREY, *COLOUR, PALETTE):
        raise DicomError("has a photometric interpretation that is not supported", "Save it as MONOCHROME2.")
    if samples != (3 if kind in COLOUR else 1):
        raise DicomError(f"has {samples} samples per pixel, which contradicts its photometric interpretation")
    allocated = required(dataset, "BitsAllocated", "how many bits a pixel takes (BitsAllocated)")
    if allocated not in (1, 8, 16, 32):
        raise DicomError(f"has pixels of {allocated} bits; 1, 8, 16 or 32 are supported")
    stored = required(dataset, "BitsStored", "how many bits of a pixel are used (BitsStored)")
    if not 1 <= stored <= allocated:
        raise DicomError(f"states {stored} bits stored in {allocated} allocated")
    if kind not in COLOUR and integer(dataset, "PixelRepresentation") not in (0, 1):
        raise DicomError("does not state whether its pixels are signed (PixelRepresentation)")


def _expected_size(dataset: "Dataset") -> int:
    """Return the number of bytes of uncompressed pixels; YBR_FULL_422 has half the chroma (PS3.3 C.7.6.3.1.2)."""
    kind, allocated = text(dataset, "PhotometricInterpretation"), integer(dataset, "BitsAllocated") or 0
    samples = {"YBR_FULL_422": 2}.get(kind, integer(dataset, "SamplesPerPixel") or 1)
    return -(-int(dataset.Rows) * int(dataset.Columns) * samples * allocated // 8)


def _is_filler(rest: bytes) -> bool:
    """Return whether bytes behind the pixels are all the same, so that they cannot be rows of an image."""
    return not rest or rest.count(rest[:1]) == len(rest)


def _excess_warnings(dataset: "Dataset") -> list[ImageWarning]:
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return []
    rest = dataset.PixelData[_expected_size(dataset) :]
    if len(rest) <= 1 or _is_filler(rest):
        return []
    return [ImageWarning("excess", f"the DICOM holds {len(rest):,} bytes behind its pixels, which were left out")]


def _available_plugins(dataset: "Dataset") -> list[str]:
    """Return the pydicom plugins that can decode it; never gdcm, which crashes the process on some damaged streams.

    Raises:
        DicomError: it is compressed, and there is none.
    """
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        available = get_decoder(syntax).available_plugins
    except NotImplementedError:
        available = ()
    plugins = [name for name in _PLUGINS if name in available]
    if syntax.is_compressed and not plugins:
        reason = f"needs a codec that is not installed ({syntax.name})"
        extra = "dicom" if "2000" in syntax.name else "dicom-gpl"  # the second has lossless JPEG and JPEG-LS
        raise DicomError(reason, f"Run pip install 'cxrtool[{extra}]', or save it uncompressed.")
    return plugins


def _frame(dataset: "Dataset") -> bytes:
    from pydicom.encaps import generate_frames

    return next(generate_frames(dataset.PixelData, number_of_frames=1), b"")


def _check_frame(dataset: "Dataset", height: int, width: int) -> FrameHeader | None:
    """Check that the header of the compressed frame states the same size, because the decoder allocates by it."""
    check_fragments(dataset.PixelData)
    frame = _frame(dataset)
    check_frame(frame)
    if dataset.file_meta.TransferSyntaxUID == _RLE:
        if not unpacks_to(frame, height * width):
            raise DicomError(f"states {width} x {height} pixels, but its run lengths unpack to another size")
        return None
    header = frame_header(frame)
    if header is None:
        raise DicomError("holds a frame that is neither JPEG nor JPEG 2000")
    if (header.width, header.height) != (width, height):
        raise DicomError(f"states {width} x {height} pixels, but its frame has {header.width} x {header.height}")
    samples = integer(dataset, "SamplesPerPixel") or 1
    if header.components != samples:
        raise DicomError(f"states {samples} samples per pixel, but its frame has {header.components}")
    return header


def _plugin(dataset: "Dataset") -> str:
    plugins = _available_plugins(dataset)
    if dataset.file_meta.TransferSyntaxUID in _JPEG_DCT and "pillow" in plugins:
        frame = _frame(dataset)
        # pylibjpeg refuses such scans, libjpeg-turbo reads them; but it fills in what is missing from a cut one.
        if sequential_scan_ends_early(frame) and is_whole_jpeg(frame):
            return "pillow"
    return plugins[0] if plugins else ""


def _stored_values(dataset: "Dataset", frame: FrameHeader | None) -> NDArray[Any]:
    """Return the stored values, [H, W], or [H, W, 3] RGB for a colour image."""
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

    syntax = dataset.file_meta.TransferSyntaxUID
    # pydicom decodes these two by the precision of the frame; of all others it ignores the high bit.
    by_precision = syntax in (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes)
    kind = text(dataset, "PhotometricInterpretation")
    options: dict[str, Any] = {} if by_precision else {"correct_unused_bits": False}
    if kind in COLOUR:
        options |= {"planar_configuration": integer(dataset, "PlanarConfiguration") or 0, "pixel_representation": 0}
    cells = np.asarray(
        pixel_array(
            dataset,
            decoding_plugin=_plugin(dataset),
            photometric_interpretation=kind,
            samples_per_pixel=3 if kind in COLOUR else 1,
            number_of_frames=1,
            allow_excess_frames=False,
            **options,
        )
    )
    if cells.shape[:2] != (int(dataset.Rows), int(dataset.Columns)) or cells.ndim not in (2, 3):
        raise DicomError("has pixels in a shape that is not that of one radiograph")
    allocated, stored = 8 * cells.dtype.itemsize, integer(dataset, "BitsStored") or 0
    high_bit = integer(dataset, "HighBit")
    if high_bit is None or not stored <= high_bit + 1 <= allocated or (frame and frame.precision <= high_bit):
        high_bit = stored - 1
    if integer(dataset, "BitsAllocated") == 1 or (by_precision and high_bit == stored - 1):
        return cells
    return rendering.stored_values(cells, stored, high_bit, is_signed(dataset))
