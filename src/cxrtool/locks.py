"""Locks between processes, for files and folders that only one process may write.

All locks are portalocker's on an open file: ``flock``, or ``msvcrt.locking`` on Windows. The system releases them when
the process ends, even if it is killed. Some network file systems have no locks; callers then warn if writing is unsafe
without a lock, or continue as if no other process were running.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

LOCKED_FILES_CAN_BE_RENAMED = os.name != "nt"
"""Windows neither renames an open file nor opens a folder, and other handles cannot read or write what is locked."""
FOLDER_LOCK_NAME = ".cxrtool.lock"
"""Lock file in a folder on Windows, where the folder itself cannot be locked; it is left behind."""
_PAUSE = 0.05
"""Seconds between two attempts to lock where waiting ends by itself."""
_PARTIAL = re.compile(r"\.(.+\.)?[0-9a-f]{8}\.partial")


class NoLocksError(OSError):
    """The file system or the operating system has no file locks."""


def try_lock(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed or the process ends.

    Args:
        descriptor: descriptor of the file or folder.
        wait: wait until another process releases the lock.

    Returns:
        False if another process holds the lock and `wait` is not set.

    Raises:
        NoLocksError: the file system or the operating system has no such locks.
    """
    try:
        import portalocker  # here, because much that writes files is imported without locking any
    except (ImportError, FileNotFoundError):
        # Python without both modules, as in a browser, or no folder for temporary files, which portalocker looks for.
        raise NoLocksError("this system has no file locks") from None
    flags = portalocker.LockFlags.EXCLUSIVE | (portalocker.LockFlags(0) if wait else portalocker.LockFlags.NON_BLOCKING)
    while True:
        try:
            portalocker.lock(descriptor, flags)
        except portalocker.AlreadyLocked:
            if not wait:
                return False
            time.sleep(_PAUSE)  # Windows gives up waiting after ten seconds
        except portalocker.LockException as error:
            cause = error.__cause__
            if isinstance(cause, OSError):
                raise NoLocksError(cause.errno, cause.strerror) from error
            raise NoLocksError(error.strerror or str(error)) from error
        else:
            return True


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether `path` is still the name of the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def open_locked(path: Path, when_held: Callable[[], None]) -> TextIO:
    """Open a lock file and lock it; closing it releases the lock. The file and its folder are created if missing.

    Args:
        path: path of the lock file; its content is not changed.
        when_held: called each time another process holds the lock; it raises to give up, or waits before a new attempt.

    Raises:
        NoLocksError: the system has no file locks.
        OSError: the file cannot be opened.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
        try:
            held = try_lock(file.fileno())
            # The previous holder may have removed the file between the two calls.
            if held and is_same_file(file.fileno(), path):
                return file
            if not held:
                when_held()
        except BaseException:
            file.close()
            raise
        file.close()


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Wait until no other process or thread changes a file beside or at `path`, and keep them waiting in the block.

    The lock is on the folder, because `path` itself may be replaced and may not exist yet; nothing is left behind,
    except on Windows (`FOLDER_LOCK_NAME`). Without locks the block runs all the same. Blocks for files of one folder
    must not be nested.

    Raises:
        OSError: the folder cannot be created or opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if LOCKED_FILES_CAN_BE_RENAMED:
        with _held(path.parent):
            yield
        return
    with (path.parent / FOLDER_LOCK_NAME).open("a", encoding="utf-8") as file:
        with suppress(NoLocksError):
            try_lock(file.fileno(), wait=True)
        yield


@contextmanager
def new_partial(path: Path) -> Iterator[Path]:
    """Create an empty temporary file beside `path`, locked inside the block so that `sweep_partials` keeps it."""
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        # Not tempfile, whose mode 0600 would make results unreadable for the group.
        descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        if not LOCKED_FILES_CAN_BE_RENAMED:  # and nothing is swept
            os.close(descriptor)
            yield partial
            return
        try:
            with suppress(NoLocksError):  # nothing is swept on a file system without locks
                try_lock(descriptor, wait=True)
            if is_same_file(descriptor, partial):
                yield partial
                return
        finally:
            os.close(descriptor)  # the block has ended, or the file was swept between the two calls


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Create `folder`, locked inside the block so that `sweep_partials` keeps it."""
    folder.mkdir(parents=True)
    with _held(folder) if LOCKED_FILES_CAN_BE_RENAMED else nullcontext():
        yield


def sweep_partials(folder: Path) -> int:
    """Remove temporary files and folders of killed processes from `folder`, but not those of running ones.

    Returns:
        Number of files and folders removed; 0 on Windows, where they are not locked.
    """
    if not LOCKED_FILES_CAN_BE_RENAMED:
        return 0
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


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the lock on a folder inside the block, where there are locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(NoLocksError):
            try_lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
