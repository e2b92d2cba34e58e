import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrtool.data.rle import encode_rle
from cxrtool.data.truth import chexlocalize_id, load_truth
from cxrtool.errors import RequestError


def test_chexlocalizes_json(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:9, 10:20] = True
    name = "patient64541_study1_view1_frontal"
    assert chexlocalize_id("valid/patient64541/study1/view1_frontal.jpg") == name
    tasks = {"Edema": encode_rle(mask), "Consolidation": encode_rle(np.zeros_like(mask))}
    (tmp_path / "gt.json").write_text(json.dumps({name: tasks}))
    truth = load_truth(tmp_path, masks=tmp_path / "gt.json")
    found = truth.mask("valid/patient64541/study1/view1_frontal.jpg", "Edema", 20, 30)
    np.testing.assert_array_equal(found, mask)
    assert truth.mask("valid/patient64541/study1/view1_frontal.jpg", "Consolidation", 20, 30) is None
    assert truth.mask("valid/patient64541/study1/view1_frontal.jpg", "Atelectasis", 20, 30) is None
    assert truth.mask("valid/patient9/study1/view1_frontal.jpg", "Edema", 20, 30) is None
    with pytest.raises(RequestError, match="a mask is 30 x 20"):
        truth.mask("valid/patient64541/study1/view1_frontal.jpg", "Edema", 40, 30)


def test_nihs_boxes(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,,,\n"
        "1.png,Effusion,10.2,20.7,5,6,,,\n1.png,Effusion,30,20,2,2,,,\n1.png,Mass,1,1,1,1,,,\n"
    )
    truth = load_truth(tmp_path, boxes=tmp_path / "b.csv")
    mask = truth.mask("test/p/s/1.png", "Pleural Effusion", 50, 40)
    assert mask is not None
    assert mask[21:27, 10:15].all()
    assert mask.sum() == 30 + 4
    assert truth.mask("test/p/s/1.png", "Edema", 50, 40) is None
    with pytest.raises(RequestError, match="the image is 20 x 20"):
        truth.mask("1.png", "Pleural Effusion", 20, 20)


def test_boxes_that_touch_leave_no_gap_and_no_overlap(tmp_path: Path) -> None:
    boxes = ["10.4,20.4,5.4,6.4", "15.8,20.4,4.4,6.4", "10.4,26.8,9.8,3.4"]  # two side by side, one below both
    lines = [f"{number}.png,Effusion,{box}\n" for number, box in enumerate(boxes)]
    (tmp_path / "b.csv").write_text("".join(["Image Index,Finding Label,x,y,w,h\n", *lines]))
    truth = load_truth(tmp_path, boxes=tmp_path / "b.csv")
    masks = [truth.mask(f"{number}.png", "Pleural Effusion", 50, 40) for number in range(3)]
    times = np.sum([mask for mask in masks if mask is not None], axis=0)
    whole = np.zeros((50, 40), dtype=int)
    whole[20:30, 10:20] = 1  # from (10.4, 20.4) to (20.2, 30.2)
    np.testing.assert_array_equal(times, whole)


def test_phantom_masks(tmp_path: Path) -> None:
    folder = tmp_path / "masks" / "test/p1/study1/view1_frontal"
    folder.mkdir(parents=True)
    picture = np.zeros((64, 64), dtype=np.uint8)
    picture[2:4] = 255
    Image.fromarray(picture).save(folder / "Pleural_Effusion.png")
    truth = load_truth(tmp_path)
    mask = truth.mask("test/p1/study1/view1_frontal.jpg", "Pleural Effusion", 64, 64)
    np.testing.assert_array_equal(mask, picture > 0)
    assert truth.name == "masks"


def test_masks_of_drawn_radiographs_are_called_so(phantoms: Path) -> None:
    assert load_truth(phantoms).name == "masks of synthetic radiographs"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.csv", "Image,Label,x,y,w,h\n1.png,Edema,a,b,c,d\n", "line 2"),
        ("b.csv", "Image,Label,x,y,w,h\n", "no box"),
        ("m.json", "[1, 2]", "gt_segmentations"),
        ("m.json", "no json", "gt_segmentations"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=message):
        load_truth(tmp_path, **{"boxes" if name == "b.csv" else "masks": tmp_path / name})


def test_no_truth_or_two_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no folder"):
        load_truth(tmp_path)
    with pytest.raises(RequestError, match="cannot be combined"):
        load_truth(tmp_path, tmp_path, tmp_path)
