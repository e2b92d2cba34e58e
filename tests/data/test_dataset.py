"""A data set's missing images and shared patients."""

import os
from pathlib import Path

from bad_inputs import HEADER, sheet
from cxrtool.data.dataset import missing_images
from cxrtool.data.manifest import load_manifest


def test_missing_and_outside_images_are_named_with_the_reason(tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(b"x")
    root = tmp_path / "data"
    (root / "train").mkdir(parents=True)
    (root / "train" / "good.jpg").write_bytes(b"x")
    os.symlink(outside, root / "train" / "link.jpg")
    os.symlink(root / "train" / "good.jpg", root / "train" / "inner.jpg")
    paths = ["train/good.jpg", "train/gone.jpg", "train/link.jpg", "train/inner.jpg", "../secret.jpg", str(outside)]
    rows = [f"{path},,,Frontal,,0,0,0,0,0" for path in paths]
    missing = missing_images(load_manifest(sheet(root, "\n".join([HEADER, *rows])), "train"))
    assert missing.rows.tolist() == [False, True, True, False, True, True]
    assert missing.reasons == {
        1: "no such file",
        2: "outside the data folder",
        4: "outside the data folder",
        5: "outside the data folder",
    }
