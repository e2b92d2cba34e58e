import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cxrtool.data.cache_files as cache_files
from cxrtool.data.batches import manifest_batches, split_batches
from cxrtool.data.cache import CACHE_NAME, CacheResult, caches_folder, open_cache, remove_caches
from cxrtool.data.dataset import Dataset
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.radiograph import Reading
from cxrtool.errors import CxrError, ImageError, InterruptedWorkError, RequestError
from cxrtool.progress import Progress
from cxrtool.settings import DataSettings

SIZE = 48


@pytest.fixture
def data(phantoms: Path, tmp_path: Path) -> Path:
    """A copy of the phantoms that a test may change."""
    return Path(shutil.copytree(phantoms, tmp_path / "data"))


def opened(data: Path, size: int = SIZE, split: str = "valid", **more: Any) -> CacheResult:
    settings = DataSettings(root=data, **more)
    return open_cache(Dataset(settings).usable(split), settings, Reading(Preprocessing(size), 8))


def images(data: Path, split: str = "valid") -> list[Path]:
    manifest = Dataset(DataSettings(root=data)).usable(split)
    return [manifest.file(row) for row in range(len(manifest))]


def plain(path: Path, size: int = SIZE) -> "np.ndarray[Any, Any]":
    """Return the pixels as read by Pillow alone."""
    return np.asarray(Image.open(path).convert("L").resize((size, size), Image.Resampling.BILINEAR))


