"""Predictions of a whole split: the rows keep their order, and the table agrees with the manifest."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrtool.choices import Blank, Level
from cxrtool.data.manifest import load_manifest
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading, read_pixels
from cxrtool.predict.split import manifest_logits, table_of


class Means:
    """An engine whose five logits are the mean of the image times 1 to 5."""

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (pixels.mean(axis=(1, 2, 3))[:, None] * np.arange(1, 6) / 255).astype(np.float32)


def test_logits_keep_the_order_of_the_rows(phantoms: Path) -> None:
    manifest = load_manifest(phantoms, "valid")
    seen: list[int] = []
    reading = Reading(Preprocessing(32), batch_size=5, workers=3)
    engine = Means()
    found = manifest_logits(engine, manifest, reading, 5, lambda step: seen.append(step.done))  # type: ignore[arg-type]
    alone = [
        engine.logits(read_pixels(manifest.file(row), Preprocessing(32))[None, None])[0] for row in range(len(manifest))
    ]
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    assert len(np.unique(found[:, 0])) > len(manifest) / 2, "equal logits would hide a wrong order"
    assert seen == sorted(seen)
    assert seen[-1] == len(manifest)


def test_the_table_agrees_with_the_manifest(phantoms: Path) -> None:
    manifest = load_manifest(phantoms, "train", columns=("AP/PA",))
    logits = np.random.default_rng(0).normal(size=(len(manifest), 5)).astype(np.float32)
    raw = manifest.raw_labels
    for blank in Blank:
        table = table_of(logits, manifest, blank, "abc")
        assert (table.split, table.level, table.model_sha256) == ("train", Level.IMAGE, "abc")
        assert table.ids == tuple(manifest.paths)
        assert table.patients == tuple(manifest.patients)
        np.testing.assert_allclose(table.scores, 1 / (1 + np.exp(-logits.astype(float))), rtol=1e-5)
        hidden = (raw == -1) | (np.isnan(raw) if blank is Blank.IGNORE else False)
        np.testing.assert_array_equal(table.mask, ~hidden)
        np.testing.assert_array_equal(table.targets[table.mask], np.nan_to_num(raw)[table.mask])
        assert set(table.attributes) == {"sex", "age", "projection", "AP/PA"}
        assert table.attributes["AP/PA"] == table.attributes["projection"]
    assert (raw == -1).any()
    assert np.isnan(raw).any()
