"""The layouts by name, and the choice of one for a data folder."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cxrtool.choices import LayoutName
from cxrtool.data.layouts.any_sheet import GivenSheets
from cxrtool.data.layouts.base import Layout
from cxrtool.data.layouts.chexpert import CheXpert, CheXpertBatches, find_sheet
from cxrtool.data.layouts.chexpert_plus import CheXpertPlus
from cxrtool.data.layouts.mimic import Mimic
from cxrtool.data.layouts.nih import Nih
from cxrtool.data.layouts.padchest import PadChest
from cxrtool.data.layouts.vindr import VinDr
from cxrtool.data_settings import DataSettings
from cxrtool.errors import RequestError
from cxrtool.sheet_options import SPLITS

log = logging.getLogger(__name__)

LAYOUTS: dict[LayoutName, Callable[[Path], Layout]] = {
    LayoutName.CHEXPERT: CheXpert,
    LayoutName.CHEXPERT_BATCHES: CheXpertBatches,
    LayoutName.CHEXPERT_PLUS: CheXpertPlus,
    LayoutName.MIMIC: Mimic,
    LayoutName.MIMIC_NEGBIO: partial(Mimic, labeller="negbio"),
    LayoutName.NIH: Nih,
    LayoutName.PADCHEST: PadChest,
    LayoutName.VINDR: VinDr,
}
_RECOGNISED = (
    (LayoutName.VINDR, VinDr.recognised),
    (LayoutName.CHEXPERT_BATCHES, CheXpertBatches.recognised),
    (LayoutName.CHEXPERT_PLUS, CheXpertPlus.recognised),
    (LayoutName.MIMIC, Mimic.recognised),
    (LayoutName.NIH, Nih.recognised),
    (LayoutName.PADCHEST, PadChest.recognised),
)


def open_layout(data: DataSettings) -> Layout:
    """Return the layout of a data set: the given sheets, the named layout, or the one whose files are there.

    A folder with a sheet of CheXpert's names has CheXpert's layout, unless that sheet is VinDr's or lies beside
    CheXpert's four folders.

    Raises:
        RequestError: no data folder is given, or settings contradict each other.
    """
    files, columns = data.sheet_files, data.sheet_columns
    if files is not None:
        if data.layout is not LayoutName.AUTO:
            raise RequestError("--sheet and --layout cannot be combined", "Leave out one of them.")
        return GivenSheets(data.folder, files, columns)
    name = layout_of(data.folder) if data.layout is LayoutName.AUTO else data.layout
    if name is LayoutName.CHEXPERT:
        return CheXpert(data.folder, columns)
    if columns:
        raise RequestError(f"--columns is given, but the columns of the layout {name} are known", "Leave it out.")
    layout = LAYOUTS[name](data.folder)
    if data.layout is LayoutName.AUTO:
        log.info("%s is read as %s (--layout %s)", data.folder, layout.title, name)
    return layout


def layout_of(folder: Path) -> LayoutName:
    """Return the layout whose files a folder has; CheXpert's if it has none that is known."""
    first = next((name for name, recognised in _RECOGNISED if recognised(folder)), LayoutName.CHEXPERT)
    own = any(find_sheet(folder, split) is not None for split in SPLITS)
    return LayoutName.CHEXPERT if own and first not in (LayoutName.VINDR, LayoutName.CHEXPERT_BATCHES) else first
