"""Locks between processes: one for each file or folder that only one may write.

All of them are ``flock`` on an open file, which the kernel frees when the process ends, however it ends: no lock is
ever left behind. Python on Windows has no ``flock``, nor have some network file systems; what is not safe without a
lock warns there, and the rest goes on as if it were alone.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PARTIAL = re.compile(r"\.(.+\.)?[0-9a-f]{8}\.partial")


class NoLocksError(OSError):
    """Files cannot be locked here."""


def try_lock(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed or the process ends.

    Args:
        descriptor: of the file or folder.
        wait: until whoever holds it lets go.

    Returns:
        False where another process holds it and `wait` is not set.

    Raises:
        NoLocksError: the file system or the operating system has no such locks.
    """
    if fcntl is None:
        raise NoLocksError("there are no file locks on this system")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise NoLocksError(error.errno, error.strerror) from error
    return True


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def open_locked(path: Path, when_held: Callable[[], None]) -> TextIO:
    """Open a lock file, made with its folder where need be, and lock it; closing it frees the lock.

    Args:
        path: of the lock file. Its content is the caller's and stays.
        when_held: called each time another process is found to hold it; raises to give up, or waits a while.

    Raises:
        NoLocksError: files cannot be locked here.
        OSError: the file cannot be opened.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
        try:
            held = try_lock(file.fileno())
            # Whoever held it may have removed the file between the two calls.
            if held and is_same_file(file.fileno(), path):
                return file
            if not held:
                when_held()
        except BaseException:
            file.close()
            raise
        file.close()


@contextmanager
def new_partial(path: Path) -> Iterator[Path]:
    """A new, empty file beside `path` to write in, locked while the block lasts: `sweep_partials` leaves it alone."""
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        # Not tempfile: its 0600 would hide results from the group.
        descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        if fcntl is None:  # nothing is swept there, and Windows renames no file that is open
            os.close(descriptor)
            yield partial
            return
        try:
            with suppress(NoLocksError):  # a file system without locks; nothing is swept there
                try_lock(descriptor, wait=True)
            if is_same_file(descriptor, partial):
                yield partial
                return
        finally:
            os.close(descriptor)  # swept between the two calls, or done


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it while the block lasts: `sweep_partials` leaves it alone."""
    folder.mkdir(parents=True)
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(NoLocksError):
            try_lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def sweep_partials(folder: Path) -> int:
    """Remove what killed writers left in `folder`, files and folders, never what a live one is writing.

    Returns:
        How many were removed.
    """
    swept = 0
    for path in folder.glob(".*.partial"):
        if not _PARTIAL.fullmatch(path.name) or path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if try_lock(descriptor):
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                    swept += 1
            finally:
                os.close(descriptor)
    return swept
