import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cxrtool.files import replacing
from cxrtool.locks import NoLocksError, locked_folder, open_locked, sweep_partials, try_lock


def test_temporary_files_of_killed_processes_are_removed_and_those_of_running_ones_kept(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from cxrtool.files import replacing\n"
        "from cxrtool.locks import locked_folder\n"
        "with replacing(Path('dead.txt')) as file, locked_folder(Path('.0a1b2c3d.partial')):\n"
        "    file.write_text('half'); print(flush=True); time.sleep(1000)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2
    assert sweep_partials(tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    (tmp_path / ".out.csv.partial").write_text("rows that --resume-csv takes over")
    (tmp_path / "mine.partial").write_text("not ours")
    with replacing(tmp_path / "live.txt") as live, locked_folder(tmp_path / ".11111111.partial"):
        assert sweep_partials(tmp_path) == 2
        assert {path.name for path in tmp_path.iterdir()} == {
            live.name,
            ".11111111.partial",
            ".out.csv.partial",
            "mine.partial",
        }
    assert (tmp_path / "live.txt").exists()


def test_a_lock_is_refused_while_another_process_has_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".lock"
    program = (
        "import sys, time; from pathlib import Path; from cxrtool.locks import open_locked\n"
        "file = open_locked(Path(sys.argv[1]), lambda: sys.exit(3)); print(flush=True); time.sleep(1000)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    asked = []

    def free_it_the_second_time() -> None:
        asked.append(1)
        if len(asked) == 2:
            holder.send_signal(signal.SIGKILL)
            holder.wait()

    open_locked(path, free_it_the_second_time).close()
    holder.communicate()
    assert len(asked) == 2
    assert subprocess.run([sys.executable, "-c", program.replace("sleep(1000)", "sleep(0)"), str(path)]).returncode == 0


def test_a_lock_file_that_was_removed_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, removed = tmp_path / ".lock", []

    def lock_after_it_is_removed(descriptor: int) -> bool:
        if not removed:
            removed.append(path.stat().st_ino)
            path.unlink()
        return try_lock(descriptor)

    monkeypatch.setattr("cxrtool.locks.try_lock", lock_after_it_is_removed)
    with open_locked(path, pytest.fail) as file:
        assert removed
        assert path.stat().st_ino == os.fstat(file.fileno()).st_ino


def test_without_locks_locking_is_an_error_and_writing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(NoLocksError, match="No locks available"):
        open_locked(tmp_path / ".lock", pytest.fail)
    with replacing(tmp_path / "out.txt") as partial, locked_folder(tmp_path / ".0a1b2c3d.partial"):
        partial.write_text("x")
        assert sweep_partials(tmp_path) == 0
    assert (tmp_path / "out.txt").read_text() == "x"


WITHOUT_FCNTL = """
import sys
sys.modules["fcntl"] = None  # as on Windows
from pathlib import Path
import pytest
from cxrtool.files import write_text
from cxrtool.locks import NoLocksError, locked_folder, open_locked, sweep_partials
{body}
"""


def without_fcntl(folder: Path, body: str) -> "subprocess.CompletedProcess[str]":
    program = WITHOUT_FCNTL.format(body=body)
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)


def test_without_fcntl_files_are_written_and_none_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".out.txt.0a1b2c3d.partial").write_text("of another process")
    done = without_fcntl(
        tmp_path,
        "write_text(Path('out.txt'), 'x')\n"
        "with locked_folder(Path('.11111111.partial')): assert sweep_partials(Path()) == 0\n"
        "with pytest.raises(NoLocksError): open_locked(Path('.lock'), sys.exit)",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.txt").read_text() == "x"
    assert (tmp_path / ".out.txt.0a1b2c3d.partial").exists()


def test_without_fcntl_a_radiograph_is_predicted_into_a_table(run: Path, phantoms: Path, tmp_path: Path) -> None:
    image = next(phantoms.rglob("*frontal.jpg"))
    done = without_fcntl(
        tmp_path,
        "from cxrtool.cli.app import main\n"
        f"sys.exit(main(['predict', {str(image)!r}, '--model', {str(run)!r}, '--device', 'cpu', '--csv', 'out.csv']))",
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be locked" in done.stderr
    assert (tmp_path / "out.csv").read_text().count("\n") == 2
