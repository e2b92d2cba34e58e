import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import portalocker.portalocker
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

    monkeypatch.setattr(portalocker.portalocker, "LOCKER", no_locks)
    with pytest.raises(NoLocksError, match="No locks available"):
        open_locked(tmp_path / ".lock", pytest.fail)
    with replacing(tmp_path / "out.txt") as partial, locked_folder(tmp_path / ".0a1b2c3d.partial"):
        partial.write_text("x")
        assert sweep_partials(tmp_path) == 0
    assert (tmp_path / "out.txt").read_text() == "x"


AS_ON_WINDOWS = """
import os, signal, sys
import fcntl, multiprocessing.util, subprocess, tempfile  # Python's own modules for this system use what is taken away
import portalocker, cxrtool.locks  # for the modules of Python that these import
{before}

def locking(descriptor, mode, count, flock=fcntl.flock, locked=fcntl.LOCK_EX | fcntl.LOCK_NB):
    assert mode in (1, 2) and count > 0 and os.lseek(descriptor, 0, 1) == 0
    try:
        flock(descriptor, locked)
    except BlockingIOError:
        raise OSError(13 if mode == 2 else 36, "locked") from None

if {with_locks}:
    msvcrt = type(sys)("msvcrt")
    msvcrt.locking = locking
    msvcrt.LK_UNLCK, msvcrt.LK_LOCK, msvcrt.LK_NBLCK, msvcrt.LK_RLCK, msvcrt.LK_NBRLCK = range(5)
    sys.modules["msvcrt"] = msvcrt
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"):
    sys.modules[name] = None
for name in [name for name in sys.modules if name.partition(".")[0] in ("cxrtool", "portalocker")]:
    del sys.modules[name]
os.name = "nt"  # for these two only
import cxrtool.locks
if {with_locks}:
    import portalocker
os.name = "posix"
for name in POSIX_ONLY.split():
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGPIPE", "SIGALRM", "SIGUSR1", "SIGUSR2", "setitimer", "pthread_sigmask"):
    delattr(signal, name)
open_file = os.open
def open_no_folder(path, *arguments, **keywords):
    if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", os.fspath(path))
    return open_file(path, *arguments, **keywords)
os.open = open_no_folder
def unless_open(change):
    def changed(*paths, **keywords):
        held = [os.path.realpath(f"/proc/self/fd/{{number}}") for number in os.listdir("/proc/self/fd")]
        for path in paths:
            if os.path.realpath(path) in held:
                raise PermissionError(13, "The process cannot access the file because it is being used", path)
        return change(*paths, **keywords)
    return changed
for name in ("replace", "rename", "unlink", "remove"):
    setattr(os, name, unless_open(getattr(os, name)))

from pathlib import Path
import pytest
from cxrtool.files import write_text
from cxrtool.locks import NoLocksError, changing, locked_folder, open_locked, sweep_partials, try_lock
{body}
"""
POSIX_ONLY = """
fork forkpty register_at_fork sched_getaffinity sched_setaffinity getuid geteuid getgid getegid getgroups getloadavg
getpgid getpgrp getsid setsid killpg uname statvfs fstatvfs sysconf mkfifo mknod chown fchown lchown chroot nice
pread pwrite preadv pwritev posix_fadvise posix_fallocate posix_spawn sendfile wait wait3 wait4 waitid
O_DIRECTORY O_NOFOLLOW O_CLOEXEC O_NONBLOCK O_SYNC O_DSYNC
"""


def as_on_windows(folder: Path, body: str, with_locks: bool, before: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a program in a process that lacks what Python on Windows lacks; `before` runs while all is still there.

    The locks are those that portalocker takes on Windows, with ``msvcrt.locking`` replaced, or none.
    """
    program = f"POSIX_ONLY = {POSIX_ONLY!r}\n" + AS_ON_WINDOWS.format(body=body, with_locks=with_locks, before=before)
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)


def test_on_windows_files_are_written_and_none_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".out.txt.0a1b2c3d.partial").write_text("of another process")
    done = as_on_windows(
        tmp_path,
        "write_text(Path('out.txt'), 'x')\n"
        "with locked_folder(Path('.11111111.partial')): assert sweep_partials(Path()) == 0\n",
        with_locks=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.txt").read_text() == "x"
    assert (tmp_path / ".out.txt.0a1b2c3d.partial").exists()


def test_on_windows_files_and_folders_are_locked(tmp_path: Path) -> None:
    holder = (
        "import sys; from pathlib import Path; from cxrtool.locks import open_locked\n"
        "file = open_locked(Path(sys.argv[1]), lambda: sys.exit(3)); print(flush=True); sys.stdin.read()"
    )
    body = (
        "changed = Path('runs/model.safetensors')\n"
        "with changing(changed):\n"
        "    assert not changed.exists()\n"
        "    with Path('runs/.cxrtool.lock').open('a') as second: assert not try_lock(second.fileno())\n"
        "with Path('runs/.cxrtool.lock').open('a') as second: assert try_lock(second.fileno())\n"
        "with pytest.raises(ZeroDivisionError): open_locked(Path('.lock'), lambda: 1 / 0)\n"
        "other.communicate()\n"  # ends the other process
        "open_locked(Path('.lock'), sys.exit).close()\n"
    )
    before = (
        f"other = subprocess.Popen([sys.executable, '-c', {holder!r}, '.lock'], stdin=-1, stdout=-1)\n"
        "other.stdout.readline()"
    )
    done = as_on_windows(tmp_path, body, with_locks=True, before=before)
    assert (done.returncode, done.stderr) == (0, "")


def test_where_python_has_no_locks_at_all_files_are_written(tmp_path: Path) -> None:
    done = as_on_windows(
        tmp_path,
        "with changing(Path('out.txt')): write_text(Path('out.txt'), 'x')\n"
        "with pytest.raises(NoLocksError): open_locked(Path('.lock'), sys.exit)",
        with_locks=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.txt").read_text() == "x"


@pytest.mark.parametrize("with_locks", [True, False])
def test_on_windows_a_radiograph_is_predicted_into_a_table(
    run: Path, phantoms: Path, tmp_path: Path, with_locks: bool
) -> None:
    image = next(phantoms.rglob("*frontal.jpg"))
    done = as_on_windows(
        tmp_path,
        "import importlib, pkgutil, cxrtool\n"
        "for module in pkgutil.walk_packages(cxrtool.__path__, 'cxrtool.'):\n"
        "    if module.name != 'cxrtool.__main__': importlib.import_module(module.name)\n"
        "from cxrtool.cli.app import main\n"
        f"sys.exit(main(['predict', {str(image)!r}, '--model', {str(run)!r}, '--device', 'cpu', '--csv', 'out.csv']))",
        with_locks,
        before="import torch",  # built for this system
    )
    assert done.returncode == 0, done.stderr
    assert ("cannot be locked" in done.stderr) is not with_locks
    assert (tmp_path / "out.csv").read_text().count("\n") == 2
