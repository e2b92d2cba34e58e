"""Heatmaps in the file layout of CheXlocalize's evaluator (Saporta et al. 2022, Nature Machine Intelligence 4:867)."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from cxrtool.data.rle import encode_rle
from cxrtool.data.truth import CHEXLOCALIZE_NAMES, CHEXLOCALIZE_TASKS, chexlocalize_id
from cxrtool.evaluation.localization import cut_map, stretched
from cxrtool.files import write_bytes, write_json
from cxrtool.findings import Findings
from cxrtool.tasks.localize_cases import Case


class ChexlocalizeFiles:
    """Writes heatmaps for CheXlocalize's evaluator.

    For the overlap it writes pred_segmentations.json with every task of CheXlocalize, empty for tasks that this model
    does not have; for the hit rate a pickle per map, as the evaluator requires: ``map`` [1, 1, h, w], which it
    enlarges, ``cxr_dims`` (width, height), ``prob``, which it compares with its cut-offs, and ``task``. Maps are cut at
    Otsu's threshold and holes filled, as its heatmap_to_segmentation.py does. cxrtool never reads these pickles.
    """

    def __init__(self, folder: Path, findings: Findings) -> None:
        self._folder, self._findings = folder, findings
        self._segmentations: dict[str, dict[str, Any]] = {}

    def add(self, case: Case) -> None:
        """Add the maps of one image, cut at Otsu's threshold as in CheXlocalize."""
        import torch

        height, width = case.image.shape
        empty = np.zeros((height, width), dtype=np.bool_)
        tasks: dict[str, Any] = {task: encode_rle(empty) for task in CHEXLOCALIZE_TASKS}
        name = chexlocalize_id(case.path)
        for column, coarse in case.maps.items():
            finding = CHEXLOCALIZE_NAMES.get(self._findings.names[column])
            if finding is None:
                continue
            heatmap = stretched(case.heatmap(column))
            tasks[finding] = encode_rle(cut_map(heatmap, None, fill_holes=True) if heatmap.any() else empty)
            content = {
                "map": torch.from_numpy(coarse)[None, None],
                "prob": float(case.probabilities[column]),
                "task": finding,
                "cxr_dims": (width, height),
            }
            write_bytes(self._folder / "maps" / f"{name}_{finding}_map.pkl", pickle.dumps(content))
        self._segmentations[name] = tasks

    def finish(self) -> None:
        """Write pred_segmentations.json with all images added."""
        write_json(self._folder / "pred_segmentations.json", self._segmentations)
