"""Reading ahead with threads, in order and in bounded memory."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from cxrtool.errors import CxrError, is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")
_END_OF_READ = 2.0
"""Seconds to wait at the end for reads that are still running."""


def read_ahead(
    items: Iterable[Item],
    load: Callable[[Item], Result],
    workers: int = 2,
    ahead: int = 64,
    timeout: float | None = None,
    name_of: Callable[[Item], object] = str,
) -> Generator[tuple[Item, Result | CxrError], None, None]:
    """Load items in threads, up to `ahead` of them before they are needed.

    Args:
        items: items to load; may be endless, since only the next `ahead` are taken.
        load: function that loads an item, called in a thread.
        workers: number of threads.
        ahead: largest number of items in memory.
        timeout: seconds to wait for one item; None waits without limit.
        name_of: function that names an item in messages.

    Yields:
        (item, result) in the order of `items`. The result is a `CxrError` if `load` raised one; any other exception
        becomes a `CxrError` that names it and the item.

    Raises:
        CxrError: an item took longer than `timeout`.
    """
    wanted: SimpleQueue[tuple[Item, Future[Result | CxrError]] | None] = SimpleQueue()

    def work() -> None:
        while (task := wanted.get()) is not None:
            item, future = task
            if future.set_running_or_notify_cancel():
                future.set_result(_load_or_error(load, item, name_of))

    # Daemon threads, unlike those of ThreadPoolExecutor: the process must be able to end while a read hangs.
    threads = [threading.Thread(target=work, name=f"read-ahead-{n}", daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    waiting: deque[tuple[Item, Future[Result | CxrError]]] = deque()
    remaining = iter(items)
    hung = False
    try:
        while True:
            while len(waiting) < ahead:
                try:
                    item = next(remaining)
                except StopIteration:
                    break
                waiting.append((item, Future()))
                wanted.put(waiting[-1])
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                result = future.result(timeout)
            except TimeoutError:
                hung = True
                raise CxrError(
                    f"reading {name_of(item)} has hung for {timeout:g} s",
                    "Check the disk or network share, then run the command again.",
                ) from None
            yield item, result
    finally:
        for _, future in waiting:
            future.cancel()
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
