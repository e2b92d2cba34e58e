"""Synthetic data sets in CheXpert's layout with known truth: labels, masks and severities.

Subtle findings get uncertain or blank labels in the train split, with the probabilities of `PhantomSettings`, so that
uncertainty policies make a difference. Labels of valid and test are true.
"""

import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.data.decoded import PHANTOM_COMMENT
from cxrtool.data.manifest import PHANTOM_NAME
from cxrtool.errors import CxrError, RequestError
from cxrtool.files import write_csv, write_json
from cxrtool.findings import CHEXPERT14, FINDINGS
from cxrtool.phantoms.drawing import DEVICES, Anatomy, Case, affected_sides, draw_anatomy, draw_frontal, draw_lateral
from cxrtool.sheet_options import SPLITS

COLUMNS = (
    "Path",
    "Sex",
    "Age",
    "Frontal/Lateral",
    "AP/PA",
    *CHEXPERT14,
)
"""The columns of CheXpert's sheets, in order."""


@dataclass(frozen=True)
class PhantomSettings:
    """Probabilities from which a phantom data set is drawn.

    Attributes:
        prevalence: probability of each finding in a study.
        subtle: severity below which a finding is subtle.
        subtle_uncertain: probability that a subtle positive in train is labelled -1.
        subtle_blank: probability that a subtle positive in train is left blank.
        negative_uncertain: probability that a negative in train is labelled -1.
        negative_blank: probability that a negative in train is left blank, as reports rarely mention what is absent.
        second_view: probability that a study has a second frontal image.
        lateral: probability that a study has a lateral image.
        devices: probabilities of no device, a central line and a pacemaker.
        shares: shares of patients in train, valid and test.
    """

    prevalence: float = 0.32
    subtle: float = 0.35
    subtle_uncertain: float = 0.6
    subtle_blank: float = 0.2
    negative_uncertain: float = 0.06
    negative_blank: float = 0.5
    second_view: float = 0.15
    lateral: float = 0.05
    devices: tuple[float, float, float] = (0.8, 0.12, 0.08)
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15)


@dataclass(frozen=True)
class SplitCounts:
    """Size of a split."""

    patients: int
    studies: int
    images: int


@dataclass(frozen=True)
class PhantomSummary:
    """Summary of a data set that was written.

    Attributes:
        folder: folder of the data set.
        seed: random seed.
        image_size: width and height in pixels.
        splits: size of each split.
    """

    folder: Path
    seed: int
    image_size: int
    splits: dict[str, SplitCounts]

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "folder": str(self.folder),
            "seed": self.seed,
            "image_size": self.image_size,
            "splits": {split: asdict(counts) for split, counts in self.splits.items()},
        }


@dataclass(frozen=True)
class Study:
    """One study to draw: who, what is found, which views; its draws come from (seed, `key`, view) alone."""

    patient: str
    name: str
    sex: str
    age: int
    anatomy: Anatomy
    case: Case
    views: tuple[str, ...]
    key: tuple[int, int]


def write_phantom(
    out: Path,
    patients: int,
    image_size: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    settings: PhantomSettings | None = None,
) -> PhantomSummary:
    """Draw a data set: sheets, images, ``masks/`` per image and finding, ``truth/`` per split, and phantom.json.

    Each image depends only on (seed, patient, study, view).

    Args:
        out: a new or empty folder; it appears when everything is written.
        patients: number of patients in all splits together, at least 10.
        image_size: width and height in pixels, 64 to 1024.
        seed: random seed, at least 0.
        progress: called with the number of patients done and the total.
        settings: probabilities; the defaults if None.

    Raises:
        RequestError: `out` is not empty, or a number is out of range.
        CxrError: the folder cannot be written.
    """
    settings = settings or PhantomSettings()
    out = out.resolve()
    if patients < 10 or not 64 <= image_size <= 1024 or seed < 0:
        raise RequestError(
            f"cannot draw {patients} patients at {image_size} px with seed {seed}",
            "Use at least 10 patients, 64 to 1024 px and a seed of at least 0.",
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"{out} is not empty", "Name a new folder.")
    if out == Path.cwd():
        raise RequestError(f"{out} is the current folder", "Name a new folder.")
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        splits = _write_splits(partial, out.name, patients, image_size, seed, progress, settings)
        write_json(
            partial / PHANTOM_NAME,
            {
                "format": 1,
                "seed": seed,
                "patients": patients,
                "image_size": image_size,
                "settings": asdict(settings),
            },
        )
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise CxrError(f"cannot write {out}: {error.strerror}", "Check permissions and free space.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return PhantomSummary(out, seed, image_size, splits)


def _write_splits(
    folder: Path,
    name: str,
    patients: int,
    image_size: int,
    seed: int,
    progress: Callable[[int, int], None],
    settings: PhantomSettings,
) -> dict[str, SplitCounts]:
    ends = np.round(np.cumsum(settings.shares) * patients).astype(int)
    starts = [0, *ends[:-1]]
    counts = {}
    for split, start, end in zip(SPLITS, starts, ends, strict=True):
        rows: list[list[object]] = []
        truths: list[list[object]] = []
        studies = 0
        for number in range(int(start), int(end)):
            for study in studies_of(number, seed, settings):
                studies += 1
                for row, truth in _write_study(folder, name, split, study, image_size, seed, settings):
                    rows.append(row)
                    truths.append(truth)
            progress(number + 1, patients)
        write_csv(folder / f"{split}.csv", COLUMNS, rows)
        severity_columns = [f"{finding} severity" for finding in FINDINGS]
        write_csv(folder / "truth" / f"{split}.csv", ["Path", *FINDINGS, *severity_columns, "ratio"], truths)
        counts[split] = SplitCounts(int(end - start), studies, len(rows))
    return counts


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key[0], spawn_key=key[1:]))