def changed_later(path: Path) -> None:
    """Change the modification time by more than the resolution of the disk."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10_000_000))


def test_cached_pixels_equal_those_of_the_files(data: Path) -> None:
    result = opened(data)
    assert (result.state, result.reason, result.unreadable) == ("built", "", ())
    for row, path in enumerate(images(data)):
        pixels = result.cache.read(row)
        assert pixels is not None
        assert np.array_equal(pixels, plain(path))
    on_disk = np.load(next(result.cache.folder.glob("pixels-*.npy")), mmap_mode="r")
    assert on_disk.shape == (len(images(data)), SIZE, SIZE)
    assert result.size == sum(path.stat().st_size for path in result.cache.folder.iterdir())


def test_batches_are_the_same_with_and_without_a_cache(data: Path) -> None:
    manifest = Dataset(DataSettings(root=data)).usable("valid")
    groups = split_batches(np.arange(len(manifest), dtype=np.int64)[::-1].copy(), 4)
    reading = Reading(Preprocessing(SIZE), 4, workers=3)
    without = list(manifest_batches(manifest, groups, reading))
    cache = opened(data).cache
    shutil.rmtree(data / "valid")
    batches = list(manifest_batches(manifest, groups, reading, cache))
    assert len(batches) == len(without) == len(groups)
    for ours, theirs in zip(batches, without, strict=True):
        assert np.array_equal(ours.pixels, theirs.pixels)
        assert np.array_equal(ours.rows, theirs.rows)


def test_a_second_call_decodes_only_a_few_images(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(data, split="train")
    read: list[Path] = []
    plain_read = cache_files.read_pixels
    monkeypatch.setattr(cache_files, "read_pixels", lambda path, *rest: (read.append(path), plain_read(path, *rest))[1])
    result = opened(data, split="train")
    assert result.state == "valid"
    assert 0 < len(read) <= 8 < len(result.cache)


def _touch(data: Path, folder: Path) -> None:
    changed_later(images(data)[3])


def _other_pixels(data: Path, folder: Path) -> None:
    path = images(data)[3]
    Image.fromarray(255 - np.asarray(Image.open(path).convert("L"))).save(path)


def _label(data: Path, folder: Path) -> None:
    sheet = data / "valid.csv"
    sheet.write_text(sheet.read_text().replace(",1.0", ",0.0", 1))


def _row_gone(data: Path, folder: Path) -> None:
    sheet = data / "valid.csv"
    lines = sheet.read_text().splitlines(keepends=True)
    keep = next(n for n, line in enumerate(lines) if "_frontal" in line)
    sheet.write_text("".join(lines[:keep] + lines[keep + 1 :]))


def _cut(data: Path, folder: Path) -> None:
    path = next(folder.glob("pixels-*.npy"))
    os.truncate(path, path.stat().st_size - 1)


def _gone(data: Path, folder: Path) -> None:
    next(folder.glob("pixels-*.npy")).unlink()


def _rows_damaged(data: Path, folder: Path) -> None:
    flip(next(folder.glob("rows-*.npy")), -3)


def _first_row_damaged(data: Path, folder: Path) -> None:
    flip(next(folder.glob("pixels-*.npy")), 128)


def _sidecar_cut(data: Path, folder: Path) -> None:
    os.truncate(folder / "cache.json", 40)


def _sidecar_leads_elsewhere(data: Path, folder: Path) -> None:
    content = json.loads((folder / "cache.json").read_text())
    (folder / "cache.json").write_text(json.dumps(content | {"pixels": "../../valid.csv"}))


def _sidecar(key: str, value: object) -> Callable[[Path, Path], None]:
    def change(data: Path, folder: Path) -> None:
        content = json.loads((folder / "cache.json").read_text())
        assert content[key] != value
        (folder / "cache.json").write_text(json.dumps(content | {key: value}))

    return change


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_touch, "1 of 8 files have changed"),
        (_other_pixels, "1 of 8 files have changed"),
        (_label, "valid.csv has changed"),
        (_row_gone, "valid.csv has changed"),
        (_cut, "its pixels are incomplete"),
        (_gone, "its pixels are incomplete or missing"),
        (_rows_damaged, "is damaged"),
        (_first_row_damaged, "has other pixels when read again"),
        (_sidecar_cut, "cache.json cannot be read"),
        (_sidecar_leads_elsewhere, "cache.json cannot be read"),
        (_sidecar("image_size", 64), "another image size"),
        (_sidecar("resize", "nearest"), "preprocessing has changed"),
        (_sidecar("reader", "version 0"), "the image reader has changed"),
        (_sidecar("format", 0), "another version"),
    ],
)
def test_an_invalid_cache_is_rebuilt_with_the_reason(
    data: Path, change: Callable[[Path, Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = opened(data).cache.folder
    change(data, folder)
    result = opened(data)
    assert result.state == "rebuilt"
    warnings = [record.message for record in caplog.records if "is rebuilt:" in record.message]
    assert len(warnings) == 1
    assert reason.replace("8", str(len(images(data)))) in warnings[0]
    for row, path in enumerate(images(data)):
        assert np.array_equal(result.cache.read(row), plain(path))
    assert len(list(folder.iterdir())) == 4, "pixels, rows, cache.json and the lock"
    assert opened(data).state == "valid"


@pytest.mark.parametrize("at_once", [1, 3, 8, 10_000])
def test_the_digest_of_paths_does_not_depend_on_how_many_are_joined_at_once(
    data: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of all paths joined by NUL, as in caches built before."""
    monkeypatch.setattr(cache_files, "_PATHS_AT_ONCE", at_once)
    manifest = Dataset(DataSettings(root=data)).usable("valid")
    paths = manifest.paths.copy()
    paths[1] = "é/\udcff.jpg"  # a name that is not UTF-8
    joined = b"\0".join(os.fsencode(path) for path in paths)
    assert cache_files.digest_of_paths(replace(manifest, paths=paths)) == hashlib.sha256(joined).hexdigest()


def test_each_size_and_view_has_its_own_cache(data: Path) -> None:
    assert opened(data).state == opened(data, 64).state == opened(data, views="all").state == "built"
    assert opened(data).state == opened(data, 64).state == opened(data, views="all").state == "valid"
    assert len(list((data / CACHE_NAME).iterdir())) == 3


