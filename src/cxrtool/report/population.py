"""Who was analysed: the flow from rows to patients as a diagram and a table, and the characteristics of each split."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from cxrtool.choices import Blank
from cxrtool.data.characteristics import Characteristics
from cxrtool.data.flow import RowFlow
from cxrtool.report.table import Cell, Table

SPLIT_ORDER = ("train", "valid", "test")
_REASONS = {
    "repeated": "repeat a path",
    "lateral": "lateral view",
    "unknown_view": "view not known",
    "missing": "image missing",
    "unreadable": "image not readable",
}


def flow_table(flows: Mapping[str, RowFlow]) -> Table | None:
    """Return the numbers of rows, of those left out by reason, and of what was analysed, by split; None if none."""
    names = ("rows", *_REASONS, "images", "studies", "patients")
    titles = {"rows": "rows in the sheet", "images": "images analysed"} | _REASONS
    rows: list[list[Cell]] = [[split, *(getattr(flows[split], name) for name in names)] for split in ordered(flows)]
    header = ["split", *(titles.get(name, name) for name in names)]
    return Table("From rows to patients", header, rows, "flow") if rows else None


def ordered(by_split: Mapping[str, object]) -> list[str]:
    """Return the names of the splits: train, valid and test first, in this order."""
    return sorted(by_split, key=lambda split: (SPLIT_ORDER.index(split) if split in SPLIT_ORDER else 3, split))


def flow_size(flows: Mapping[str, RowFlow], width: float) -> tuple[float, float]:
    """Return the size in inches of the flow diagram, for a width in inches."""
    reasons = max(len(_left_out(flow)) for flow in flows.values())
    return width, 1.5 + 0.17 * max(reasons, 2)


def paint_flow(axes: Axes, flows: Mapping[str, RowFlow]) -> None:
    """Draw one column per split: rows of the sheet, those left out with reasons, and those analysed.

    After the diagram of STARD 2015 (Bossuyt et al., BMJ 351:h5527), for rows of a sheet instead of persons.
    """
    axes.set_axis_off()
    splits = ordered(flows)
    axes.set(xlim=(0, len(splits)), ylim=(0, 1))
    for place, split in enumerate(splits):
        flow, left, middle = flows[split], place + 0.03, place + 0.26
        _box(axes, left, 0.80, 0.46, 0.18, f"{split}\n{flow.rows:,} rows")
        _box(axes, left, 0.02, 0.46, 0.28, _analysed(flow))
        left_out = _left_out(flow)
        axes.annotate("", (middle, 0.31), (middle, 0.80), arrowprops=_ARROW)
        if left_out:
            axes.annotate("", (place + 0.50, 0.55), (middle, 0.55), arrowprops=_ARROW)
            _box(axes, place + 0.505, 0.36, 0.465, 0.38, "\n".join(["left out:", *left_out]))
        else:
            axes.text(middle + 0.03, 0.55, "none left out", va="center", ha="left")


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
    return Table("Characteristics of the splits", ["", *splits], rows, "characteristics", notes=notes)


def _names(groups: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the names in any of the groups, in the order of their first appearance."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _ages(found: Characteristics) -> str | None:
    if found.ages is None:
        return None
    first, median, third = (f"{age:g}" for age in found.ages)
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
