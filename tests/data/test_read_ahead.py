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


def test_a_read_that_hangs_may_be_an_error_and_the_others_go_on() -> None:
    release = threading.Event()

    def load(item: int) -> int:
        if item in (1, 2, 5):
            release.wait(30)
        return item

    began = time.monotonic()
    found = dict(read_ahead(range(20), load, workers=2, ahead=4, timeout=0.3, skip_hung=True))
    assert time.monotonic() - began < 10
    release.set()
    assert [item for item in range(20) if found[item] == item] == [n for n in range(20) if n not in (1, 2, 5)]
    assert str(found[5]) == "reading 5 has hung for 0.3 s"


def test_reading_stops_where_every_read_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrtool.data.read_ahead.MOST_HUNG", 3)
    release = threading.Event()
    results = read_ahead(range(99), lambda _: release.wait(30), timeout=0.05, skip_hung=True)
    taken = [next(results)[0] for _ in range(3)]
    with pytest.raises(CxrError, match="reading 3 has hung"):
        next(results)
    release.set()
    assert taken == [0, 1, 2]


def test_the_time_of_a_read_counts_from_when_a_thread_begins_it() -> None:
    """Ten reads of 0.1 s by one thread: the last waits 0.9 s before it begins."""
    items = list(read_ahead(range(10), lambda item: time.sleep(0.1), workers=1, ahead=10, timeout=0.5))
    assert [result for _, result in items] == [None] * 10


def test_threads_end_with_the_reading_and_none_keeps_a_process_from_ending() -> None:
    before = set(threading.enumerate())
    results = read_ahead(range(100), lambda item: item, workers=3)
    next(results)
    mine = set(threading.enumerate()) - before
    assert len(mine) == 3
    assert all(thread.daemon for thread in mine)
    results.close()
    assert not any(thread.is_alive() for thread in mine)
