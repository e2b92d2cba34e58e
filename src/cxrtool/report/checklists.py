"""Reporting checklists, filled where the tool knows the answer."""

from collections.abc import Iterable

from cxrtool.report.checklist_items import CHECKLISTS
from cxrtool.report.facts import facts_of
from cxrtool.report.parts import Section
from cxrtool.report.study import Study
from cxrtool.report.table import Cell, Table

NOT_STATED = "not stated: for the author"
FILLED, IN_PART, OPEN = "filled", "in part", "open"


def _status(answer: str) -> str:
    if answer == NOT_STATED:
        return OPEN
    return IN_PART if "not stated" in answer else FILLED


def checklist_tables(study: Study) -> Iterable[Table]:
    """Yield STARD 2015, TRIPOD+AI and CLAIM 2024: number, subject and answer of each item."""
    facts = facts_of(study)
    for name, (title, source, items) in CHECKLISTS.items():
        answers = [NOT_STATED if fact is None else facts.get(fact, NOT_STATED) for _, _, fact in items]
        rows: list[list[Cell]] = [
            [number, subject, _status(answer), answer]
            for (number, subject, _), answer in zip(items, answers, strict=True)
        ]
        yield Table(
            title,
            ["item", "subject", "status", "answer"],
            rows,
            f"checklist_{name}",
            texts=4,
            notes=(f"Subjects are abridged; the wording that counts is in {source}.",),
        )


def checklists_section(study: Study) -> Section:
    """Return the section with the three checklists, collapsed."""
    tables = list(checklist_tables(study))
    status = [row[2] for table in tables for row in table.rows]
    text = (
        f"Of {len(status)} items of STARD 2015, TRIPOD+AI and CLAIM 2024, {status.count(FILLED)} are filled from what "
        f"is known here and {status.count(IN_PART)} in part; check each answer. The others are for the author."
    )
    return Section("checklists", "Reporting checklists", (text,), tables, collapsed=True)
