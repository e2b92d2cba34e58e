"""Reading ahead with threads, in order and in bounded memory."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

from cxrtool.errors import CxrError, is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")
_END_OF_READ = 2.0
"""Seconds to wait at the end for reads that are still running."""
MOST_HUNG = 32
"""Reads that may hang at the same time before reading stops: a thread cannot be ended, and each keeps its memory."""


class _Task(Generic[Item, Result]):
    """One read: its item, its result, and when a thread began it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.future: Future[Result | CxrError] = Future()
        self.began: float | None = None

    def result(self, timeout: float | None) -> Result | CxrError:
        """Wait for the result.

        Raises:
            TimeoutError: the read has taken longer than `timeout` seconds since a thread began it.
        """
        while timeout is not None:
            left = timeout if self.began is None else self.began + timeout - time.monotonic()
            try:
                return self.future.result(max(left, 0.0))
            except TimeoutError:
                if self.began is not None and time.monotonic() >= self.began + timeout:
                    raise
        return self.future.result()


def read_ahead(
    items: Iterable[Item],
    load: Callable[[Item], Result],
    workers: int = 2,
    ahead: int = 64,
    timeout: float | None = None,
    name_of: Callable[[Item], object] = str,
    skip_hung: bool = False,
) -> Generator[tuple[Item, Result | CxrError], None, None]:
    """Load items in threads, up to `ahead` of them before they are needed.

    Args:
        items: items to load; may be endless, since only the next `ahead` are taken.
        load: function that loads an item, called in a thread.
        workers: number of threads.
        ahead: largest number of items in memory.
        timeout: seconds that one item may take; None waits without limit.
        name_of: function that names an item in messages.
        skip_hung: yield an error for an item that takes longer, and go on with a new thread in the place of the hung
            one, which cannot be ended.

    Yields:
        (item, result) in the order of `items`. The result is a `CxrError` if `load` raised one; any other exception
        becomes a `CxrError` that names it and the item.

    Raises:
        CxrError: an item took longer than `timeout`, and `skip_hung` is not set or `MOST_HUNG` reads hang already.
    """
    wanted: SimpleQueue[_Task[Item, Result] | None] = SimpleQueue()
    threads: list[threading.Thread] = []

    def work() -> None:
        while (task := wanted.get()) is not None:
            if task.future.set_running_or_notify_cancel():
                task.began = time.monotonic()
                task.future.set_result(_load_or_error(load, task.item, name_of))
                if task in hung:  # another thread has taken this one's place
                    hung.remove(task)
                    return

    def start_thread() -> None:
        # Daemon threads, unlike those of ThreadPoolExecutor: the process must be able to end while a read hangs.
        threads.append(threading.Thread(target=work, name=f"read-ahead-{len(threads)}", daemon=True))
        threads[-1].start()

    for _ in range(workers):
        start_thread()
    waiting: deque[_Task[Item, Result]] = deque()
    remaining = iter(items)
    hung: list[_Task[Item, Result]] = []
    try:
        while True:
            while len(waiting) < ahead:
                try:
                    item = next(remaining)
                except StopIteration:
                    break
                waiting.append(_Task(item))
                wanted.put(waiting[-1])
            if not waiting:
                return
            task = waiting.popleft()
            try:
                result = task.result(timeout)
            except TimeoutError:
                hung.append(task)
                result = CxrError(
                    f"reading {name_of(task.item)} has hung for {timeout:g} s",
                    "Check the disk or network share, then run the command again.",
                )
                if not skip_hung or sum(not one.future.done() for one in hung) > MOST_HUNG:
                    raise result from None
                start_thread()
            yield task.item, result
    finally:
        for task in waiting:
            task.future.cancel()
        for _ in threads:
            wanted.put(None)
        # A thread that returns from a decoder while the interpreter shuts down would abort the process.
        deadline = time.monotonic() + (0 if hung else _END_OF_READ)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _load_or_error(load: Callable[[Item], Result], item: Item, name_of: Callable[[Item], object]) -> Result | CxrError:
    try:
        return load(item)
    except CxrError as error:
        return error
    except Exception as error:  # noqa: BLE001 - every item needs an answer that names its file
        reason = "out of memory" if is_out_of_memory(error) else f"unexpected {type(error).__name__}: {error}"
        failure = CxrError(f"{name_of(item)}: {reason}")
        failure.__cause__ = error
        return failure
