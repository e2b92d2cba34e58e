"""The notebooks of the docs, run as a reader would run them."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"


def run(name: str, folder: Path) -> list[Any]:
    """Run a notebook in a folder and return its cells of code."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def value_of(cell: Any) -> str:
    """Return the text that the last line of a cell shows."""
    return str(cell.outputs[-1]["data"]["text/plain"])


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_warns_what_it_is(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(nbformat.from_dict(notebook))
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook["cells"])
    assert "not a medical device" in "".join(notebook["cells"][0]["source"])


@pytest.mark.takes_minutes
def test_the_notebook_on_training_trains_tunes_evaluates_and_reports(tmp_path: Path) -> None:
    cells = run("training", tmp_path)
    epochs = [cell for cell in cells if "cxrtool.train(" in cell.source]
    assert value_of(epochs[0]).count("(") == 3
    assert (tmp_path / "notebook-training" / "run" / "model.safetensors").is_file()
    assert "<title>" in (tmp_path / "notebook-training" / "report.html").read_text(encoding="utf-8")
    looks = (tmp_path / "notebook-training" / "run" / "evaluations.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["split"] == "test" for line in looks) >= 1


@pytest.mark.takes_minutes
def test_the_notebook_on_films_reads_all_and_shows_a_map(tmp_path: Path) -> None:
    cells = run("reading-films", tmp_path)
    films = len(list((tmp_path / "notebook-films" / "films" / "test").rglob("*frontal.jpg")))
    assert films > 5
    assert f"{films}" in value_of(cells[1])  # the index of the last row: the broken film
    assert "broken.jpg" in value_of(cells[1])
    assert "image/png" in cells[-1].outputs[-1]["data"]
    assert len(list((tmp_path / "notebook-films" / "maps").glob("film*.png"))) >= 2
