"""Properties for any text: label cells, thresholds, paths, names and settings are read correctly or refused."""

import csv
import io
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bad_inputs import HEADER
from cxrtool.choices import Views
from cxrtool.cli.explain import unique_names
from cxrtool.data.dicom_grey import Window
from cxrtool.data.manifest import load_manifest
from cxrtool.data.missing import missing_images
from cxrtool.errors import CxrError, RequestError, SheetError
from cxrtool.evaluation.threshold_files import parse_thresholds
from cxrtool.files import csv_row
from cxrtool.findings import CHEXPERT5, FINDINGS, UncertaintyPolicy
from cxrtool.resolved_settings import load_settings
from cxrtool.settings import Settings
from cxrtool.text import printable
from setting_names import KEYS as SETTINGS
from setting_names import SECTIONS

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
"""Any text that can be encoded as UTF-8."""
CELLS = st.one_of(
    TEXT, st.sampled_from(["1", "1.0", "-1", "0", "", "+1", "1e0", "nan", "inf", "１", "true", "0x1", "1_0"])
)


def in_a_line(error: CxrError, *words: str) -> None:
    assert error.exit_code == 2
    assert error.message
    assert "\n" not in error.message
    assert all(word in error.message for word in words)


def write_row(folder: Path, *cells: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([*cells, "1", "1"])
    (folder / "train.csv").write_text(f"{HEADER},patient_id,study_id\n{text.getvalue()}", encoding="utf-8", newline="")


@given(CELLS)
@example("1,0")
@example("\n")
@example("0\x1f")  # a space for str.strip but not for float
def test_a_label_is_read_or_refused_with_its_line(tmp_path_factory: pytest.TempPathFactory, cell: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    write_row(folder, "a.jpg", "", "", "Frontal", "", "0", "0", cell, "0", "0")
    try:
        label = load_manifest(folder, "train", Views.ALL).raw_labels[0, 2]
    except SheetError as error:
        in_a_line(error, "line")
        return
    if math.isnan(label):
        assert not cell.strip()
    else:
        assert label in (1, 0, -1)
        assert float(cell) == label


STEPS = st.sampled_from(["..", ".", "train", "link", "good.jpg", "out.jpg", "", "~", "\\", "a" * 300])
PATHS = st.one_of(TEXT, st.lists(STEPS, max_size=6).map("/".join))


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with an image, a link to an image outside, and a link to the folder above."""
    above = tmp_path_factory.mktemp("above")
    root = above / "data"
    (root / "train").mkdir(parents=True)
    for path in (above / "out.jpg", root / "train" / "good.jpg"):
        path.write_bytes(b"x")
    (root / "train" / "out.jpg").symlink_to(above / "out.jpg")
    (root / "link").symlink_to(above)
    return root


@given(PATHS)
@example("link/out.jpg")
@example("train/out.jpg")
@example("train/../../out.jpg")
@example("link/data/train/good.jpg")
@example("/train")  # an absolute path with a name that also exists in the data folder
def test_a_path_leads_into_the_data_folder_or_is_counted_missing(fenced: Path, path: str) -> None:
    write_row(fenced, path, "", "", "Frontal", "", "0", "0", "0", "0", "0")
    try:
        manifest = load_manifest(fenced, "train", Views.ALL)
    except SheetError as error:
        in_a_line(error)
        return
    missing = missing_images(manifest)
    if not missing.rows[0]:
        real = os.path.realpath(manifest.file(0))
        assert real.startswith(os.path.realpath(fenced) + os.sep)
        assert os.path.exists(real)


NUMBERS = st.floats(0, 1)


@given(st.lists(NUMBERS, min_size=5, max_size=5))
def test_five_thresholds_are_read_back(numbers: list[float]) -> None:
    assert list(parse_thresholds(",".join(map(repr, numbers)), CHEXPERT5).values()) == numbers
    text = ",".join(f"{name} = {number!r}" for name, number in zip(CHEXPERT5, numbers, strict=True))
    named = parse_thresholds(text, CHEXPERT5)
    assert list(named.values()) == numbers


PARTS = st.sampled_from(["Edema", "=", "0.5", ",", "nan", "1e999", ".json", ".csv", "-1", "\0", "/", "a"])
PARSERS: dict[str, Callable[[str], object]] = {
    "thresholds": lambda text: parse_thresholds(text, CHEXPERT5),
    "policy": UncertaintyPolicy.parse,
    "window": Window.parse,
}


@pytest.mark.parametrize("name", PARSERS)
@given(text=st.one_of(TEXT, st.lists(PARTS, max_size=12).map("".join)))
@settings(suppress_health_check=[HealthCheck.differing_executors])
def test_any_text_is_read_or_refused_with_one_line(name: str, text: str) -> None:
    try:
        found = PARSERS[name](text)
    except RequestError as error:
        in_a_line(error)
        return
    if isinstance(found, dict):
        assert all(0 <= value <= 1 for value in found.values())


JSONS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(FINDINGS), TEXT), inner)
    ),
    max_leaves=8,
)


@given(JSONS)
@example(10**400)
@example({"Edema": 10**400})
@example({"thresholds": [1]})
def test_a_file_of_thresholds_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    import json

    path = tmp_path_factory.getbasetemp() / "thresholds.json"
    path.write_text(json.dumps(content))
    try:
        found = parse_thresholds(str(path), CHEXPERT5)
    except RequestError:
        return
    assert all(0 <= value <= 1 for value in found.values())


@given(st.text(max_size=40))
def test_printed_text_contains_no_control_characters(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() or not shown
    shown.encode("utf-8")


def test_escapes_are_those_of_a_string_in_python() -> None:
    text = "a\n\x85\u2028\U000e0001é\udc80"
    assert printable(text) == "a\\x0a\\x85\\u2028\\U000e0001é\\udc80"


@given(st.text(max_size=40))
def test_no_cell_is_run_by_a_spreadsheet(text: str) -> None:
    row = next(csv.reader(io.StringIO(csv_row([text, "x"]), newline="")))
    assert not row[0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert row[0].removeprefix("'") == text.encode("utf-8", errors="backslashreplace").decode().removeprefix("'")


@given(st.lists(st.lists(st.sampled_from(["..", "a", "b.c", "view1.jpg", ".h"]), min_size=1, max_size=4).map("/".join)))
@example(["/"])
@example(["..", "/"])
@example(["a/b.jpg", "a_b.jpg"])
def test_names_of_pictures_are_valid_and_unique(paths: list[str]) -> None:
    names = unique_names([Path(path) for path in paths])
    for name in names:
        assert name not in ("", ".", "..")
        assert "/" not in name
    apart = {os.path.abspath(path) for path in paths}
    assert len(set(names)) == len(apart)


KEYS = st.sampled_from([*sorted(Settings.model_fields), *SETTINGS, "x"])
VARIABLES = st.sampled_from([*(f"CXR_{key.upper().replace('.', '__')}" for key in [*SECTIONS, *SETTINGS]), "CXR_X__Y"])
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.lists(st.integers(), max_size=2))
TREES = st.recursive(VALUES, lambda inner: st.dictionaries(st.one_of(KEYS, TEXT), inner, max_size=3), max_leaves=6)


@given(st.dictionaries(st.one_of(KEYS, TEXT), TREES, max_size=4))
@example({"\n": None})
def test_any_settings_file_is_read_or_refused_with_one_line(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    try:
        resolved = load_settings(config=path, environ={})
    except RequestError as error:
        in_a_line(error)
        return
    path.write_text(resolved.to_yaml(), encoding="utf-8")
    assert load_settings(config=path, environ={}).settings == resolved.settings


@given(st.binary(max_size=60))
def test_any_bytes_as_a_settings_file_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    try:
        load_settings(config=path, environ={})
    except CxrError as error:
        in_a_line(error)


@given(VARIABLES, TEXT)
def test_any_variable_is_read_or_refused(name: str, value: str) -> None:
    try:
        load_settings(environ={name: value})
    except RequestError as error:
        in_a_line(error)
