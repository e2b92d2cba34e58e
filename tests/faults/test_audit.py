"""Files opened while untrusted data is read, recorded by Python's audit hook in a separate process."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from bad_inputs import encoded
from cxrtool.model.bundle import BUNDLE_NAME

SCRIPT = """
import json, os, sys
seen = []
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
NEVER = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect", "socket.bind"}
def hook(event, given):
    if event == "open" and isinstance(given[0], (str, bytes)):
        writes = bool((given[2] or 0) & WRITING) or any(mark in (given[1] or "") for mark in "wax+")
        seen.append(["write" if writes else "read", os.path.abspath(os.fsdecode(given[0]))])
    elif event in CHANGES:
        seen.extend(["write", os.path.abspath(os.fsdecode(one))] for one in given if isinstance(one, (str, bytes)))
    elif event in NEVER:
        seen.append(["never", f"{event} {given!r}"])
sys.addaudithook(hook)
from cxrtool.cli.app import main
codes = []
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as ended:
        codes.append(ended.code)
with open(sys.argv[2], "w") as file:
    json.dump({"codes": codes, "seen": seen}, file)
"""

LOOKS_FOR_A_LIBRARY = ("subprocess.Popen ('/sbin/ldconfig', ['/sbin/ldconfig', '-p']",)
"""How ctypes searches for a library."""


@pytest.fixture
def hostile(phantoms: Path, tmp_path: Path) -> Path:
    """A data set whose sheets and links lead to images and pipes outside of it."""
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    outside = tmp_path / "outside"
    study = outside / "patient90000" / "study1"
    study.mkdir(parents=True)
    (study / "secret.jpg").write_bytes(encoded())
    os.mkfifo(study / "pipe.jpg")
    (data / "masks" / "link.png").symlink_to(study / "secret.jpg")
    for number, split in enumerate(("train", "valid", "test")):
        other = outside / f"patient9000{number + 1}"  # a patient of its own for each split
        other.symlink_to(study.parent)
        secret = f"{other.name}/study1/secret.jpg"
        sheet = data / f"{split}.csv"
        images = sorted((data / split).rglob("*frontal.jpg"))
        for image, target in zip(images[:2], ("secret.jpg", "pipe.jpg"), strict=True):
            image.unlink()
            image.symlink_to(study / target)
        (data / split / "folder").symlink_to(outside)
        last = sheet.read_text().splitlines()[-1].partition(",")[2]
        paths = (
            f"../outside/{secret}",
            f"{split}/../../outside/{secret}",
            outside / secret,
            f"{split}/folder/{secret}",
        )
        with sheet.open("a") as file:
            file.writelines(f"{path},{last}\n" for path in (*paths, f"/etc/{other.name}/study1/passwd"))
    return data


def test_only_data_output_bundle_and_program_files_are_opened(hostile: Path, run_folder: Path, tmp_path: Path) -> None:
    outside, out, model = tmp_path / "outside", tmp_path / "out", tmp_path / "model"
    model.mkdir()
    out.mkdir()
    shutil.copy(run_folder / BUNDLE_NAME, model)
    # Beside it a record of an export that leads outside; if predict trusted it, it would open that file.
    (model / "export").mkdir()
    for name in ("onnx-fp32", "openvino-fp32"):
        (model / "export" / f"{name}.json").write_text(json.dumps({"files": {"../../outside/secret.jpg": "0"}}))
    with_model = ["--model", str(model), "--workers", "2"]
    on_data = ["--data", str(hostile), "--max-missing", "1", "--i-know", *with_model]
    # predict follows links in a folder that the user names, so it gets folders without links.
    patients = sorted((hostile / "test").glob("patient*"))[2:]
    image = str(next(patients[1].rglob("*frontal.jpg")))
    commands = [
        ["check-data", str(hostile), "--full", "--json", "--samples", "4", "--samples-file", str(out / "s.png")],
        ["eval", *on_data, "--out", str(out / "eval"), "--draws", "10"],
        ["localize", *on_data, "--out", str(out / "localize"), "--draws", "10", "--methods", "grad-cam"],
        ["predict", *map(str, patients), "--recursive", *with_model, "--csv", str(out / "p.csv"), "--window", "1"],
        ["explain", image, *with_model, "--label", "Edema", "--out", str(out / "maps")],
    ]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands), str(report)],
        cwd=out,
        capture_output=True,
        text=True,
        timeout=200,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("CXR_")}, "OMP_NUM_THREADS": "1"}
        | {"TMPDIR": str(out)},  # portalocker makes tempfile try whether it can write there
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(report.read_text())
    assert result["codes"] == [1, 0, 0, 0, 0], done.stderr  # check-data: images are missing
    import cxrtool

    cache = Path(os.environ["XDG_CACHE_HOME"])
    may_write = [out, cache, model, Path("/dev/null")]
    python = [Path(path) for path in (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *sys.path) if path]
    system = [Path(path) for path in ("/proc", "/sys", "/usr", "/lib", "/etc", "/dev/urandom", "/dev/random")]
    may_read = [*may_write, hostile, Path(cxrtool.__file__).parent, *python, *system]
    forbidden = [name for kind, name in result["seen"] if kind == "never" and not name.startswith(LOOKS_FOR_A_LIBRARY)]
    assert forbidden == []
    for kind, name in result["seen"]:
        if kind == "never":
            continue
        path = Path(os.path.realpath(name))
        places = may_write if kind == "write" else may_read
        names = {path, Path(name)}
        inside = any(one.is_relative_to(root) for one in names for root in (*places, *map(os.path.realpath, places)))
        assert inside or path == report, (kind, name)
        assert not path.is_relative_to(outside), name
        assert "/etc/patient" not in name
    images = {name for kind, name in result["seen"] if name.endswith(".jpg")}
    assert len(images) > 40  # the hook records images that are read
    assert all(Path(os.path.realpath(name)).is_relative_to(hostile) for name in images)
