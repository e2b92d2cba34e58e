"""``cxr localize`` on phantoms, whose true regions are known, and the figures that ``cxr explain`` then prints."""

import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from scipy.ndimage import binary_fill_holes
from torch.nn.functional import interpolate

from conftest import Call
from cxrtool import Classifier
from cxrtool.data.truth import CHEXLOCALIZE_TASKS
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import read_header


def test_figures_are_those_of_the_maps_of_explain(call: Call, phantoms: Path, run: Path) -> None:
    # One image at a time, as below: sums in a larger batch round differently, which can move a peak.
    options = ["--draws", 50, "--methods", "grad-cam", "--batch-size", 1, "--json"]
    done = call("localize", "--data", phantoms, "--model", run, *options)
    assert done.code == 0, done.stderr
    (method,) = done.json["methods"].values()
    classifier = Classifier.load(run)
    for finding in FINDINGS:
        hits = []
        for file in sorted((phantoms / "masks" / "test").rglob(f"{finding.replace(' ', '_')}.png")):
            truth = np.asarray(Image.open(file)) > 127
            path = phantoms / "test" / file.parent.relative_to(phantoms / "masks" / "test").with_suffix(".jpg")
            peak = classifier.explain(path, finding).peak
            hits.append(peak is not None and bool(truth[peak[1], peak[0]]))
        reported = method["labels"][finding]
        assert reported["images"] == len(hits)
        assert reported["hit_rate"] == (pytest.approx(np.mean(hits)) if hits else None)


def test_explain_prints_the_measured_hit_rate(call: Call, phantoms: Path, run: Path) -> None:
    image = next((phantoms / "test").rglob("*frontal.jpg"))
    before = Classifier.load(run).explain(image, "Edema")
    assert "not known" in " ".join(before.notes)
    assert call("localize", "--data", phantoms, "--model", run, "--methods", "grad-cam,layer-cam").code == 0
    stored = read_header(run / "model.safetensors").localization
    assert [one.method for one in stored] == [
        "Grad-CAM (denseblock2), smoothed 0.08, with its mirror image",
        "LayerCAM (denseblock2), smoothed 0.08, with its mirror image",
    ]
    finding = next(iter(stored[0].hit_rate))
    after = Classifier.load(run).explain(image, finding)
    assert f"% of {stored[0].images[finding]} images" in after.known
    assert after.known in after.notes
    call("localize", "--data", phantoms, "--model", run, "--otsu")
    assert len(read_header(run / "model.safetensors").localization) == 2, "new figures replace the old ones"


def test_maps_in_chexlocalizes_layout(call: Call, phantoms: Path, run: Path, tmp_path: Path) -> None:
    done = call("localize", "--data", phantoms, "--model", run, "--maps-out", "out", "--limit", 4)
    assert done.code == 0, done.stderr
    content = json.loads((tmp_path / "out" / "pred_segmentations.json").read_text())
    for name, tasks in content.items():
        assert set(tasks) == set(CHEXLOCALIZE_TASKS)
        for task, item in tasks.items():
            assert coco.decode(item).shape == (64, 64)
            file = tmp_path / "out" / "maps" / f"{name}_{task}_map.pkl"
            if file.exists():
                stored = pickle.loads(file.read_bytes())
                assert stored["cxr_dims"] == (64, 64)
                assert stored["task"] == task
                assert 0 <= stored["prob"] <= 1
                # What its scripts do: enlarge, normalise, truncate to levels, cut at Otsu's, fill the outlines.
                if not stored["map"].any():
                    continue
                large = interpolate(stored["map"], size=stored["cxr_dims"][::-1], mode="bilinear").squeeze().numpy()
                levels = np.uint8(255 * (large - large.min()) / (large.max() - large.min()))
                _, cut = cv2.threshold(levels, 0, levels.max(), cv2.THRESH_OTSU)
                assert (coco.decode(item) != binary_fill_holes(cut > 0)).mean() < 0.01
            else:
                assert not coco.decode(item).any()


def test_faithfulness_is_reported(call: Call, phantoms: Path, run: Path) -> None:
    options = ["--faithfulness", 2, "--limit", 6, "--draws", 20, "--methods", "grad-cam"]
    (method,) = call("localize", "--data", phantoms, "--model", run, *options, "--json").json["methods"].values()
    assert set(method["sanity"]) >= {"classifier", "all"}
    assert 0 <= method["deletion"] <= 1
    assert 0 <= method["insertion"] <= 1
    assert "randomised" in call("localize", "--data", phantoms, "--model", run, *options).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "grad-cma"], "grad-cam"),
        (["--methods", "grad-cam@denseblock9"], "denseblock3"),
        (["--masks", "nowhere"], "nowhere"),
        (["--boxes", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_a_wrong_request_exits_with_2_and_writes_nothing(
    call: Call, phantoms: Path, run: Path, options: list[str], message: str
) -> None:
    done = call("localize", "--data", phantoms, "--model", run, *options)
    assert done.code == 2
    assert message in done.stderr
    assert not (run / "localize_test").exists()


def test_a_panel_of_one_finding_is_refused(call: Call, phantoms: Path, run: Path) -> None:
    image = next((phantoms / "test").rglob("*frontal.jpg"))
    done = call("explain", image, "--model", run, "--panel", "--label", "Edema")
    assert done.code == 2
    assert "cannot be combined with --label" in done.stderr


def test_the_panel_shows_all_five(call: Call, phantoms: Path, run: Path, tmp_path: Path) -> None:
    image = next((phantoms / "test").rglob("*frontal.jpg"))
    done = call("explain", image, "--model", run, "--panel", "--contour", "--method", "layer-cam", "--flip", "--json")
    (row,) = done.json["explanations"]
    assert [one["label"] for one in row["explanations"]] == list(FINDINGS)
    with Image.open(tmp_path / row["panel"]) as picture:
        assert picture.width > 5 * 200


def test_an_unreadable_image_is_left_out_where_that_is_allowed(
    call: Call, phantoms: Path, run: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    broken = min((data / "test").rglob("*frontal.jpg"))
    broken.write_bytes(broken.read_bytes()[:200])
    options = ["localize", "--data", data, "--model", run, "--methods", "grad-cam", "--draws", 20]
    refused = call(*options)
    assert refused.code == 1
    assert broken.name in refused.stderr
    assert "--skip-unreadable" in refused.stderr
    done = call(*options, "--skip-unreadable", "--max-missing", 0.5, "--json")
    assert done.code == 0, done.stderr
    assert "the image is left out" in done.stderr
    (method,) = done.json["methods"].values()
    whole = call("localize", "--data", phantoms, "--model", run, "--methods", "grad-cam", "--draws", 20, "--json")
    (before,) = whole.json["methods"].values()
    lost = sum(before["labels"][f]["images"] - method["labels"][f]["images"] for f in FINDINGS)
    assert lost == len(list((phantoms / "masks" / broken.relative_to(data).with_suffix("")).glob("*.png")))
