"""What `import cxrtool` offers."""

import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cxrtool
from cxrtool import errors
from cxrtool.findings import CHEXPERT5, FINDINGS, Findings
from cxrtool.progress import Progress, ignore_progress
from cxrtool.progress_bar import progress_for
from tests_support import tiny_training

PUBLIC = [
    *("Classifier", "Prediction", "Explanation"),
    *("train", "evaluate", "evaluate_scores", "tune", "calibrate", "compare"),
    *("load_settings", "Settings", "RuntimeSettings", "Method", "Findings", "CHEXPERT5"),
    *("CxrError", "RequestError", "SheetError", "ModelError", "ImageError", "WriteError", "InterruptedWorkError"),
    "__version__",
]


def test_the_public_names_are_these() -> None:
    assert sorted(cxrtool.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(cxrtool))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = cxrtool.no_such_name  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_each_is_documented(name: str) -> None:
    member = getattr(cxrtool, name)
    assert inspect.getdoc(member if callable(member) else type(member))
    if inspect.isclass(member) and name in ("Classifier", "Explanation", "Prediction"):
        public = [one for one, _ in inspect.getmembers(member) if not one.startswith("_")]
        undocumented = [one for one in public if callable(getattr(member, one)) and not getattr(member, one).__doc__]
        assert undocumented == []


def test_importing_is_instant() -> None:
    heavy = "{'torch', 'torchvision', 'pandas', 'cv2', 'numpy', 'pydantic', 'PIL', 'rich'}"
    code = f"import sys, cxrtool; cxrtool.CxrError; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def error_classes(base: type[errors.CxrError] = errors.CxrError) -> list[type[errors.CxrError]]:
    return [base, *(one for child in base.__subclasses__() for one in error_classes(child))]


def test_every_error_has_a_code_of_the_list() -> None:
    assert {one.code for one in error_classes()} <= set(errors.CODES)
    assert len({one.code for one in error_classes()}) == len(error_classes())
    source = Path(errors.__file__).parent
    files = [path for path in source.rglob("*.py") if path.name != "errors.py"]
    used = set(re.findall(r'"((?:image|model|input)-[a-z-]+)"', "".join(path.read_text() for path in files)))
    used.discard("image-classification")  # a task of the Hugging Face hub
    own = {one.code for one in error_classes()}
    assert set(errors.CODES) - own <= used, "a code that nothing raises"
    assert {code for code in used if code.split("-")[0] in ("image", "input")} <= set(errors.CODES)


def test_an_error_is_the_same_from_another_process() -> None:
    for error in (errors.ImageError("a", "b", code="image-missing"), errors.InterruptedWorkError("a", "b", 15)):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert vars(again) == vars(error)
        assert str(again) == "a"
    assert pickle.loads(pickle.dumps(errors.InterruptedWorkError("a", "", 15))).exit_code == 143


def test_findings_are_found_in_any_case() -> None:
    assert tuple(CHEXPERT5) == FINDINGS
    assert len(CHEXPERT5) == 5
    assert CHEXPERT5.find(" pleural effusion ") == CHEXPERT5.find("PLEURAL EFFUSION") == "Pleural Effusion"
    assert CHEXPERT5.index("edema") == 3
    assert "Edema" in CHEXPERT5
    assert "edema" not in CHEXPERT5
    assert Findings(("Edema",)) != CHEXPERT5
    for wrong in ((), ("Edema", "edema"), ("Edema", " ")):
        with pytest.raises(errors.RequestError):
            Findings(wrong)


def test_progress_goes_where_it_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Progress] = []
    for show in (None, False, True, seen.append):
        with progress_for(show) as progress:
            progress(Progress("[red]epoch\x1b 1", 1, 2))
            progress(Progress("[red]epoch\x1b 1", 2, 2, "loss 0.4"))
            assert (progress is ignore_progress) is (show in (None, False))
    assert len(seen) == 2
    assert capsys.readouterr().err == "[red]epoch\\x1b 1: 2/2 loss 0.4\n"


def test_a_model_is_trained_tuned_calibrated_evaluated_and_compared_without_a_command(
    few: Path, tmp_path: Path
) -> None:
    settings = tiny_training(str(few), train__epochs=1, eval__draws=20)  # type: ignore[arg-type]
    seen: list[str] = []
    result = cxrtool.train(settings, str(tmp_path / "run"), progress=lambda step: seen.append(step.phase))
    assert any(phase.startswith("epoch 1/1") for phase in seen)
    tuned = cxrtool.tune(str(result.run), settings, progress=False)
    fitted = cxrtool.calibrate(result.run, settings, predictions=tuned.folder / "predictions.csv")
    evaluated = cxrtool.evaluate(str(result.run), settings.settings, str(tmp_path / "eval"))
    assert (tmp_path / "eval" / "metrics.json").is_file()
    assert tuned.bundle == fitted.bundle == result.bundle
    assert evaluated.table.split == "test"
    tables = [str(tmp_path / "eval" / "predictions.csv"), result.run]
    comparison = cxrtool.compare(tables, settings, str(tmp_path / "comparison"))
    assert (tmp_path / "comparison" / "compare_test.json").is_file()
    assert {one.value for one in comparison.differences if one.finding == "mean"} <= {0.0, None}
    resumed = cxrtool.train(resume=str(result.run))
    assert len(resumed.history) == 1
    with pytest.raises(errors.RequestError, match="no settings"):
        cxrtool.train()
    with pytest.raises(errors.RequestError, match="out and resume cannot be combined"):
        cxrtool.train(settings, tmp_path / "other", resume=result.run)


def test_every_code_is_in_the_docs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    rows = [f"| `{code}` | {meaning} |" for code, meaning in errors.CODES.items()]
    assert page.splitlines()[-len(rows) :] == rows
