import itertools
import threading
import time

import pytest

from cxrtool.data.read_ahead import read_ahead
from cxrtool.errors import CxrError


def test_results_come_in_order_whatever_the_threads_do() -> None:
    def slow_when_even(item: int) -> int:
        time.sleep(0.01 * (item % 2 == 0))
        return item * item

    assert list(read_ahead(range(20), slow_when_even, workers=4)) == [(n, n * n) for n in range(20)]


def test_an_error_is_a_result_and_one_that_nobody_expected_names_the_item() -> None:
    def load(item: int) -> int:
        if item == 1:
            raise CxrError("bad one")
        if item == 3:
            raise KeyError("a bug")
        return item

    results = read_ahead(range(5), load)
    assert next(results) == (0, 0)
    item, error = next(results)
    assert item == 1
    assert str(error) == "bad one"
    next(results)
    item, error = next(results)
    assert isinstance(error, CxrError)
    assert str(error) == "3: unexpected KeyError: 'a bug'"
    assert isinstance(error.__cause__, KeyError)
    assert next(results) == (4, 4)


def test_an_endless_list_is_taken_only_as_far_as_the_window() -> None:
    taken = itertools.count()
    results = read_ahead(taken, lambda item: item, workers=2, ahead=10)
    for _ in range(5):
        next(results)
    results.close()
    assert next(taken) <= 16


def test_a_read_that_hangs_is_named() -> None:
    release = threading.Event()
    with pytest.raises(CxrError, match="reading slow has hung"):
        list(read_ahead(["slow"], lambda _: release.wait(5), timeout=0.05))
    release.set()


def test_threads_end_with_the_reading_and_none_keeps_a_process_from_ending() -> None:
    before = set(threading.enumerate())
    results = read_ahead(range(100), lambda item: item, workers=3)
    next(results)
    mine = set(threading.enumerate()) - before
    assert len(mine) == 3
    assert all(thread.daemon for thread in mine)
    results.close()
    assert not any(thread.is_alive() for thread in mine)
