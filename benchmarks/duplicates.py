"""How many copies of a radiograph `cxr check-data --duplicates` finds and misses, and how near different ones come.

Usage: python benchmarks/duplicates.py DATA

DATA is a folder in CheXpert's layout, such as ../shared/nih-sample. Each radiograph of its sheets is changed in the
ways below; a copy is found if its perceptual hash differs in at most `MOST_BITS` bits and its fine structure
correlates with the original's.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxrtool.choices import Views
from cxrtool.data.dataset import Dataset
from cxrtool.data.duplicates import BITS, LEAST_DETAIL, MOST_BITS, detail_correlation, picture_bits
from cxrtool.data.images import read
from cxrtool.settings import DataSettings

Pixels = NDArray[np.uint8]


def jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def saved(pixels: Pixels) -> Pixels:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return saved


def resized(share: float) -> Callable[[Pixels], Pixels]:
    def smaller(pixels: Pixels) -> Pixels:
        size = (round(pixels.shape[1] * share), round(pixels.shape[0] * share))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    return smaller


def levels(change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Callable[[Pixels], Pixels]:
    table = np.clip(255 * change(np.arange(256) / 255), 0, 255).astype(np.uint8)
    return lambda pixels: table[pixels]


def cropped(share: float) -> Callable[[Pixels], Pixels]:
    def cut(pixels: Pixels) -> Pixels:
        rows, columns = (round(side * share) for side in pixels.shape)
        return np.ascontiguousarray(pixels[rows:-rows, columns:-columns])

    return cut


def turned(degrees: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR))


def marked(pixels: Pixels) -> Pixels:
    """Return the picture with a white marker of an eighth by a sixteenth of its sides in a corner."""
    copy = pixels.copy()
    height, width = (side // 32 for side in pixels.shape)
    copy[height : 3 * height, width : 5 * width] = 255
    return copy


def padded(pixels: Pixels) -> Pixels:
    border = pixels.shape[1] // 13
    return np.pad(pixels, ((0, 0), (border, border)))


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG, quality 60": jpeg(60),
    "JPEG, quality 25": jpeg(25),
    "half the size": resized(0.5),
    "four fifths of the size, then JPEG 60": lambda pixels: jpeg(60)(resized(0.8)(pixels)),
    "brighter (1.2 x + 10)": levels(lambda value: 1.2 * value + 10 / 255),
    "gamma 0.7": levels(lambda value: value**0.7),
    "local contrast (CLAHE, clip 2)": lambda pixels: np.asarray(cv2.createCLAHE(2.0, (8, 8)).apply(pixels)),
    "histogram equalised": lambda pixels: np.asarray(cv2.equalizeHist(pixels)),
    "1 % cut off on every side": cropped(0.01),
    "2 % cut off on every side": cropped(0.02),
    "turned by 1 degree": turned(1),
    "a marker added in a corner": marked,
    "black borders of 8 % left and right": padded,
    "inverted": levels(lambda value: 1 - value),
    "mirrored": lambda pixels: np.ascontiguousarray(pixels[:, ::-1]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    dataset = Dataset(DataSettings(root=parser.parse_args().data, views=Views.ALL))
    pixels, patients = [], []
    for split in dataset.available:
        manifest = dataset.usable(split)
        pixels += [read(manifest.file(row)).pixels for row in range(len(manifest))]
        patients += [str(patient) for patient in manifest.patients]
    originals = [picture_bits(one) for one in pixels]
    print(f"{len(pixels)} radiographs; copies differ in at most {MOST_BITS} of {BITS} bits, detail >= {LEAST_DETAIL}\n")
    print("| change | found | median bits | most bits | least detail |")
    print("|---|---|---|---|---|")
    for name, change in CHANGES.items():
        copies = [change(image) for image in pixels]
        bits = np.array([differing(one, picture_bits(copy)) for one, copy in zip(originals, copies, strict=True)])
        detail = np.array([detail_correlation(image, copy) for image, copy in zip(pixels, copies, strict=True)])
        found = np.mean((bits <= MOST_BITS) & (detail >= LEAST_DETAIL))
        print(f"| {name} | {100 * found:.1f} % | {np.median(bits):.0f} | {bits.max()} | {detail.min():.2f} |")
    pairs = [(one, other) for one in range(len(pixels)) for other in range(one) if patients[one] != patients[other]]
    between = np.array([differing(originals[one], originals[other]) for one, other in pairs])
    print(f"\n{len(pairs):,} pairs of different patients: fewest bits {np.sort(between)[:5].tolist()}, ", end="")
    nearest = np.argsort(between)[:2000]
    detail = np.array([detail_correlation(pixels[pairs[pair][0]], pixels[pairs[pair][1]]) for pair in nearest])
    print(f"median {np.median(between):.0f}; largest detail of the {len(nearest)} closest {detail.max():.2f}")


def differing(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    return int(np.bitwise_count(first ^ second).sum())


if __name__ == "__main__":
    main()
