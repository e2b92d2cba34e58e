"""A comparison in sentences that agree with its intervals, p-values and corrections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cxrtool.cells import p_text, range_text
from cxrtool.evaluation.difference import MEAN, Difference
from cxrtool.evaluation.intervals import FEW_PATIENTS, BootstrapSettings, Interval
from cxrtool.evaluation.paired_test import smallest_counted_p_value

_NAMED = 3  # differences that a sentence names before it only counts them


@dataclass(frozen=True)
class Subject:
    """What was compared.

    Attributes:
        split: name of the split.
        studies: number of distinct studies.
        patients: number of distinct patients.
        settings: level of the intervals.
    """

    split: str
    studies: int
    patients: int
    settings: BootstrapSettings

    def __str__(self) -> str:
        return f"on {self.split} ({self.studies} studies of {self.patients} patients)"


def sentence_on(subject: Subject, differences: Sequence[Difference]) -> str:
    """Say which differences in AUROC are larger than chance explains, and which could have been found.

    Args:
        subject: what was compared.
        differences: all differences in AUROC, of the means and by finding.
    """
    if subject.patients == 1:
        return f"There is one patient only {subject}, so no difference can be told from chance."
    means = [item for item in differences if item.finding == MEAN]
    findings = [item for item in differences if item.finding != MEAN]
    if all(item.p_value is None for item in means):
        return f"The mean AUROC is undefined {subject}, so the models cannot be compared."
    sentences = [*_on(means, f"mean AUROC {subject}", with_finding=False)]
    if len({item.finding for item in findings}) > 1 and not all(item.identical for item in findings):
        sentences += _on(findings, "AUROC by finding", with_finding=True)
    sentences += _on_margin(means, subject)
    if subject.patients < FEW_PATIENTS:
        sentences.append(f"With fewer than {FEW_PATIENTS} patients, intervals mean little.")
    return " ".join(sentences)


def notes_on(
    differences: Sequence[Difference], runs: Mapping[str, int], settings: BootstrapSettings
) -> tuple[str, ...]:
    """Say which candidates are identical, what p-values cover, and where draws are too few to count.

    Args:
        differences: all differences.
        runs: number of runs of each candidate.
        settings: number of draws.
    """
    notes = [
        f"{item.first} and {item.second} have identical scores and count as one model"
        for item in differences
        if item.identical and item.finding == MEAN and item.figure == "auroc"
    ]
    floor = smallest_counted_p_value(settings.draws)
    most = max(item.comparisons for item in differences)
    if floor * most >= differences[0].alpha:
        notes.append(
            f"counting {settings.draws:,} draws gives no p below {p_text(floor)}, which Holm's correction over {most} "
            f"comparisons takes to {p_text(min(1.0, floor * most))}: no counted p could be significant. P-values of "
            "AUROC do not count draws; those of AUPRC at this floor are the normal tail of the bootstrap's standard "
            "error"
        )
    if all(item.covers_seeds for item in differences if item.value is not None):
        notes.append("p-values and intervals of differences contain the spread between trainings of each model")
    elif any(count > 1 for count in runs.values()):
        notes.append(
            "p-values and intervals do not contain the spread between trainings where a model has one run only"
        )
    else:
        notes.append(
            "p-values and intervals are of these trained models: they do not contain the spread between trainings of "
            "one recipe"
        )
    return tuple(notes)


def _on(items: Sequence[Difference], of: str, with_finding: bool) -> list[str]:
    """Return sentences on differences beyond chance, on those that are not after Holm's correction, and on the rest."""
    tested = sorted((item for item in items if item.p_holm is not None), key=lambda item: -item.size)
    clear = [item for item in tested if item.beyond_chance]
    corrected = [item for item in tested if item.excludes_zero and not item.beyond_chance]
    rest = [item for item in tested if not item.excludes_zero]
    sentences = []
    if clear:
        found = [
            f"{item.better} beats {item.worse}{_in(item, with_finding)} by {item.size:.4f} "
            f"({range_text(_of_better(item), signed=True)}, {_p(item)})"
            for item in clear[:_NAMED]
        ]
        count = f" ({len(clear)} of {len(items)} differences)" if with_finding else ""
        sentences.append(f"In {of}, beyond chance{count}: {'; '.join(found)}{_more(clear)}.")
    if corrected:
        found = [f"{_named(item, with_finding)}, {_p(item)}" for item in corrected[:_NAMED]]
        where = "" if clear else f"In {of}, "
        verb = "the interval excludes" if len(corrected) == 1 else "the intervals exclude"
        verb = verb if where else verb.capitalize()
        over = corrected[0].comparisons
        but = f"after Holm's correction over {over} comparisons p is" if over > 1 else "p is"
        sentences.append(
            f"{where}{verb} zero, but {but} not below {corrected[0].alpha:g}: {'; '.join(found)}{_more(corrected)}."
        )
    if rest:
        sentences.append(_no_difference(rest, "" if clear or corrected else f" in {of}", with_finding))
    return sentences


