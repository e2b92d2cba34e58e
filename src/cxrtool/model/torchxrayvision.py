"""What torchxrayvision's DenseNet121 weights expect and output (Cohen et al. 2022, arXiv:2111.00595).

Inputs are one grey channel from -1024 to 1024 at 224 x 224 pixels, the centre of the radiograph. The operating points
are those in the library's source (version 1.5.7, Apache licence); its weight files hold none.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from cxrtool.errors import RequestError
from cxrtool.findings import XRV18

SIZE = 224
MEAN, STD = 0.5, 1 / 2048
"""Mean and standard deviation of pixels in [0, 1] that give (2 p - 1) x 1024."""
_FILES = {
    "nih-pc-chex-mimic_ch-google-openi-kaggle": "all",
    "nih": "nih",
    "pc": "pc",
    "chex": "chex",
    "kaggle": "rsna",
    "mimic_nb": "mimic_nb",
    "mimic_ch": "mimic_ch",
}
"""Names of the weights by the start of the published file's name."""
_FILE = re.compile(r"^(.+?)-densenet121-d121-")
_POINTS: dict[str, tuple[float | None, ...]] = {
    "all": (
        0.07422872,
        0.038290843,
        0.09814756,
        0.0098118475,
        0.023601074,
        0.0022490358,
        0.010060724,
        0.103246614,
        0.056810737,
        0.026791653,
        0.050318155,
        0.023985857,
        0.01939503,
        0.042889766,
        0.053369623,
        0.035975814,
        0.20204692,
        0.05015312,
    ),
    "nih": (
        0.039117552,
        0.0034529066,
        0.11396341,
        0.0057298196,
        0.00045666535,
        0.0018880932,
        0.012037827,
        0.038744126,
        0.0037213727,
        0.014730946,
        0.016149804,
        0.054241467,
        0.037198864,
        0.0004403434,
        None,
        None,
        None,
        None,
    ),
    "pc": (
        0.031012505,
        0.013347598,
        0.081435576,
        0.001262615,
        0.002587246,
        0.0035944257,
        0.0023071,
        0.055412333,
        0.044385884,
        0.042766232,
        0.043258056,
        0.037629247,
        0.005658899,
        0.0091741895,
        None,
        0.026507627,
        None,
        None,
    ),
    "chex": (
        0.1988969,
        0.05710573,
        None,
        0.0531293,
        0.1435217,
        None,
        None,
        0.27212676,
        0.07749717,
        None,
        0.19712369,
        None,
        None,
        None,
        0.09932402,
        0.09273402,
        0.3270967,
        0.10888247,
    ),
    "rsna": (
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        0.13486601,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        0.13511065,
        None,
    ),
    "mimic_nb": (
        0.08558747,
        0.011884617,
        None,
        0.0040595434,
        0.010733786,
        None,
        None,
        0.118761964,
        0.022924708,
        None,
        0.06358637,
        None,
        None,
        None,
        0.022143636,
        0.017476924,
        0.1258702,
        0.014020768,
    ),
    "mimic_ch": (
        0.09121389,
        0.010573786,
        None,
        0.005023008,
        0.003698257,
        None,
        None,
        0.08001232,
        0.037242252,
        None,
        0.05006329,
        None,
        None,
        None,
        0.019866971,
        0.03823637,
        0.11303808,
        0.0069147074,
    ),
}
"""Probability from which each of the 18 outputs is positive, by the weights' name; None for an output not trained."""


@dataclass(frozen=True)
class XrvWeights:
    """One of the library's weight files.

    Attributes:
        name: its short name, such as ``chex``.
        findings: name of each of the 18 outputs, empty for one that was not trained.
    """

    name: str
    findings: tuple[str, ...]


def weights_named(path: Path, name: str | None = None) -> XrvWeights | None:
    """Return the weights called `name`, else those whose published file is called as `path`; None if neither is known.

    Raises:
        RequestError: there are no weights called `name`.
    """
    if name is not None:
        short = name.removeprefix("densenet121-res224-")
        if short not in _POINTS:
            raise RequestError(f"torchxrayvision has no weights {name!r}", f"It has {', '.join(_POINTS)}.")
    else:
        found = _FILE.match(path.name)
        short = _FILES.get(found[1], "") if found else ""
    if not short:
        return None
    names = ("" if point is None else finding for finding, point in zip(XRV18, _POINTS[short], strict=True))
    return XrvWeights(short, tuple(names))


def operating_points(weights: XrvWeights) -> tuple[float, ...]:
    """Return the operating point of each output, [18] in [0, 1]; NaN for one that was not trained."""
    return tuple(float("nan") if point is None else point for point in _POINTS[weights.name])
