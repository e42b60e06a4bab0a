import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

import balancedfact as bf
from balancedfact._threads import threads_for


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_small_problems_have_one_thread_and_the_setting_comes_back():
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with threads_for(500, 100):
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        with threads_for(10**6, 100):
            assert blas_threads() == before
        with threads_for(500, 10**4):
            assert blas_threads() == before


def test_a_small_solve_runs_on_one_thread_also_where_it_is_stopped(rng):
    A = bf.measurements.gaussian(40, (8, 7), rng)
    seen = []

    def watch(_):
        seen.extend(blas_threads())
        return True

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        bf.flat_minimum(A, rng.standard_normal(40), callback=watch)
        assert blas_threads() == before
    assert set(seen) == {1}
    assert np.all(np.array(before) >= 1)


def test_solves_that_overlap_keep_one_thread_until_the_last_ends():
    """In the order in which threads may come and go: first in, first out."""
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        one, two = threads_for(500, 100), threads_for(500, 100)
        one.__enter__()
        two.__enter__()
        one.__exit__(None, None, None)
        assert set(blas_threads()) == {1}
        two.__exit__(None, None, None)
        assert blas_threads() == before
        assert before != [1] * len(before)
