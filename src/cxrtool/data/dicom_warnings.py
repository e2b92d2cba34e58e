"""Warnings about the tags of a DICOM: that it is no frontal chest radiograph, or not meant to be looked at."""

import re
from typing import TYPE_CHECKING

from cxrtool.data.decoded import ImageWarning
from cxrtool.data.dicom_tags import items_of, text, value_of

if TYPE_CHECKING:
    from pydicom import Dataset

_MODALITIES = ("CR", "DX", "RG")
_LATERAL_VIEWS = ("LL", "RL", "LATERAL", "LAT", "LLD", "RLD")
_LATERAL_CODES = (
    *("399067008", "399198007", "399173006", "399260004", "399352003"),
    *("R-102CD", "R-10232", "R-10236", "R-10224", "R-10228"),
)
"""SNOMED CT and SNOMED RT codes of PS3.16 CID 4010 for lateral, right and left lateral, medio- and latero-medial."""
_LATERAL_WORDS = re.compile(r"\blateral\b", re.IGNORECASE)
_FRONTAL_WORDS = re.compile(r"\b(frontal|pa|ap|(postero|antero)-?\s?(anterior|posterior)|decubitus)\b", re.IGNORECASE)
_CHEST = ("CHEST", "THORAX", "LUNG")


def tag_warnings(dataset: "Dataset") -> list[ImageWarning]:
    """Return warnings about some tags, without quoting them."""
    part = text(dataset, "BodyPartExamined")
    rules = [
        (
            text(dataset, "Modality") not in ("", *_MODALITIES),
            ImageWarning("modality", "the modality of the DICOM is not that of a radiograph (CR, DX, RG)"),
        ),
        (
            is_lateral(dataset),
            ImageWarning("lateral", "the DICOM states a lateral view, but the model is for frontal views"),
        ),
        (
            part != "" and not any(name in part for name in _CHEST),
            ImageWarning("body-part", "the body part in the DICOM is not the chest"),
        ),
        (
            text(dataset, "BurnedInAnnotation") == "YES",
            ImageWarning(
                "burnt-in", "text, perhaps a name, is burnt into the image and shows in every picture drawn from it"
            ),
        ),
        (
            text(dataset, "PresentationIntentType") == "FOR PROCESSING",
            ImageWarning(
                "for-processing", "the DICOM holds raw detector values (FOR PROCESSING), not a picture to read"
            ),
        ),
        (
            contradicts_polarity(dataset),
            ImageWarning(
                "polarity",
                "the DICOM contradicts itself on whether low values are black; its presentation shape was used",
            ),
        ),
    ]
    return [warning for met, warning in rules if met]


def is_lateral(dataset: "Dataset") -> bool:
    """Return whether view position, view code or patient orientation states a lateral view."""
    return (
        text(dataset, "ViewPosition") in _LATERAL_VIEWS
        or any(_is_lateral_code(item) for item in items_of(dataset, "ViewCodeSequence"))
        or _shows_depth(dataset)
    )


def _is_lateral_code(item: "Dataset") -> bool:
    meaning = text(item, "CodeMeaning")
    return text(item, "CodeValue") in _LATERAL_CODES or bool(
        _LATERAL_WORDS.search(meaning) and not _FRONTAL_WORDS.search(meaning)
    )


def _shows_depth(dataset: "Dataset") -> bool:
    """Return whether rows or columns run from front to back (PS3.3 C.7.6.1.1.1: A, P), as never in a frontal view."""
    value = value_of(dataset, "PatientOrientation")
    directions = [value] if isinstance(value, str) else list(value or [])
    return any(str(direction).strip().upper().startswith(("A", "P")) for direction in directions)


def contradicts_polarity(dataset: "Dataset") -> bool:
    """Return whether the presentation shape differs from the photometric interpretation (PS3.3 C.8.11.3.1.2)."""
    pair = (text(dataset, "PhotometricInterpretation"), text(dataset, "PresentationLUTShape"))
    return pair in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE"))
