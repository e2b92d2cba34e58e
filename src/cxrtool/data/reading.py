"""Reading ahead with threads, in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cxrtool.errors import CxrError

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    items: Iterable[Item],
    load: Callable[[Item], Result],
    workers: int = 2,
    ahead: int = 64,
    timeout: float | None = None,
) -> Generator[tuple[Item, Result | CxrError], None, None]:
    """Load each item in a thread, up to `ahead` before they are asked for.

    Args:
        items: what to load; may be endless, and is taken only as far as the window reaches.
        load: called in a thread.
        workers: threads.
        ahead: most items in memory.
        timeout: seconds to wait for one item; None waits for ever.

    Yields:
        (item, result) in the order of `items`; a `CxrError` that `load` raised is the result, any other exception
        is raised here.

    Raises:
        CxrError: an item took longer than `timeout`.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read-ahead")
    waiting: deque[tuple[Item, Future[Result | CxrError]]] = deque()
    remaining = iter(items)
    try:
        while True:
            while len(waiting) < ahead:
                try:
                    item = next(remaining)
                except StopIteration:
                    break
                waiting.append((item, pool.submit(_load_or_error, load, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            try:
                result = future.result(timeout)
            except TimeoutError:
                raise CxrError(
                    f"reading {item} has hung for {timeout:g} s",
                    "Check the disk or network share, then go on.",
                ) from None
            yield item, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _load_or_error(load: Callable[[Item], Result], item: Item) -> Result | CxrError:
    try:
        return load(item)
    except CxrError as error:
        return error
