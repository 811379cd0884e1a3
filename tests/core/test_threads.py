"""Batches in threads: in order, sharing the cores, never far ahead of who takes the results."""

import threading

import pytest
import torch

from patchcore_helpers import InputError
from patchcore_helpers.core.threads import MAX_THREADS, map_in_threads


@pytest.fixture
def set_cores():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_threads_keep_the_order_and_share_the_cores(cores, set_cores):
    set_cores(cores)
    threads = min(cores, MAX_THREADS)
    all_busy = threading.Barrier(threads)
    seen = []

    def work(number):
        all_busy.wait(timeout=60)
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return number * number

    assert list(map_in_threads(work, range(12))) == [number * number for number in range(12)]
    assert {cores_each for _, cores_each in seen} == {cores // threads}
    assert len({name for name, _ in seen}) == threads
    assert torch.get_num_threads() == cores


def test_a_single_item_gets_all_cores(set_cores):
    set_cores(5)
    assert list(map_in_threads(lambda item: torch.get_num_threads(), ["only"])) == [5]
    assert list(map_in_threads(len, [])) == []


def test_errors_arrive_and_little_is_taken_ahead(set_cores):
    set_cores(2)
    taken = []

    def numbers():
        for number in range(100):
            taken.append(number)
            yield number

    def work(number):
        if number == 5:
            raise InputError("five")
        return number

    results = map_in_threads(work, numbers())
    assert [next(results) for _ in range(5)] == list(range(5))
    assert len(taken) <= 5 + 2 + 1
    with pytest.raises(InputError, match="five"):
        next(results)
