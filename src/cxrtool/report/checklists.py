"""Reporting checklists, filled where the tool knows the answer."""

from collections.abc import Iterable

from cxrtool.report.checklist_items import CHECKLISTS
from cxrtool.report.facts import facts_of
from cxrtool.report.parts import Section
from cxrtool.report.study import Study
from cxrtool.report.table import Cell, Table

NOT_STATED = "not stated: for the author"


def checklist_tables(study: Study) -> Iterable[Table]:
    """Yield STARD 2015, TRIPOD+AI and CLAIM 2024: number, subject and answer of each item."""
    facts = facts_of(study)
    for name, (title, source, items) in CHECKLISTS.items():
        rows: list[list[Cell]] = [
            [number, subject, NOT_STATED if fact is None else facts.get(fact, NOT_STATED)]
            for number, subject, fact in items
        ]
        yield Table(
            title,
            ["item", "subject", "answer"],
            rows,
            f"checklist_{name}",
            texts=3,
            notes=(f"Subjects are abridged; the wording that counts is in {source}.",),
        )


def checklists_section(study: Study) -> Section:
    """Return the section with the three checklists, collapsed."""
    tables = list(checklist_tables(study))
    open_items = sum(str(row[-1]) == NOT_STATED for table in tables for row in table.rows)
    total = sum(len(table.rows) for table in tables)
    text = (
        f"{total - open_items} of {total} items of STARD 2015, TRIPOD+AI and CLAIM 2024 are answered from what is known "
        "here; check each answer. The others are for the author."
    )
    return Section("checklists", "Reporting checklists", (text,), tables, collapsed=True)
