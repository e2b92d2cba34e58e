"""What is built of the repository: the wheel and the sdist."""

import email
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def files() -> set[str]:
    """The files that git holds; skips outside a repository, where it is not known what belongs to the project."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not in a git repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(files: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that is built from it."""
    if find_spec("build") is None:
        pytest.skip("build is not installed")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> dict[str, bytes]:
    """The content of each file of the wheel."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(wheel: dict[str, bytes]) -> Message:
    """The wheel's metadata; the long description is the text of the message."""
    return email.message_from_bytes(next(content for name, content in wheel.items() if name.endswith("/METADATA")))


def test_the_sdist_holds_every_file_that_git_holds(built: Path, files: set[str]) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert len(files) > 400
    assert files - inside == set()
    written = {"", "PKG-INFO", "setup.cfg"} | {name for name in inside if "cxrtool.egg-info" in name}
    folders = {str(parent) for name in files for parent in Path(name).parents}
    assert inside - files - written - folders == set()


def test_the_wheel_holds_every_file_of_the_package(wheel: dict[str, bytes], files: set[str]) -> None:
    package = {name.removeprefix("src/") for name in files if name.startswith("src/")}
    assert {"cxrtool/py.typed", "cxrtool/report/templates/report.html.j2"} <= package
    assert {name for name in wheel if not name.startswith("cxrtool-")} == package
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_the_long_description_has_no_relative_links(metadata: Message) -> None:
    text = metadata.get_payload()
    assert isinstance(text, str)
    assert "Research software, not a medical device" in text
    targets = re.findall(r"\]\(([^)]*)\)|^\[[^\]]*\]: *(\S+)|(?:src|href)=[\"']?([^\"'> ]*)", text, re.MULTILINE)
    assert [target for found in targets for target in found if target and not target.startswith("https://")] == []


def test_only_the_extra_of_that_name_brings_the_codec_under_the_gpl(metadata: Message) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

    def packages(extra: str) -> set[str]:
        """Return what an extra installs, with what the extras of cxrtool that it names install."""
        found = set()
        for text in extras[extra]:
            if named := re.fullmatch(r"cxrtool\[(.*)\]", text):
                found |= set().union(*(packages(one.strip()) for one in named[1].split(",")))
            else:
                found.add(re.split(r"[>=;\[ ]", text)[0])
        return found

    assert [extra for extra in extras if "pylibjpeg-libjpeg" in packages(extra)] == ["dicom-gpl"]
    assert "pylibjpeg-openjpeg" in packages("dev") & packages("dicom-gpl")
    required = metadata.get_all("Requires-Dist") or []
    assert all("dicom-gpl" in line for line in required if line.startswith("pylibjpeg-libjpeg"))


def test_the_stated_versions_of_python_are_those_from_the_lower_bound_on(metadata: Message) -> None:
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(metadata.get_all("Classifier") or []))
    assert metadata["Requires-Python"] == f">={versions[0]}"
    assert versions == [f"3.{minor}" for minor in range(11, 11 + len(versions))]
