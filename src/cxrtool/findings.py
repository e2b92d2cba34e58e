"""Findings by name and in order, and the policies for uncertain labels.

CheXpert (Irvin et al. 2019, arXiv:1901.07031) labels a finding 1 (positive), 0 (negative), -1 (uncertain) or
leaves it blank (not mentioned). The three policies for -1 are U-Ignore, U-Ones and U-Zeros of that paper.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from cxrtool.choices import Policy
from cxrtool.errors import RequestError

UNCERTAIN = -1.0


@dataclass(frozen=True)
class Findings:
    """Names of findings in a fixed order.

    Attributes:
        names: names in the order of the columns of every ``[N, F]`` array.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or any(not name.strip() for name in self.names):
            raise RequestError("the list of findings is empty or contains an empty name", "Give one or more names.")
        if len({name.lower() for name in self.names}) < len(self.names):
            raise RequestError(f"a finding is listed twice in {', '.join(self.names)}", "Name each finding once.")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def find(self, name: str) -> str:
        """Return the finding called `name`, ignoring case, or called so in other sheets; see `canonical`.

        Raises:
            RequestError: there is no such finding; the advice suggests the closest name.
        """
        by_lower = {finding.lower(): finding for finding in self.names}
        key = str(name).strip().lower()
        for known in (key, canonical(key).lower()):
            if known in by_lower:
                return by_lower[known]
        near = difflib.get_close_matches(key, by_lower, n=1, cutoff=0.5)
        suggestion = f"did you mean {by_lower[near[0]]!r}? " if near else ""
        raise RequestError(f"finding {name!r} is unknown", f"{suggestion}The findings are {', '.join(self.names)}.")

    def index(self, name: str) -> int:
        """Return the position of the finding called `name`, ignoring case.

        Raises:
            RequestError: there is no such finding.
        """
        return self.names.index(self.find(name))


CHEXPERT5 = Findings(("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"))
"""The five findings of the CheXpert competition, the default everywhere."""
CHEXPERT14 = Findings(
    (
        "No Finding",
        "Enlarged Cardiomediastinum",
        "Cardiomegaly",
        "Lung Opacity",
        "Lung Lesion",
        "Edema",
        "Consolidation",
        "Pneumonia",
        "Atelectasis",
        "Pneumothorax",
        "Pleural Effusion",
        "Pleural Other",
        "Fracture",
        "Support Devices",
    )
)
"""All observations of CheXpert's and MIMIC-CXR's sheets, in the order of CheXpert's columns."""
NIH14 = Findings(
    (
        "Atelectasis",
        "Cardiomegaly",
        "Pleural Effusion",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pneumonia",
        "Pneumothorax",
        "Consolidation",
        "Edema",
        "Emphysema",
        "Fibrosis",
        "Pleural Thickening",
        "Hernia",
    )
)
"""The findings of NIH ChestX-ray14 (Wang et al. 2017, arXiv:1705.02315), in the order of that paper."""
XRV18 = Findings(
    (
        "Atelectasis",
        "Consolidation",
        "Infiltration",
        "Pneumothorax",
        "Edema",
        "Emphysema",
        "Fibrosis",
        "Pleural Effusion",
        "Pneumonia",
        "Pleural Thickening",
        "Cardiomegaly",
        "Nodule",
        "Mass",
        "Hernia",
        "Lung Lesion",
        "Fracture",
        "Lung Opacity",
        "Enlarged Cardiomediastinum",
    )
)
"""The outputs of torchxrayvision's classifiers (Cohen et al. 2022, arXiv:2111.00595), in their order."""
FINDINGS = CHEXPERT5.names
PRESETS = {"chexpert5": CHEXPERT5, "chexpert14": CHEXPERT14, "nih14": NIH14, "xrv18": XRV18}
"""Sets of findings by name."""
SYNONYMS = {
    "effusion": "Pleural Effusion",
    "pleural effusions": "Pleural Effusion",
    "pleural thickening": "Pleural Thickening",
    "airspace opacity": "Lung Opacity",
    "enlarged cardiom.": "Enlarged Cardiomediastinum",
    "oedema": "Edema",
    "pulmonary edema": "Edema",
    "lung edema": "Edema",
    "normal": "No Finding",
}
"""Other names of findings in public sheets and models, in lower case with spaces for ``_``, and the name used here."""


def canonical(name: str) -> str:
    """Return the name used here for a finding as a sheet or model writes it; a name that is not known stays as it is.

    Case, ``_`` and spaces around the name do not matter in known names: ``Pleural_Thickening`` is
    ``Pleural Thickening``, ``effusion`` is ``Pleural Effusion``.
    """
    plain = " ".join(name.replace("_", " ").split())
    known = {finding.lower(): finding for preset in PRESETS.values() for finding in preset}
    return SYNONYMS.get(plain.lower()) or known.get(plain.lower()) or plain


def parse_findings(text: str) -> Findings:
    """Return the findings named in text: a key of `PRESETS`, or names separated by commas.

    Raises:
        RequestError: a name is empty or given twice.
    """
    preset = PRESETS.get(text.strip().lower())
    return preset or Findings(tuple(canonical(name) for name in text.split(",")))


@dataclass(frozen=True)
class UncertaintyPolicy:
    """What -1 becomes: a policy for all findings, with exceptions.

    Attributes:
        default: policy of the findings without an exception.
        exceptions: finding and policy, in the order in which they were given.
    """

    default: Policy
    exceptions: tuple[tuple[str, Policy], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``u-ignore`` or ``u-ignore,Atelectasis=u-ones,Edema=u-ones``: a default, then exceptions.

        Raises:
            RequestError: a policy is unknown, or the default is missing.
        """
        default, *parts = [part.strip() for part in text.split(",")]
        policy = _parse_policy(default)
        exceptions: dict[str, Policy] = {}
        for part in parts:
            name, equals, own = part.partition("=")
            if not equals:
                raise RequestError(f"policy exception {part!r} names no finding", "Write it as Atelectasis=u-ones.")
            exceptions[canonical(name)] = _parse_policy(own)
        return cls(policy, tuple(exceptions.items()))

    def of(self, findings: Findings) -> tuple[Policy, ...]:
        """Return the policy of each finding, in order.

        Raises:
            RequestError: an exception is for a finding that is not among `findings`.
        """
        own = {findings.find(name): policy for name, policy in self.exceptions}
        return tuple(own.get(finding, self.default) for finding in findings)

    def __str__(self) -> str:
        return ",".join([str(self.default), *(f"{name}={policy}" for name, policy in self.exceptions)])


def _parse_policy(text: str) -> Policy:
    try:
        return Policy(text.strip().lower())
    except ValueError:
        raise RequestError(
            f"policy {text!r} is unknown",
            f"Use one of {', '.join(Policy)}, or exceptions as in u-ignore,Atelectasis=u-ones.",
        ) from None


EVALUATION_POLICY = UncertaintyPolicy(Policy.U_IGNORE)
"""Evaluation ignores uncertain labels with every training policy, because a policy must not change the truth."""
