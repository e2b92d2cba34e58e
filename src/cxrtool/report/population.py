"""Who was analysed: the flow from rows to patients as a diagram and a table, and the characteristics of each split."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from cxrtool.choices import Blank
from cxrtool.data.characteristics import Characteristics
from cxrtool.data.flow import RowFlow
from cxrtool.report.table import Cell, Table

SPLIT_ORDER = ("train", "valid", "test")
_REASONS = {
    "repeated": "repeated path",
    "lateral": "lateral view",
    "unknown_view": "unknown view",
    "missing": "image missing",
    "unreadable": "image not readable",
}


def flow_table(flows: Mapping[str, RowFlow]) -> Table | None:
    """Return the numbers of rows, of those left out by reason, and of what was analysed; None if none are known."""
    splits = ordered(flows)
    titles = {
        "rows": "rows in the sheet",
        **{name: f"left out: {reason}" for name, reason in _REASONS.items()},
        "images": "images analysed",
        "studies": "studies analysed",
        "patients": "patients analysed",
    }
    rows: list[list[Cell]] = [
        [title, *(getattr(flows[split], name) for split in splits)] for name, title in titles.items()
    ]
    return Table("From rows to patients", ["", *splits], rows, "flow") if splits else None


def ordered(by_split: Mapping[str, object]) -> list[str]:
    """Return the names of the splits: train, valid and test first, in this order."""
    return sorted(by_split, key=lambda split: (SPLIT_ORDER.index(split) if split in SPLIT_ORDER else 3, split))


def flow_size(flows: Mapping[str, RowFlow], width: float) -> tuple[float, float]:
    """Return the size in inches of the flow diagram, for a width in inches."""
    return width, _LINE * (_HEAD + _between(flows) + _FOOT)


_LINE, _HEAD, _FOOT = 0.165, 2.8, 5.0
"""Height of a line of text in inches, and of the first and the last boxes in such lines."""


def _between(flows: Mapping[str, RowFlow]) -> float:
    """Return the space between the first and the last boxes, in lines of text."""
    return 3.2 + max(len(_left_out(flow)) for flow in flows.values())


def paint_flow(axes: Axes, flows: Mapping[str, RowFlow]) -> None:
    """Draw one column per split: rows of the sheet, those left out with reasons, and those analysed.

    After the diagram of STARD 2015 (Bossuyt et al., BMJ 351:h5527), for rows of a sheet instead of persons. Heights are
    in lines of text.
    """
    axes.set_axis_off()
    splits, between = ordered(flows), _between(flows)
    axes.set(xlim=(0, len(splits)), ylim=(0, _HEAD + between + _FOOT))
    for place, split in enumerate(splits):
        flow, left, middle = flows[split], place + 0.02, place + 0.22
        top, half = _FOOT + between, _FOOT + between / 2
        _box(axes, left, top + 0.1, 0.4, _HEAD - 0.2, f"{split}\n{flow.rows:,} rows")
        _box(axes, left, 0.1, 0.4, _FOOT - 0.2, _analysed(flow))
        axes.annotate("", (middle, _FOOT - 0.1), (middle, top + 0.1), arrowprops=_ARROW)
        left_out = _left_out(flow)
        if left_out:
            height = len(left_out) + 1.8
            axes.annotate("", (place + 0.44, half), (middle, half), arrowprops=_ARROW)
            _box(axes, place + 0.44, half - height / 2, 0.53, height, "\n".join(["left out:", *left_out]))
        else:
            axes.text(middle + 0.03, half, "none left out", va="center", ha="left")


def describe_left_out(flow: RowFlow) -> str:
    """Return the rows left out by reason, such as ``3 were left out: 2 lateral view; 1 image missing``."""
    total = flow.rows - flow.images
    return f"{total:,} were left out: {'; '.join(_left_out(flow))}" if total else "none were left out"


def describe_flow(flows: Mapping[str, RowFlow]) -> str:
    """Return the diagram in words."""
    parts = []
    for split in ordered(flows):
        flow = flows[split]
        left_out = "; ".join(_left_out(flow)) or "none"
        parts.append(
            f"{split}: {flow.rows:,} rows; left out: {left_out}; analysed: {flow.images:,} images of "
            f"{flow.studies:,} studies of {flow.patients:,} patients"
        )
    return ". ".join(parts)


_ARROW = {"arrowstyle": "->", "color": "#000000", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}


def _box(axes: Axes, left: float, low: float, width: float, height: float, text: str) -> None:
    box = FancyBboxPatch(
        (left, low), width, height, boxstyle="square,pad=0", facecolor="none", edgecolor="#000000", linewidth=0.8
    )
    axes.add_patch(box)
    axes.text(left + width / 2, low + height / 2, text, ha="center", va="center", linespacing=1.35)


def _analysed(flow: RowFlow) -> str:
    return f"analysed\n{flow.images:,} images\n{flow.studies:,} studies\n{flow.patients:,} patients"


def _left_out(flow: RowFlow) -> list[str]:
    counts = {reason: getattr(flow, name) for name, reason in _REASONS.items()}
    return [f"{count:,} {reason}" for reason, count in counts.items() if count]


def characteristics_table(found: Mapping[str, Characteristics], blank: Blank) -> Table | None:
    """Return the characteristics of each split, one column per split; None if none are known.

    Prevalence counts blank labels as `blank` says.
    """
    splits = ordered(found)
    if not splits:
        return None
    rows: list[list[Cell]] = []

    def add(title: str, by_split: list[Cell]) -> None:
        rows.append([title, *by_split])

    for name in ("patients", "studies", "images"):
        add(name, [getattr(found[split], name) for split in splits])
    add("age, median (quartiles), years", [_ages(found[split]) for split in splits])
    add("age over 89, patients", [_share(found[split].over_89, found[split].ages_known) for split in splits])
    for sex in _names([found[split].sexes for split in splits]):
        add(
            f"sex {sex}, patients",
            [_share(found[split].sexes.get(sex, 0), found[split].patients) for split in splits],
        )
    for view in _names([found[split].projections for split in splits]):
        shares: list[Cell] = [_share(found[split].projections.get(view, 0), found[split].images) for split in splits]
        add(f"projection {view}, images", shares)
    for finding in _names([found[split].labels for split in splits]):
        add(f"{finding}, prevalence", [_prevalence(found[split], finding, blank) for split in splits])
        add(f"{finding}, positive / negative / uncertain / blank", [_labels(found[split], finding) for split in splits])
    notes = (
        "Age and sex are counted by patient (age at the first study), projection by image, labels by study as given in "
        f"the sheet, before any policy. For the prevalence, blank labels "
        f"{'are negative' if blank is Blank.NEGATIVE else 'do not count'} and uncertain ones do not count.",
    )
    plain = Table("", ["split", "what", "group", "of", "number"], _plain(found, blank), "characteristics")
    return Table("Characteristics of the splits", ["", *splits], rows, "characteristics", notes=notes, plain=plain)


def _plain(found: Mapping[str, Characteristics], blank: Blank) -> list[list[Cell]]:
    """Return the characteristics with one number per row: split, what, group, unit that is counted, number."""
    rows: list[list[Cell]] = []
    for split in ordered(found):
        one = found[split]
        rows += [[split, unit, "all", unit, getattr(one, unit)] for unit in ("patients", "studies", "images")]
        for name, age in zip(("first quartile", "median", "third quartile"), one.ages or (), strict=False):
            rows.append([split, "age", name, "years", age])
        rows.append([split, "age", "over 89", "patients", one.over_89])
        rows.append([split, "age", "not given", "patients", one.patients - one.ages_known])
        rows += [[split, "sex", sex, "patients", count] for sex, count in one.sexes.items()]
        rows += [[split, "projection", view, "images", count] for view, count in one.projections.items()]
        for finding, counts in one.labels.items():
            rows += [[split, finding, label, "studies", count] for label, count in asdict(counts).items()]
            rows.append([split, finding, "prevalence", "share", counts.prevalence(blank)])
    return rows


def _names(groups: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the names in any of the groups, in the order of their first appearance."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _ages(found: Characteristics) -> str | None:
    if found.ages is None:
        return None
    first, median, third = (f"{age:.1f}".removesuffix(".0") for age in found.ages)
    missing = found.patients - found.ages_known
    return f"{median} ({first} to {third})" + (f", {missing:,} not given" if missing else "")


def _share(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / total:.1f} %)" if total else f"{count:,}"


def _prevalence(found: Characteristics, finding: str, blank: Blank) -> str | None:
    value = found.labels[finding].prevalence(blank) if finding in found.labels else None
    return None if value is None else f"{100 * value:.1f} %"


def _labels(found: Characteristics, finding: str) -> str | None:
    one = found.labels.get(finding)
    return None if one is None else f"{one.positive:,} / {one.negative:,} / {one.uncertain:,} / {one.blank:,}"
