"""Memory that threads share: never more than there is, and nobody waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_compemb.data.shared_memory_bound import SharedMemoryBound


@settings(max_examples=50, deadline=None)
@given(
    total=st.integers(1, 50),
    wanted=st.lists(st.integers(0, 80), min_size=1, max_size=30),
    threads=st.integers(1, 6),
)
def test_no_more_is_out_than_there_is(total, wanted, threads):
    bound, lock = SharedMemoryBound(total), threading.Lock()
    out, most, granted = [0], [0], []

    def work(number):
        with bound.share(number) as got:
            with lock:
                out[0] += got
                most[0] = max(most[0], out[0])
                granted.append((number, got))
            with lock:
                out[0] -= got

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work, number) for number in wanted]:
            future.result(timeout=60)
    assert most[0] <= total
    assert sorted(granted) == sorted((n, max(1, min(n, total))) for n in wanted)


def test_those_that_fit_together_run_together():
    bound = SharedMemoryBound(10)
    met = threading.Barrier(2, timeout=60)

    def work():
        with bound.share(5):
            met.wait()

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(work) for _ in range(2)]:
            future.result()


def test_an_error_gives_the_bytes_back():
    bound = SharedMemoryBound(10)
    with pytest.raises(KeyError), bound.share(10):
        raise KeyError
    with bound.share(10) as granted:
        assert granted == 10
