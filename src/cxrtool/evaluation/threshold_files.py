"""Files and text that hold thresholds and their curves."""

import csv
import io
import json
from pathlib import Path

from cxrtool.errors import RequestError
from cxrtool.evaluation.thresholds import TunedThresholds
from cxrtool.files import write_csv
from cxrtool.findings import CHEXPERT5, Findings


def write_curves_csv(path: Path, tuned: TunedThresholds) -> None:
    """Write all curves as CSV: one row per finding and threshold, with the figures there."""
    names = ["precision", "recall", "specificity", "f1", "balanced_accuracy", "youden"]
    rows = [
        [finding, float(threshold), *(float(getattr(curve, name)[index]) for name in names)]
        for finding, curve in tuned.curves.items()
        for index, threshold in enumerate(curve.thresholds)
    ]
    write_csv(path, ["finding", "threshold", *names], rows)


def parse_thresholds(text: str, findings: Findings = CHEXPERT5) -> dict[str, float]:
    """Read thresholds from text or from a file.

    Args:
        text: a number for each finding in order (``0.46,0.11,0.47,0.34,0.37``); some by name
            (``Edema=0.3,Cardiomegaly=0.2``); or a file: thresholds.json or thresholds.csv of ``cxr tune``, or JSON of
            ``{finding: number}``.
        findings: the findings of the model or table.

    Returns:
        Thresholds by finding, of the findings that `text` names.

    Raises:
        RequestError: the text is none of these, or a threshold is outside [0, 1].
    """
    path = Path(text)
    is_file = path.suffix.lower() in (".json", ".csv")
    pairs = _pairs_in_file(path) if is_file else _pairs_in_text(text, findings)
    found: dict[str, float] = {}
    for name, number in pairs:
        try:
            value = float(number)
        except (TypeError, ValueError, OverflowError):
            shown = f"{number!r:.40}"
            raise RequestError(f"threshold {shown} of {name} is not a number", "Write it as 0.46.") from None
        if not 0 <= value <= 1:
            raise RequestError(f"threshold {value:g} of {name} is outside [0, 1]", "Write it as 0.46.")
        found[findings.find(name)] = value
    return found


def _pairs_in_text(text: str, findings: Findings) -> list[tuple[str, str]]:
    parts = [part.strip() for part in text.split(",")]
    if all("=" in part for part in parts):
        return [(name, number) for name, _, number in (part.partition("=") for part in parts)]
    if len(parts) != len(findings):
        raise RequestError(
            f"--thresholds has {len(parts)} numbers, but there are {len(findings)} findings",
            f"Give one number for each of {', '.join(findings)}, or some by name (Edema=0.3), or a .json or .csv file.",
        )
    return list(zip(findings, parts, strict=True))


def _pairs_in_file(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            return [(row["finding"], row["threshold"]) for row in csv.DictReader(io.StringIO(text, newline=""))]
        content = json.loads(text)
        content = content.get("thresholds", content)
        return [(str(name), number) for name, number in content.items()]
    except OSError as error:
        raise RequestError(f"cannot read thresholds file {path}: {error.strerror}", "Check the path.") from None
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(
            f"thresholds file {path} is not in the format of cxr tune ({error})",
            "Give a thresholds.json or thresholds.csv of cxr tune.",
        ) from None