def _no_difference(rest: Sequence[Difference], of: str, with_finding: bool) -> str:
    if all(item.identical for item in rest):
        return f"No difference{of} between {_pair(rest[0])}{_more(rest, 1)}: their scores are identical."
    other = "" if of else " other"
    largest = rest[0]
    which = f"{_named(largest, with_finding)}, {_p(largest)}"
    text = f"No{other} difference{of} is larger than chance explains"
    text += f": {which}." if len(rest) == 1 else f"; the largest of {len(rest)}: {which}."
    seen = sorted(item.detectable for item in rest if item.detectable is not None)
    if seen:
        size = f"{seen[0]:.4f}" if len(seen) == 1 else f"{seen[0]:.4f} to {seen[-1]:.4f}, depending on the comparison,"
        over = rest[0].comparisons
        level = f" at level {rest[0].alpha:g}" + (f" / {over} comparisons" if over > 1 else "")
        text += f" A true difference of {size} would have been found with a probability of 80 %{level}."
    return text


def _on_margin(means: Sequence[Difference], subject: Subject) -> list[str]:
    """Return a sentence on non-inferiority in mean AUROC, one clause for each direction asked about."""
    judged = [item for item in means if item.first_not_inferior is not None]
    if not judged:
        return []
    clauses = []
    against_one = len(means) > 1 and len({item.second for item in means}) == 1
    for item in judged:
        low, high = item.interval.low or 0.0, item.interval.high or 0.0
        clauses.append(_judged(item.first, item.second, item.first_not_inferior, low))
        if not against_one:
            clauses.append(_judged(item.second, item.first, item.second_not_inferior, -high))
    level = f"{100 * (1 - subject.settings.confidence) / 2:g} %"
    margin = judged[0].margin or 0.0
    return [
        f"With a margin of {margin:g} in mean AUROC (one-sided level {level}, not corrected for the number of pairs): "
        f"{'; '.join(clauses)}."
    ]


def _judged(first: str, second: str, holds: bool | None, low: float) -> str:
    verdict = "is not inferior" if holds else "is not shown to be non-inferior"
    return f"{first} {verdict} to {second} (lower end of the difference {low:+.4f})"


def _named(item: Difference, with_finding: bool) -> str:
    value = f"{item.value:+.4f} ({range_text(item.interval, signed=True)})"
    return f"{item.first} - {item.second}{_in(item, with_finding)} {value}"


def _of_better(item: Difference) -> Interval:
    """Return the interval of the better candidate's figure minus the worse one's."""
    low, high = item.interval.low or 0.0, item.interval.high or 0.0
    return Interval(low, high) if item.better == item.first else Interval(-high, -low)


def _pair(item: Difference) -> str:
    return f"{item.first} and {item.second}"


def _in(item: Difference, with_finding: bool) -> str:
    return f" in {item.finding}" if with_finding else ""


def _p(item: Difference) -> str:
    name = "Holm p" if item.comparisons > 1 else "p"
    text = p_text(item.p_holm)
    return f"{name} {text}" if text.startswith("<") else f"{name} = {text}"


def _more(items: Sequence[Difference], named: int = _NAMED) -> str:
    return f" and {len(items) - named} more" if len(items) > named else ""
