"""Whether this machine gives a bundle's probabilities, on the golden images that the bundle keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxrtool.choices import Precision
from cxrtool.engines.device import sigmoid
from cxrtool.engines.engine import HowRun
from cxrtool.engines.export import ALLOWED
from cxrtool.engines.open import open_engine
from cxrtool.engines.precision import CLOSE_ENOUGH
from cxrtool.errors import RequestError
from cxrtool.model.bundle import update_header
from cxrtool.model.golden import digest_of_pixels, golden_of
from cxrtool.model.header import BundleHeader, StoredGolden, current_versions
from cxrtool.model.resolve import Model, open_model
from cxrtool.phantoms.check_images import check_images
from cxrtool.settings import RuntimeSettings

TOLERANCES = {**{str(precision): bound for precision, bound in ALLOWED.items()}, str(Precision.BF16): CLOSE_ENOUGH}
"""Largest difference in probability by precision: those at which an export is kept, and ``auto`` chooses bf16."""


@dataclass(frozen=True)
class Verification:
    """Result of `verify_model`.

    Attributes:
        model: the bundle.
        weights_sha256: digest of its weights, which was checked.
        how: backend and precision of the network here.
        images: number of golden images.
        same_pixels: whether the images that were drawn here are those of the bundle to the bit.
        differences: by finding, the largest difference in probability from the bundle's, over the images; NaN if a
            probability is not a number.
        allowed: the largest difference that passes.
        versions: by package, the version that the bundle was made with and the one here, where they differ.
    """

    model: Path
    weights_sha256: str
    how: HowRun
    images: int
    same_pixels: bool
    differences: Mapping[str, float]
    allowed: float
    versions: Mapping[str, tuple[str, str]]

    @property
    def failed(self) -> tuple[str, ...]:
        """Findings whose difference is too large."""
        return tuple(finding for finding, value in self.differences.items() if not value <= self.allowed)

    @property
    def passed(self) -> bool:
        """Whether this machine gives the bundle's probabilities."""
        return not self.failed

    def to_dict(self) -> dict[str, object]:
        """Return the document of ``cxr verify --json``."""
        return {
            "model": str(self.model),
            "weights_sha256": self.weights_sha256,
            **self.how.to_dict(),
            "images": self.images,
            "same_pixels": self.same_pixels,
            "passed": self.passed,
            "allowed": self.allowed,
            "findings": {
                finding: {"largest_difference": value, "within": finding not in self.failed}
                for finding, value in self.differences.items()
            },
            "versions": {name: {"bundle": there, "here": here} for name, (there, here) in self.versions.items()},
        }


def verify_model(model: Model, settings: RuntimeSettings) -> Verification:
    """Run a bundle's network on its golden images and compare its probabilities, before calibration, with the bundle's.

    Nothing is written, and no export is made.

    Args:
        model: an opened bundle, a run folder or a bundle file.
        settings: backend, device, precision and threads, which mean what they mean for predictions.

    Raises:
        ModelError: the model cannot be used, or its weights do not match their digest.
        RequestError: it keeps no golden images, or the device, backend or export is not available.
    """
    bundle = open_model(model)
    header = bundle.header
    if header.golden is None:
        raise RequestError(
            f"{bundle.path} keeps no golden images: an older version of cxrtool wrote it",
            f"Store them where its probabilities are known to be right: cxr verify {bundle.path} --record",
        )
    engine = open_engine(bundle, settings, reported=False)
    pixels = check_images(header.image_preprocessing)
    expected = np.array(header.golden.logits, dtype=np.float32)
    if len(expected) != len(pixels):
        raise RequestError(
            f"{bundle.path} keeps {len(expected)} golden images, but this version of cxrtool draws {len(pixels)}",
            f"Use the version that it was made with: {header.versions.get('cxrtool', 'unknown')}.",
        )
    largest = np.abs(sigmoid(engine.logits(pixels)) - sigmoid(expected)).max(axis=0)
    here = current_versions()
    return Verification(
        model=bundle.path,
        weights_sha256=header.weights_sha256,
        how=engine.how,
        images=len(pixels),
        same_pixels=digest_of_pixels(pixels) == header.golden.pixels_sha256,
        differences=dict(zip(header.findings, largest.tolist(), strict=True)),
        allowed=TOLERANCES[engine.how.precision],
        versions={
            name: (number, here[name]) for name, number in header.versions.items() if here.get(name, number) != number
        },
    )


def record_golden(model: Model) -> StoredGolden:
    """Store what a bundle's network gives here, by torch in float32 on the CPU, in its header; its weights are kept.

    Raises:
        ModelError: the model cannot be used.
        RequestError: it already keeps golden images; overwriting them would hide a difference.
        WriteError: the file cannot be written.
    """
    bundle = open_model(model)
    _refuse_recorded(bundle.path, bundle.header)
    golden = golden_of(bundle.network.state_dict(), bundle.header.image_preprocessing)

    def with_golden(header: BundleHeader) -> BundleHeader:
        _refuse_recorded(bundle.path, header)
        return header.model_copy(update={"golden": golden})

    update_header(bundle, with_golden)
    return golden


def _refuse_recorded(path: Path, header: BundleHeader) -> None:
    if header.golden is not None:
        raise RequestError(
            f"{path} already keeps golden images; those of this machine would hide a difference",
            f"Compare with them: cxr verify {path}",
        )
