"""Synthetic radiographs on which precisions and exports of a bundle are checked."""

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.preprocessing import Preprocessing, preprocess
from cxrtool.findings import FINDINGS
from cxrtool.phantoms.drawing import LATERAL_SIDES, Case, draw_anatomy, draw_frontal


def check_images(preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return always the same eight phantoms, [8, 1, S, S] uint8: each finding alone, none, all faint and all strong."""
    rng = np.random.default_rng(20)
    sets = [{finding: 0.6} for finding in FINDINGS]
    sets += [{}, dict.fromkeys(FINDINGS, 0.3), dict.fromkeys(FINDINGS, 0.9)]
    images = []
    for number, severities in enumerate(sets):
        sides = dict.fromkeys(severities, (LATERAL_SIDES[number % 2],)) | {"Edema": LATERAL_SIDES}
        case = Case(severities, {name: sides[name] for name in severities}, "AP" if number % 2 else "PA")
        film = draw_frontal(draw_anatomy(rng), case, max(preprocessing.image_size, 64), rng).image
        images.append(preprocess(film, preprocessing))
    return np.stack(images)[:, None]
