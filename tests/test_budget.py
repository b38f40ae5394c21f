"""`for_budget`: within the budget, nothing larger fits, and out of reach means out of reach."""

import itertools
import json

import pytest
from cases import CASES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_compemb import (
    CompositionalEmbedding,
    FrequencyThresholdEmbedding,
    FullEmbedding,
    HashEmbedding,
    QREmbedding,
)
from tf_compemb.layers import get_method, method_names
from tf_compemb.layers.budget import largest_fitting

methods = pytest.mark.parametrize("name", method_names())
quickly = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def served_bytes(cls, n, d, arguments):
    return cls(n, d, **arguments).footprint().inference_bytes


@methods
@quickly
@given(
    n=st.integers(2, 3000),
    d=st.sampled_from([4, 16, 32]),
    share=st.floats(0.001, 1.3),
)
def test_the_largest_setting_within_the_budget(name, n, d, share):
    cls = get_method(name)
    budget = int(share * 4 * n * d)
    grids = list(cls.budget_grid(n, d, {}))
    least = [served_bytes(cls, n, d, grid.arguments(0)) for grid in grids]
    if min(least) > budget:
        with pytest.raises(ValueError, match=f"needs {min(least)} bytes at least.* is {budget}"):
            cls.for_budget(n, d, budget)
        return
    chosen = cls.for_budget(n, d, budget)
    assert served_bytes(cls, n, d, json.loads(json.dumps(chosen))) <= budget
    # The first grid of which anything fits; its next larger setting does not.
    grid = grids[next(i for i, size in enumerate(least) if size <= budget)]
    number = next(i for i in range(grid.count) if grid.arguments(i) == chosen)
    if number + 1 < grid.count:
        assert served_bytes(cls, n, d, grid.arguments(number + 1)) > budget


@methods
@pytest.mark.parametrize(("n", "d"), [(7, 4), (300, 16), (2048, 8)])
def test_no_setting_is_smaller_than_the_first(name, n, d):
    cls = get_method(name)
    for grid in cls.budget_grid(n, d, {}):
        numbers = range(0, grid.count, max(1, grid.count // 40))
        sizes = [served_bytes(cls, n, d, grid.arguments(i)) for i in numbers]
        # Whole functions and digits: a path's rows come in steps that its functions do not match.
        slack = 0 if name not in ("path", "compositional") else 0.1
        for size, larger in itertools.pairwise(sizes):
            assert size <= larger * (1 + slack)
        assert min(sizes) >= sizes[0] * (1 - slack)


@methods
def test_a_budget_of_the_full_table_is_nearly_used(name):
    """The grids are fine: at least half of a budget is used."""
    cls = get_method(name)
    for share in (1.0, 0.5, 0.26):
        budget = int(share * 4 * 5000 * 16)
        try:
            chosen = cls.for_budget(5000, 16, budget)
        except ValueError:
            continue
        assert served_bytes(cls, 5000, 16, chosen) > budget / 2


def test_worked_by_hand():
    assert FullEmbedding.for_budget(100, 4, 1600) == {}
    with pytest.raises(ValueError, match="FullEmbedding with input_dim=100 and output_dim=4 needs"):
        FullEmbedding.for_budget(100, 4, 1599)
    assert HashEmbedding.for_budget(100, 4, 1600 // 4) == {"num_buckets": 25}
    assert HashEmbedding.for_budget(100, 4, 16 * 26 - 1) == {"num_buckets": 25}
    # 25 + 4 rows of 16 bytes; 26 + 4 would be 480.
    assert QREmbedding.for_budget(100, 4, 479) == {"modulus": 25}
    assert QREmbedding.for_budget(100, 4, 16 * 20) == {"modulus": 10}
    two = CompositionalEmbedding.for_budget(1000, 4, 16 * 100)
    assert [p["modulus"] for p in two["partitions"]] == [88, 12]  # 89 would need 12 too
    three = CompositionalEmbedding.for_budget(1000, 4, 16 * 40)
    assert len(three["partitions"]) == 3


def test_options_are_kept_and_may_decide_the_size():
    chosen = QREmbedding.for_budget(100, 4, 240, operation="concat", combiner="sum")
    assert chosen == {"modulus": 26, "operation": "concat", "combiner": "sum"}
    assert HashEmbedding.for_budget(100, 4, 400, collisions=4) == {"collisions": 4}
    with pytest.raises(ValueError, match="needs 400 bytes at least, and the budget is 399"):
        HashEmbedding.for_budget(100, 4, 399, collisions=4)
    with pytest.raises(ValueError, match="`operation` must be one of"):
        QREmbedding.for_budget(100, 4, 399, operation="max")
    with pytest.raises(ValueError, match="`input_dim` must be a positive integer"):
        HashEmbedding.for_budget(0, 4, 400)


def test_frequencies_change_no_size_and_are_handed_on():
    counts = list(range(100))
    plain = FrequencyThresholdEmbedding.for_budget(100, 4, 800)
    # 39 rows of 16 bytes and the common one, 39 ids of 4: 796; one more would be 816.
    assert plain == {"num_frequent": 39}
    chosen = FrequencyThresholdEmbedding.for_budget(100, 4, 800, frequencies=counts)
    assert chosen == {**plain, "frequencies": counts}
    assert FrequencyThresholdEmbedding.for_budget(100, 4, 1600) == {"num_frequent": 100}


def test_ten_million_ids_take_a_few_sizings():
    counted = []

    def fits(number):
        counted.append(number)
        return number <= 1234567

    assert largest_fitting(fits, 10_000_000) == 1234567
    assert len(counted) <= 24
    kaggle = 10_131_227
    chosen = QREmbedding.for_budget(kaggle, 16, 4 * 16 * kaggle // 60)
    assert served_bytes(QREmbedding, kaggle, 16, chosen) <= 4 * 16 * kaggle // 60


def test_every_case_fits_its_own_bytes():
    for case in CASES:
        size = case.make(name="sized").footprint().inference_bytes
        try:
            chosen = case.layer.for_budget(case.input_dims[0], 8, size)
        except ValueError:
            # The grid has no setting as small as this case's own.
            continue
        assert served_bytes(case.layer, case.input_dims[0], 8, chosen) <= size