def studies_of(number: int, seed: int, settings: PhantomSettings) -> Iterator[Study]:
    """The one to three studies of patient `number`."""
    rng = _rng(seed, number)
    anatomy = draw_anatomy(rng)
    age = int(np.clip(rng.normal(60, 17), 18, 90))
    for index in range(int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
        study = _rng(seed, number, index)
        present = study.random(len(FINDINGS)) < settings.prevalence
        severities = 0.08 + 0.92 * study.beta(2.2, 1.6, len(FINDINGS))
        views = ["frontal"]
        views += ["frontal"] * int(study.random() < settings.second_view)
        views += ["lateral"] * int(study.random() < settings.lateral)
        here = {f: float(s) for f, s, is_here in zip(FINDINGS, severities, present, strict=True) if is_here}
        yield Study(
            patient=f"patient{number + 1:05d}",
            name=f"study{index + 1}",
            sex="Female" if anatomy.female else "Male",
            age=age,
            anatomy=anatomy,
            case=Case(
                severities=here,
                sides=affected_sides(here, study),
                projection="AP" if study.random() < 0.6 else "PA",
                device=str(study.choice(DEVICES, p=settings.devices)),
            ),
            views=tuple(views),
            key=(number, index),
        )


def _write_study(
    folder: Path, name: str, split: str, study: Study, size: int, seed: int, settings: PhantomSettings
) -> Iterator[tuple[list[object], list[object]]]:
    labels = _labels(study, split, _rng(seed, *study.key, 10_000), settings)
    for view, kind in enumerate(study.views, start=1):
        path = f"{split}/{study.patient}/{study.name}/view{view}_{kind}.jpg"
        rng = _rng(seed, *study.key, view)
        ratio: float | None = None
        if kind == "lateral":
            image = draw_lateral(study.anatomy, size, rng)
        else:
            phantom = draw_frontal(study.anatomy, study.case, size, rng)
            image, ratio = phantom.image, phantom.cardiothoracic_ratio
            for finding, mask in phantom.masks.items():
                place = folder / "masks" / Path(path).with_suffix("") / f"{finding.replace(' ', '_')}.png"
                _write_image(place, mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        _write_image(folder / path, image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        projection = study.case.projection if kind == "frontal" else ""
        where = [f"{name}/{path}", study.sex, study.age, kind.capitalize(), projection]
        truth = [float(finding in study.case.severities) for finding in FINDINGS]
        severity = [study.case.severities.get(finding, 0.0) for finding in FINDINGS]
        yield (
            [*where, *(labels[column] for column in COLUMNS[5:])],
            [f"{name}/{path}", *truth, *severity, ratio],
        )


def _labels(study: Study, split: str, rng: np.random.Generator, settings: PhantomSettings) -> dict[str, float | None]:
    """Return the labels of a study: true ones in valid and test, partly uncertain or blank ones in train."""
    known = {finding: float(finding in study.case.severities) for finding in FINDINGS}
    opacity = any(known[finding] for finding in ("Atelectasis", "Consolidation", "Edema"))
    labels: dict[str, float | None] = dict.fromkeys(COLUMNS[5:])
    labels["No Finding"] = float(not study.case.severities)
    labels["Lung Opacity"] = float(opacity)
    labels["Support Devices"] = 1.0 if study.case.device else None
    for finding in FINDINGS:
        draw = float(rng.random())  # drawn in every split, so that the truth does not depend on the split
        severity = study.case.severities.get(finding)
        labels[finding] = known[finding] if split != "train" else _train_label(severity, draw, settings)
    return labels


def _train_label(severity: float | None, draw: float, settings: PhantomSettings) -> float | None:
    if severity is None:
        uncertain, blank, truth = settings.negative_uncertain, settings.negative_blank, 0.0
    elif severity < settings.subtle:
        uncertain, blank, truth = settings.subtle_uncertain, settings.subtle_blank, 1.0
    else:
        return 1.0
    if draw < uncertain:
        return -1.0
    return None if draw < uncertain + blank else truth


def _write_image(path: Path, image: NDArray[np.uint8], options: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written by Python, because OpenCV's writer does not report why it fails, such as a full disk.
    _, encoded = cv2.imencode(path.suffix, image, options)
    content = encoded.tobytes()
    path.write_bytes(_with_comment(content) if path.suffix == ".jpg" else content)


def _with_comment(jpeg: bytes) -> bytes:
    """Return a JPEG with `PHANTOM_COMMENT` in a COM segment behind its first marker."""
    segment = b"\xff\xfe" + (len(PHANTOM_COMMENT) + 2).to_bytes(2, "big") + PHANTOM_COMMENT
    return jpeg[:2] + segment + jpeg[2:]