def test_a_flipped_byte_is_found_when_read_reported_once_and_repaired(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = opened(data, split="train").cache
    flip(next(cache.folder.glob("pixels-*.npy")), 128 + SIZE * SIZE + 5)  # row 1 is not read again on opening
    cache = opened(data, split="train").cache
    manifest = Dataset(DataSettings(root=data)).usable("train")
    (batch,) = manifest_batches(manifest, [np.array([0, 1, 2])], Reading(Preprocessing(SIZE), 8), cache=cache)
    for row in range(3):
        assert np.array_equal(batch.pixels[row, 0], plain(manifest.file(row)))
    assert cache.read(1) is None
    assert [record.message for record in caplog.records].count(
        f"the pixels in {cache.folder} are damaged at row 1; image files are read instead"
    ) == 1
    assert opened(data, split="train").state == "built"


def test_an_unreadable_image_is_treated_as_without_a_cache(data: Path) -> None:
    bad = images(data)[2]
    good = bad.read_bytes()
    bad.write_bytes(good[: len(good) // 2])
    result = opened(data)
    assert len(result.unreadable) == 1
    assert str(bad) in result.unreadable[0]
    assert result.cache.unreadable_rows.tolist() == [2]
    manifest = Dataset(DataSettings(root=data)).usable("valid")
    errors = []
    for cache in (None, result.cache):
        with pytest.raises(ImageError) as caught:
            list(manifest_batches(manifest, [np.arange(4)], Reading(Preprocessing(SIZE), 8), cache=cache))
        errors.append((caught.value.message, caught.value.advice, caught.value.exit_code))
    assert errors[0] == errors[1]
    assert opened(data).unreadable == result.unreadable
    bad.write_bytes(good)
    assert opened(data).unreadable == ()


def test_an_image_that_becomes_readable_is_cached_later(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, plain_read = images(data)[2], cache_files.read_pixels

    def refuse(path: Path, *rest: Any) -> Any:
        if path == bad:
            raise ImageError(f"{path}: no permission")
        return plain_read(path, *rest)

    monkeypatch.setattr(cache_files, "read_pixels", refuse)
    assert len(opened(data).cache.unreadable_rows) == 1
    monkeypatch.undo()  # permissions change neither size nor modification time
    result = opened(data)
    assert result.reason == "1 images that could not be read before can be read now"
    assert not len(result.cache.unreadable_rows)


def test_too_little_space_is_refused_before_building(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(data)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(RequestError, match=r"images at 48 px takes 0.0 GB, but .* has 0.0 GB free") as caught:
        opened(data)
    assert "--cache-dir" in caught.value.advice
    assert not list((data / CACHE_NAME).rglob("*.npy"))


def _build_with_small_files(data: Path, results: "multiprocessing.Queue[Any]") -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    try:
        opened(data)
    except CxrError as error:
        results.put((error.exit_code, error.message, error.advice))


def test_a_full_disk_is_an_error_and_leaves_no_files(data: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=_build_with_small_files, args=(data, results))
    process.start()
    code, message, advice = results.get(timeout=60)
    process.join(60)
    assert process.exitcode == 0
    assert code == 1
    assert message.startswith("cannot write the cache")
    assert message.endswith("File too large")
    assert "--cache-dir" in advice
    assert [path.name for path in (data / CACHE_NAME).rglob("*") if path.is_file()] == [".lock"]


def test_a_folder_that_is_not_writable_is_refused_with_advice(data: Path, tmp_path: Path) -> None:
    (data / CACHE_NAME).write_text("a file where the folder would be")
    with pytest.raises(RequestError, match="cannot write the cache") as caught:
        opened(data)
    assert "--cache-dir" in caught.value.advice
    assert opened(data, cache_dir=tmp_path / "elsewhere").state == "built"


def test_a_good_cache_that_cannot_be_locked_is_used(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = opened(data).cache.folder
    (folder / ".lock").unlink()
    (folder / ".lock").mkdir()  # cannot be opened, by root either
    assert opened(data).state == "valid"
    changed_later(images(data)[0])
    with pytest.raises(RequestError, match="cannot write the cache"):
        opened(data)


def test_data_sets_with_the_same_name_do_not_share_a_cache(data: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(data, tmp_path / "other" / "data"))
    place = tmp_path / "pixels"
    assert opened(data, cache_dir=place).state == opened(twin, cache_dir=place).state == "built"
    assert opened(data, cache_dir=place).state == opened(twin, cache_dir=place).state == "valid"
    assert not (data / CACHE_NAME).exists()


SCRIPT = """
import sys
from pathlib import Path
import cxrtool.data.cache_files as cache_files
from cxrtool.data.batches import Reading
from cxrtool.data.cache import open_cache
from cxrtool.data.preprocessing import Preprocessing
from cxrtool.data.dataset import Dataset
from cxrtool.settings import DataSettings

plain_read = cache_files.read_pixels
def read(path, *rest):
    with open(sys.argv[2], "a") as file:
        file.write("x")
    return plain_read(path, *rest)
cache_files.read_pixels = read
settings = DataSettings(root=Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
result = open_cache(Dataset(settings).usable("train"), settings, Reading(Preprocessing(48), 8))
print(result.state, flush=True)
"""


def test_only_one_of_several_processes_builds(data: Path, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(data), str(tmp_path / "reads")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    states = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert states == ["built", "valid", "valid"]
    # Each image once, and for each process the few that are read again.
    assert len((tmp_path / "reads").read_text()) == len(images(data, "train")) + 3 * 8


@pytest.fixture
def hung_build(data: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that hangs in the middle of building."""
    hang = "    import os, time\n    if os.path.getsize(sys.argv[2]) > 5: time.sleep(3600)\n    return plain_read"
    script = SCRIPT.replace("    return plain_read", hang)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(data), str(tmp_path / "reads")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not (path := tmp_path / "reads").exists() or path.stat().st_size < 6:
        assert time.monotonic() < deadline, "the build has not begun"
        time.sleep(0.02)
    yield process
    process.kill()
    process.communicate(timeout=30)


def test_files_of_a_killed_build_are_not_used_and_are_removed(
    data: Path, hung_build: "subprocess.Popen[str]", caplog: pytest.LogCaptureFixture
) -> None:
    hung_build.kill()
    hung_build.wait(30)
    folder = next((data / CACHE_NAME).iterdir())
    left = list(folder.glob("pixels-*.npy"))
    assert len(left) == 1
    assert not (folder / "cache.json").exists()
    result = opened(data, split="train")
    assert result.state == "built"
    assert not left[0].exists()
    assert len(list(folder.iterdir())) == 4
    assert np.array_equal(result.cache.read(0), plain(images(data, "train")[0]))


def test_a_waiting_process_can_be_stopped_and_a_cache_being_built_cannot_be_removed(
    data: Path, hung_build: "subprocess.Popen[str]", caplog: pytest.LogCaptureFixture
) -> None:
    settings = DataSettings(root=data)
    asked = threading.Event()
    with pytest.raises(InterruptedWorkError) as caught:
        open_cache(
            Dataset(settings).usable("train"),
            settings,
            Reading(Preprocessing(SIZE), 8),
            stop=lambda: signal.SIGTERM if asked.is_set() else asked.set(),
        )
    assert caught.value.exit_code == 143
    assert "waiting for it" in caplog.text
    with pytest.raises(RequestError, match="another process is building"):
        remove_caches(settings)


def test_a_stopped_build_leaves_no_files(data: Path) -> None:
    settings, steps = DataSettings(root=data), iter(range(100))
    with pytest.raises(InterruptedWorkError) as caught:
        open_cache(
            Dataset(settings).usable("train"),
            settings,
            Reading(Preprocessing(SIZE), 8),
            stop=lambda: signal.SIGINT if next(steps) == 5 else None,
        )
    assert caught.value.exit_code == 130
    assert [path.name for path in (data / CACHE_NAME).rglob("*") if path.is_file()] == [".lock"]


def test_progress_ends_at_the_last_image(data: Path) -> None:
    settings, shown = DataSettings(root=data), list[Progress]()
    open_cache(Dataset(settings).usable("valid"), settings, Reading(Preprocessing(SIZE), 8), shown.append)
    assert (shown[-1].done, shown[-1].total) == (len(images(data)), len(images(data)))
    assert shown[-1].detail.endswith("images/s")


def test_removing_deletes_only_caches(data: Path) -> None:
    cache = opened(data).cache
    opened(data, 64)
    (cache.folder / "notes.txt").write_text("mine")
    settings = DataSettings(root=data)
    size = sum(path.stat().st_size for path in caches_folder(settings).rglob("*.npy"))
    assert remove_caches(settings) == size
    assert [path.name for path in (data / CACHE_NAME).rglob("*") if path.is_file()] == ["notes.txt"]
    assert np.array_equal(cache.read(0), plain(images(data)[0])), "an open cache can still be read"
    assert remove_caches(settings) == 0
