"""Reading ahead with threads, in order, in bounded memory."""

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
"""Seconds that ending waits for reads under way."""


def read_ahead(
    items: Iterable[Item],
    load: Callable[[Item], Result],
    workers: int = 2,
    ahead: int = 64,
    timeout: float | None = None,
    name_of: Callable[[Item], object] = str,
) -> Generator[tuple[Item, Result | CxrError], None, None]:
    """Load each item in a thread, up to `ahead` before they are asked for.

    Args:
        items: what to load; may be endless, and is taken only as far as the window reaches.
        load: called in a thread.
        workers: threads.
        ahead: most items in memory.
        timeout: seconds to wait for one item; None waits for ever.
        name_of: what a message calls an item.

    Yields:
        (item, result) in the order of `items`; the result is a `CxrError` where `load` raised one, or where it raised
        anything else, which the error names together with the item.

    Raises:
        CxrError: an item took longer than `timeout`.
    """
    wanted: SimpleQueue[tuple[Item, Future[Result | CxrError]] | None] = SimpleQueue()

    def work() -> None:
        while (task := wanted.get()) is not None:
            item, future = task
            if future.set_running_or_notify_cancel():
                future.set_result(_load_or_error(load, item, name_of))

    # Daemons, which ThreadPoolExecutor's are not: a process must be able to end while a dead disk holds a read.
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
                    "Check the disk or network share, then go on.",
                ) from None
            yield item, result
    finally:
        for _, future in waiting:
            future.cancel()
        for _ in threads:
            wanted.put(None)
        # A thread that comes back from a decoder while the interpreter ends would abort the process.
        deadline = time.monotonic() + (0 if hung else _END_OF_READ)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _load_or_error(load: Callable[[Item], Result], item: Item, name_of: Callable[[Item], object]) -> Result | CxrError:
    try:
        return load(item)
    except CxrError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a thread must answer, and say for which file
        told = "memory has run out" if is_out_of_memory(error) else f"unexpected {type(error).__name__}: {error}"
        failure = CxrError(f"{name_of(item)}: {told}")
        failure.__cause__ = error
        return failure
