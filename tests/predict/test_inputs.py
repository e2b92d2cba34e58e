"""A radiograph is the same as a path, bytes, a file object, an array, a PIL image and a pydicom data set."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxrtool import Classifier
from cxrtool.data.images import read
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading, read_radiograph
from cxrtool.errors import CODES, ImageError, RequestError
from cxrtool.settings import Limits
from tests_support import EXACT, dicom_of

READING = Reading(Preprocessing(64), 4)


@pytest.fixture(scope="module")
def classifier(run_folder: Path) -> Classifier:
    return Classifier.load(run_folder, EXACT)


@pytest.fixture(scope="module")
def grey(phantoms: Path) -> NDArray[np.uint8]:
    """[64, 64], a radiograph whose values go from 0 to 255."""
    pixels = read(next(iter(sorted((phantoms / "test").rglob("*frontal.jpg"))))).pixels.astype(np.float32)
    return np.round((pixels - pixels.min()) * 255 / np.ptp(pixels)).astype(np.uint8)


def png(pixels: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def forms(grey: NDArray[np.uint8], folder: Path) -> dict[str, Any]:
    """Every kind of input that holds just these grey values."""
    path = folder / "image.png"
    path.write_bytes(png(grey))
    lazy = folder / "image.dcm"
    dicom_of(grey).save_as(lazy, enforce_file_format=True)
    return {
        "text": str(path),
        "path": path,
        "bytes": path.read_bytes(),
        "bytearray": bytearray(path.read_bytes()),
        "memoryview": memoryview(path.read_bytes()),
        "file object": path.open("rb"),
        "bytes in memory": io.BytesIO(path.read_bytes()),
        "uint8": grey,
        "uint8 RGB": np.repeat(grey[..., None], 3, axis=2),
        "every second column": np.repeat(grey, 2, axis=1)[:, ::2],
        "uint16": grey.astype(np.uint16) * 257,
        "uint16 of other byte order": (grey.astype(np.uint16) * 257).astype(">u2"),
        "float64": grey / 255,
        "float32": (grey / 255).astype(np.float32),
        "float32 RGB": np.repeat((grey / 255).astype(np.float32)[..., None], 3, axis=2),
        "PIL L": Image.fromarray(grey),
        "PIL RGB": Image.fromarray(grey).convert("RGB"),
        "PIL I;16": Image.fromarray(grey.astype(np.uint16) * 257),
        "PIL of a file": Image.open(path),
        "data set in memory": dicom_of(grey),
        "data set of a file": pydicom.dcmread(lazy),
        "data set read lazily": pydicom.dcmread(lazy, defer_size=100),
    }


def test_the_same_radiograph_in_any_form_is_predicted_the_same_to_the_bit(
    classifier: Classifier, grey: NDArray[np.uint8], tmp_path: Path
) -> None:
    inputs = forms(grey, tmp_path)
    expected = classifier.predict(inputs["path"])
    many = dict(zip(inputs, classifier.predict_many(forms(grey, tmp_path).values()), strict=True))
    for kind, source in inputs.items():
        found = classifier.predict(source)
        assert found.error is None, kind
        assert found.probabilities == expected.probabilities, kind
        assert found.warnings == expected.warnings == (), kind
        assert many[kind].error is None, kind
        np.testing.assert_allclose(
            list(many[kind].probabilities.values()), list(expected.probabilities.values()), atol=1e-6, err_msg=kind
        )
        assert (found.path is None) is (kind not in ("text", "path")), kind


def test_explain_takes_the_same_inputs(classifier: Classifier, grey: NDArray[np.uint8], tmp_path: Path) -> None:
    inputs = forms(grey, tmp_path)
    expected = classifier.explain(inputs.pop("path"), "Edema")
    given = list(inputs.values())
    explained = list(classifier.explain_many(given[:4], "Edema"))
    assert [source for source, _ in explained] == given[:4]
    for _, result in explained:
        assert isinstance(result, tuple)
        np.testing.assert_array_equal(result[0].image, expected.image)
    for kind in ("file object", "uint8", "PIL L", "data set in memory"):
        found = classifier.explain(forms(grey, tmp_path)[kind], "Edema")
        np.testing.assert_array_equal(found.heatmap, expected.heatmap, err_msg=kind)
        np.testing.assert_array_equal(found.image, grey, err_msg=kind)
        assert sorted(path.suffix for path in found.save(tmp_path / kind).values()) == [".png"] * 3


def test_an_input_stays_as_it_is(classifier: Classifier, grey: NDArray[np.uint8]) -> None:
    array, picture, dataset = grey.copy(), Image.fromarray(grey), dicom_of(grey)
    array.setflags(write=False)
    for source in (array, picture, dataset):
        classifier.explain(source, "Edema")
    assert picture.mode == "L"
    assert dataset.PixelData == grey.tobytes()
    mutable = grey.copy()
    image = classifier.explain(mutable, "Edema").image
    mutable[:] = 0
    np.testing.assert_array_equal(image, grey)


def test_a_picture_is_read_by_its_mode(grey: NDArray[np.uint8]) -> None:
    tall = np.vstack([grey, grey])
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(tall).save(buffer, "PNG", exif=exif)
    turned = read_radiograph(Image.open(io.BytesIO(buffer.getvalue())), replace(READING, full_size=True))
    np.testing.assert_array_equal(turned.image, np.rot90(tall, -1))
    alpha = Image.fromarray(grey)
    alpha.putalpha(200)
    codes = {
        "alpha": alpha,
        "converted": Image.fromarray(grey).convert("P"),
        "shallow": Image.fromarray(grey.astype(np.uint16) * 16),
    }
    for code, picture in codes.items():
        assert [warning.code for warning in read_radiograph(picture, READING).warnings] == [code]
    assert [w.code for w in read_radiograph(grey.astype(np.uint16) * 16, READING).warnings] == ["shallow"]


def test_arrays_and_data_sets_are_screened(grey: NDArray[np.uint8]) -> None:
    colours = np.stack([grey, 255 - grey, grey], axis=2)
    for source, code in [
        (255 - grey, "inverted"),
        (np.full((64, 64), 0.3), "blank"),
        (colours, "colour"),
        (dicom_of(grey, ViewPosition="LL"), "lateral"),
        (png(255 - grey), "inverted"),
    ]:
        assert code in [warning.code for warning in read_radiograph(source, READING).warnings]
        with pytest.raises(ImageError, match=code) as caught:
            read_radiograph(source, replace(READING, strict=True))
        assert caught.value.code == "image-warned"


def without_syntax(grey: NDArray[np.uint8]) -> pydicom.Dataset:
    dataset = dicom_of(grey)
    del dataset.file_meta
    return dataset


def of_syntax(grey: NDArray[np.uint8], syntax: str) -> pydicom.Dataset:
    dataset = dicom_of(grey)
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


class _Broken:
    def read(self, size: int) -> bytes:
        raise ConnectionError("gone")


REFUSED: dict[str, tuple[Callable[[NDArray[np.uint8]], object], type[Exception], str, str]] = {
    "None": (lambda _: None, RequestError, "NoneType", "input-unsupported"),
    "a number": (lambda _: 5, RequestError, "type int", "input-unsupported"),
    "a list of lists": (lambda g: g.tolist(), RequestError, "type list", "input-unsupported"),
    "text file object": (lambda _: io.StringIO("x"), RequestError, "text instead of bytes", "input-unsupported"),
    "empty bytes": (lambda _: b"", ImageError, "empty", "image-unreadable"),
    "bytes of text": (lambda _: b"hello", ImageError, "not an image", "image-unreadable"),
    "a file object at its end": (lambda _: io.BytesIO(), ImageError, "empty", "image-unreadable"),
    "a broken file object": (lambda _: _Broken(), ImageError, "ConnectionError: gone", "image-unreadable"),
    "a missing file": (lambda _: "gone.png", ImageError, "no such file", "image-missing"),
    "int64": (lambda g: g.astype(np.int64), ImageError, "type int64", "image-wrong-values"),
    "bool": (lambda g: g > 9, ImageError, "type bool", "image-wrong-values"),
    "uint32": (lambda g: g.astype(np.uint32), ImageError, "type uint32", "image-wrong-values"),
    "channels first": (lambda g: np.stack([g] * 3), ImageError, "[3, 64, 64]", "image-wrong-values"),
    "four channels": (lambda g: np.stack([g] * 4, axis=2), ImageError, "[64, 64, 4]", "image-wrong-values"),
    "one line": (lambda g: g[0], ImageError, "[64]", "image-wrong-values"),
    "floats to 255": (lambda g: g.astype(np.float32), ImageError, "from 0 to 255", "image-wrong-values"),
    "floats below 0": (lambda g: g / 255 - 0.5, ImageError, "from -0.5 to 0.5", "image-wrong-values"),
    "NaN": (lambda g: np.where(g > 200, np.nan, 0.5), ImageError, "not finite", "image-wrong-values"),
    "a small array": (lambda g: g[:20], ImageError, "too small", "image-wrong-shape"),
    "an empty array": (lambda g: g[:0], ImageError, "too small", "image-wrong-shape"),
    "a narrow picture": (lambda g: Image.new("L", (300, 40)), ImageError, "too narrow", "image-wrong-shape"),
    "no pixels": (lambda _: pydicom.Dataset(), ImageError, "no pixel data", "image-unreadable"),
    "no syntax": (without_syntax, ImageError, "does not state its transfer syntax", "image-unreadable"),
    "deflated": (lambda g: of_syntax(g, "1.2.840.10008.1.2.1.99"), ImageError, "deflated", "image-unreadable"),
    "wrong size": (lambda g: dicom_of(g, Rows=999), ImageError, "states 64 x 999", "image-unreadable"),
    "frames": (lambda g: dicom_of(g, NumberOfFrames=2), ImageError, "several frames", "image-wrong-shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_what_came(classifier: Classifier, grey: NDArray[np.uint8], case: str) -> None:
    make, kind, words, code = REFUSED[case]
    with pytest.raises(kind) as caught:
        classifier.predict(make(grey))  # type: ignore[arg-type]
    error = caught.value
    assert isinstance(error, RequestError | ImageError)
    assert words in error.message
    assert "\n" not in error.message
    assert error.advice
    assert error.code == code
    row, good = classifier.predict_many([make(grey), grey])  # type: ignore[list-item]
    assert (row.error, row.error_code, row.findings) == (str(error), code, ())
    assert good.error is None


def test_the_limits_hold_for_every_kind(grey: NDArray[np.uint8], tmp_path: Path) -> None:
    wide = np.tile(grey, (16, 16))  # 1024 x 1024: more than a megapixel
    many = replace(READING, limits=Limits(megapixels=1))
    for kind, source in forms(wide, tmp_path).items():
        with pytest.raises(ImageError, match="pixels; at most 1,000,000 are allowed") as caught:
            read_radiograph(source, many)
        assert caught.value.code == "image-too-large", kind
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200), dtype=np.uint8)
    few = replace(READING, limits=Limits(file_mib=1))
    for kind, source in forms(noise, tmp_path).items():
        if kind.startswith("PIL"):
            continue  # has no bytes of its own
        with pytest.raises(ImageError, match="1,048,576") as caught:
            read_radiograph(source, few)
        assert caught.value.code == "image-too-large", kind


def test_an_endless_file_object_is_read_to_the_limit_alone() -> None:
    class Endless:
        given = 0

        def read(self, size: int) -> bytes:
            self.given += size
            return bytes(size)

    endless = Endless()
    with pytest.raises(ImageError, match="more than 1,048,576 bytes"):
        read_radiograph(endless, replace(READING, limits=Limits(file_mib=1)))
    assert endless.given <= 3 * 2**20


def test_a_data_sets_tags_are_in_no_message(grey: NDArray[np.uint8], classifier: Classifier) -> None:
    named = dicom_of(grey, PatientName="DOE^JANE", RescaleSlope="0", RescaleIntercept="0")
    row, other = classifier.predict_many([named, dicom_of(grey, PatientName="DOE^JANE")])
    assert "slope" in (row.error or "")
    assert "DOE" not in repr(row) + row._repr_html_() + str(row.to_dict()) + str(other.to_dict())


def test_a_single_radiograph_is_not_taken_for_many(classifier: Classifier, tmp_path: Path) -> None:
    for single in ("image.png", tmp_path, b"bytes"):
        with pytest.raises(RequestError, match="single radiograph"):
            classifier.predict_many(single)  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="single radiograph"):
            classifier.explain_many(single)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ({"Edma": 0.5}, "unknown"),
        ({"Edema": 1.5}, "from 0 to 1"),
        ({"Edema": -0.1}, "from 0 to 1"),
        ({"Edema": float("nan")}, "from 0 to 1"),
        ({"Edema": float("inf")}, "from 0 to 1"),
        ({"Edema": "0.5"}, "from 0 to 1"),
        ({"Edema": True}, "from 0 to 1"),
        ({"Edema": None}, "from 0 to 1"),
        ({"Edema": 0.5, "edema": 0.6}, "two thresholds"),
    ],
)
def test_thresholds_are_checked(run_folder: Path, thresholds: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Classifier.load(run_folder, EXACT, thresholds=thresholds)


def test_thresholds_of_any_case_replace_some_and_stay(run_folder: Path, classifier: Classifier) -> None:
    given = {"pleural effusion": np.float32(0.25)}
    chosen = Classifier.load(run_folder, EXACT, thresholds=given)
    assert dict(chosen.thresholds) == dict(classifier.thresholds) | {"Pleural Effusion": 0.25}
    given["pleural effusion"] = np.float32(0.9)
    assert chosen.thresholds["Pleural Effusion"] == 0.25
    with pytest.raises(TypeError):
        chosen.thresholds["Edema"] = 0.1  # type: ignore[index]


def test_a_predictions_dict_says_what_made_it(classifier: Classifier, grey: NDArray[np.uint8]) -> None:
    for prediction in classifier.predict_many([grey, b"none"]):
        content = prediction.to_dict()
        assert content["model"] == {
            "weights_sha256": classifier.header.weights_sha256,
            "backend": "torch",
            "precision": "fp32",
            "image_size": 32,
        }
        assert content["path"] is None
        assert content["error_code"] in (None, *CODES)
        assert "model" not in prediction.to_dict(model=False)


@pytest.mark.parametrize("name", ["../../up", "/etc/up", "a\\..\\b", "..", "a\0b"])
def test_pictures_stay_inside_their_folder(
    classifier: Classifier, grey: NDArray[np.uint8], tmp_path: Path, name: str
) -> None:
    explanation = classifier.explain(grey, "Edema")
    hostile = [(explanation, name), (replace(explanation, label=name), None), (replace(explanation, name=name), None)]
    for one, given in hostile:
        for path in one.save(str(tmp_path / "deep" / "out"), given).values():
            assert path.parent == tmp_path / "deep" / "out"
            assert path.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_an_overlay_is_a_png_of_the_size_asked_for(classifier: Classifier, grey: NDArray[np.uint8]) -> None:
    explanation = classifier.explain(np.vstack([grey, grey]), "Edema")
    whole = np.asarray(Image.open(io.BytesIO(explanation.overlay_png())))
    np.testing.assert_array_equal(whole, explanation.overlay())
    for side, size in ((64, (32, 64)), (128, (64, 128)), (1000, (64, 128)), (1, (1, 1))):
        assert Image.open(io.BytesIO(explanation.overlay_png(max_side=side))).size == size
    with pytest.raises(RequestError):
        explanation.overlay_png(max_side=0)


def test_reprs_fit_a_line_and_html_is_escaped(classifier: Classifier, grey: NDArray[np.uint8], tmp_path: Path) -> None:
    path = tmp_path / ("long" * 40 + "<b>.png")
    path.write_bytes(png(grey))
    everything = Classifier.load(classifier.path, EXACT, thresholds=dict.fromkeys(classifier.thresholds, 0.0))
    read_well, unread = everything.predict_many([path, tmp_path / "<b>gone\n.png"])
    explanation = replace(everything.explain(path, "Pleural Effusion"), label="<i>" + "x" * 200)
    shown = [classifier, read_well, unread, explanation, *read_well.findings]
    for one in shown:
        assert len(repr(one)) <= 120
        assert repr(one).isprintable()
    for html in (read_well._repr_html_(), unread._repr_html_(), explanation._repr_html_()):
        assert "<b>" not in html
        assert "<i>" not in html
        assert "&lt;" in html
    assert "data:image/png;base64," in explanation._repr_html_()
    assert "Pleural Effusion" in read_well._repr_html_()
