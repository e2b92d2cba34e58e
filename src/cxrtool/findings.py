"""The five findings in their fixed order, and policies for uncertain labels.

CheXpert (Irvin et al. 2019, arXiv:1901.07031) labels a finding 1 (positive), 0 (negative), -1 (uncertain) or
leaves it blank (not mentioned). The three policies for -1 are U-Ignore, U-Ones and U-Zeros of that paper.
"""

import difflib
from dataclasses import dataclass
from typing import Self

from cxrtool.choices import Policy
from cxrtool.errors import RequestError

FINDINGS: tuple[str, ...] = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five findings of the CheXpert competition, in the order of every ``[N, 5]`` array of this package."""

UNCERTAIN = -1.0


def find_finding(name: str) -> str:
    """Return the finding with this name, ignoring case.

    Raises:
        RequestError: there is none; the advice suggests the most similar name.
    """
    by_lower = {finding.lower(): finding for finding in FINDINGS}
    key = name.strip().lower()
    if key in by_lower:
        return by_lower[key]
    near = difflib.get_close_matches(key, by_lower, n=1, cutoff=0.5)
    suggestion = f"did you mean {by_lower[near[0]]!r}? " if near else ""
    raise RequestError(f"finding {name!r} is unknown", f"{suggestion}The findings are {', '.join(FINDINGS)}.")


@dataclass(frozen=True)
class UncertaintyPolicy:
    """One `Policy` per finding.

    Attributes:
        per_finding: policy of each finding, in the order of `FINDINGS`.
    """

    per_finding: tuple[Policy, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``u-ignore``, or ``u-ignore,Atelectasis=u-ones,Edema=u-ones``: a default, then exceptions.

        Raises:
            RequestError: a policy or finding is unknown, or the default is missing.
        """
        default, *exceptions = [part.strip() for part in text.split(",")]
        policies = dict.fromkeys(FINDINGS, _parse_policy(default))
        for part in exceptions:
            name, equals, policy = part.partition("=")
            if not equals:
                raise RequestError(f"policy {part!r} names no finding", "Write it as Atelectasis=u-ones.")
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
            f"policy {text!r} is unknown", f"Use one of {', '.join(Policy)}, or u-ignore,Atelectasis=u-ones."
        ) from None


EVALUATION_POLICY = UncertaintyPolicy((Policy.U_IGNORE,) * len(FINDINGS))
"""Uncertain labels are ignored in evaluation, because the training policy must not change the truth."""
