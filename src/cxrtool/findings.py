"""The five findings in their fixed order, and the policies for uncertain labels.

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
        """Return the finding called `name`, ignoring case.

        Raises:
            RequestError: there is no such finding; the advice suggests the closest name.
        """
        by_lower = {finding.lower(): finding for finding in self.names}
        key = str(name).strip().lower()
        if key in by_lower:
            return by_lower[key]
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
"""The five findings of the CheXpert competition."""
FINDINGS = CHEXPERT5.names
"""Names of the five findings, in the order of the columns of every ``[N, 5]`` array of this package."""
find_finding = CHEXPERT5.find


@dataclass(frozen=True)
class UncertaintyPolicy:
    """One `Policy` per finding.

    Attributes:
        per_finding: policy of each finding, in the order of `FINDINGS`.
    """

    per_finding: tuple[Policy, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``u-ignore`` or ``u-ignore,Atelectasis=u-ones,Edema=u-ones``: a default, then exceptions.

        Raises:
            RequestError: a policy or finding is unknown, or the default is missing.
        """
        default, *exceptions = [part.strip() for part in text.split(",")]
        policies = dict.fromkeys(FINDINGS, _parse_policy(default))
        for part in exceptions:
            name, equals, policy = part.partition("=")
            if not equals:
                raise RequestError(f"policy exception {part!r} names no finding", "Write it as Atelectasis=u-ones.")
            policies[find_finding(name)] = _parse_policy(policy)
        return cls(tuple(policies[finding] for finding in FINDINGS))

    def __str__(self) -> str:
        default = max(Policy, key=self.per_finding.count)
        exceptions = [
            f"{finding}={policy}"
            for finding, policy in zip(FINDINGS, self.per_finding, strict=True)
            if policy != default
        ]
        return ",".join([str(default), *exceptions])


def _parse_policy(text: str) -> Policy:
    try:
        return Policy(text.strip().lower())
    except ValueError:
        raise RequestError(
            f"policy {text!r} is unknown",
            f"Use one of {', '.join(Policy)}, or exceptions as in u-ignore,Atelectasis=u-ones.",
        ) from None


EVALUATION_POLICY = UncertaintyPolicy((Policy.U_IGNORE,) * len(FINDINGS))
"""Evaluation ignores uncertain labels with every training policy, because a policy must not change the truth."""
