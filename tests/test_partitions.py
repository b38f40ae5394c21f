"""Partitions: hand-worked codes, completeness by property, collisions named, sizes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime import ids_of, to_numpy

from tf_compemb import partitions
from tf_compemb.partitions import (
    Codes,
    Digit,
    Function,
    Naive,
    Quotient,
    Remainder,
    UniversalHash,
    balanced,
    check_complementary,
    chinese_remainder,
    deserialize,
    find_collision,
    for_parameters,
    mixed_radix,
)
from tf_compemb.partitions.universal_hash import PRIME, draw_coefficients, universal_hash

quick = settings(max_examples=60, deadline=None)


def codes_of(family, ids, n):
    return [tuple(int(p.classes(np.array(i), n)) for p in family) for i in ids]


def all_distinct(family, n):
    classes = np.stack([p.classes(np.arange(n), n) for p in family])
    for row, p in zip(classes, family, strict=True):
        assert 0 <= row.min() <= row.max() < p.num_classes(n)
    return len(np.unique(classes, axis=1).T) == n


def test_hand_worked_codes():
    assert codes_of(mixed_radix(100, [5, 5, 4]), [73], 100) == [(3, 4, 2)]
    assert 3 + 5 * 4 + 25 * 2 == 73
    assert codes_of(chinese_remainder(35, [5, 7]), [23], 35) == [(3, 2)]
    assert codes_of([Remainder(4), Quotient(4)], [7], 10) == [(3, 1)]


def test_the_paper_s_three_partitions_of_five_ids():
    family = [Codes([0, 1, 2, 1, 1]), Codes([0, 0, 1, 0, 1]), Codes([0, 1, 1, 0, 1])]
    check_complementary(family, 5)
    assert codes_of(family, range(5), 5) == [
        (0, 0, 0),
        (1, 0, 1),
        (2, 1, 1),
        (1, 0, 0),
        (1, 1, 1),
    ]


@quick
@given(n=st.integers(1, 3000), m=st.integers(1, 4000))
def test_quotient_and_remainder_are_complementary(n, m):
    family = [Quotient(m), Remainder(m)]
    assert find_collision(family, n) is None
    assert all_distinct(family, n)


@quick
@given(moduli=st.lists(st.integers(1, 12), min_size=1, max_size=5), data=st.data())
def test_mixed_radix_is_complementary(moduli, data):
    n = data.draw(st.integers(1, math.prod(moduli)))
    family = mixed_radix(n, moduli)
    assert find_collision(family, n) is None
    assert all_distinct(family, n)


@quick
@given(n=st.integers(1, 3000), k=st.integers(1, 5))
def test_balanced_families_are_complementary(n, k):
    for name in ("mixed_radix", "chinese_remainder"):
        family = balanced(n, k, family=name)
        assert len(family) == k
        assert find_collision(family, n) is None
        assert all_distinct(family, n)


@quick
@given(moduli=st.lists(st.integers(1, 40), min_size=1, max_size=3), n=st.integers(1, 3000))
def test_found_collisions_collide_and_none_means_none(moduli, n):
    family = [Remainder(m) for m in moduli]
    pair = find_collision(family, n)
    assert (pair is None) == all_distinct(family, n)
    if pair is not None:
        first, second = codes_of(family, pair, n)
        assert pair[0] != pair[1]
        assert max(pair) < n
        assert first == second


@quick
@given(data=st.data(), n=st.integers(2, 200))
def test_collisions_of_any_digits_and_codes_are_found(data, n):
    digits = st.builds(Digit, st.integers(1, 20), st.integers(1, 20))
    codes = st.lists(st.integers(0, 5), min_size=n, max_size=n).map(Codes)
    family = data.draw(st.lists(st.one_of(digits, codes, st.just(Naive())), min_size=1, max_size=3))
    pair = find_collision(family, n)
    assert (pair is None) == all_distinct(family, n)
    if pair is not None:
        first, second = codes_of(family, pair, n)
        assert pair[0] != pair[1]
        assert first == second


def test_a_set_that_is_not_complementary_is_refused_with_the_ids_that_collide():
    with pytest.raises(ValueError, match="ids 0 and 12 of 24 have the same class"):
        check_complementary([Remainder(4), Remainder(6)], 24)
    with pytest.raises(ValueError, match="ids 1 and 3 of 5 have the same class"):
        check_complementary([Codes([0, 1, 2, 1, 3])], 5)
    with pytest.raises(ValueError, match="4 and 6 share the factor 2"):
        chinese_remainder(24, [4, 6])
    with pytest.raises(ValueError, match="product 99"):
        mixed_radix(100, [9, 11])
    with pytest.raises(ValueError, match="at least one partition"):
        check_complementary([], 5)


def test_huge_families_are_proved_without_enumeration():
    n = 2**40
    assert find_collision([Quotient(1000), Remainder(1000)], n) is None
    assert find_collision(balanced(n, 4), n) is None
    assert find_collision([Remainder(2**20), Remainder(2**20 - 1)], n) == (0, 2**20 * (2**20 - 1))
    with pytest.raises(ValueError, match="only be found by enumeration"):
        find_collision([Quotient(1000), Remainder(999)], n)


def test_functions_are_checked():
    family = [Function(lambda ids: ids % 10, 10), Function(lambda ids: ids // 10, 10)]
    check_complementary(family, 100)
    with pytest.raises(ValueError, match=r"must map ids to integers in \[0, 9\)"):
        check_complementary([Function(lambda ids: ids % 10, 9)], 100)


def test_codes_are_checked():
    with pytest.raises(ValueError, match="one entry for each of the 4 ids"):
        Codes([0, 1]).num_classes(4)
    for wrong in ([0.5], [-1], [[1]], []):
        with pytest.raises(ValueError, match="vector of integers"):
            Codes(wrong)


@quick
@given(n=st.integers(2, 10**7), k=st.integers(1, 6))
def test_balanced_is_near_the_optimum(n, k):
    """k real moduli of product n add up to k n^(1/k) at least; whole ones to little more."""
    rows = sum(p.num_classes(n) for p in balanced(n, k))
    assert k * n ** (1 / k) - 1e-6 <= rows < k * n ** (1 / k) + k + 1


@quick
@given(n=st.integers(2, 10**6), share=st.floats(0.0, 1.2))
def test_for_parameters_fits_the_budget(n, share):
    budget = int(share * n) * 16
    smallest = min(
        sum(p.num_classes(n) for p in balanced(n, k)) * 16 for k in range(2, n.bit_length() + 1)
    )
    if budget < min(smallest, 16 * n):
        with pytest.raises(ValueError, match="the smallest need"):
            for_parameters(n, 16, budget)
        return
    family = for_parameters(n, 16, budget)
    assert sum(p.num_classes(n) for p in family) * 16 <= budget
    assert find_collision(family, n) is None


def test_for_parameters_takes_the_smallest_modulus_that_fits():
    def rows(budget):
        return [p.num_classes(1000) for p in for_parameters(1000, 1, budget)]

    assert rows(1000) == [1000]
    assert rows(502) == [2, 500]
    assert rows(501) == [3, 334]
    assert rows(64) == [28, 36]  # 27 + 38 = 65 rows are one too many
    assert rows(40) == [10, 10, 10]


@pytest.mark.parametrize(
    "partition",
    [
        Naive(),
        Quotient(3),
        Remainder(7),
        Digit(3, 5),
        Codes([3, 0, 2]),
        UniversalHash(11, seed=4),
    ],
    ids=repr,
)
def test_round_trip(partition):
    again = deserialize(partition.get_config())
    assert again == partition
    assert hash(again) == hash(partition)
    ids = np.arange(3)
    np.testing.assert_array_equal(again.classes(ids, 3), partition.classes(ids, 3))


def test_functions_are_saved_by_registered_name_only():
    from tf_compemb._keras import keras

    with pytest.raises(ValueError, match="not registered"):
        Function(lambda ids: ids, 3).get_config()

    @keras.saving.register_keras_serializable(package="tests")
    def last_digit(ids):
        return ids % 10

    again = deserialize(Function(last_digit, 10).get_config())
    assert again.function is last_digit
    with pytest.raises(ValueError, match="'tests>gone' is not registered"):
        deserialize({"kind": "Function", "function": "tests>gone", "num_classes": 3})
    with pytest.raises(ValueError, match="Not a partition"):
        deserialize({"kind": "Magic"})


@quick
@given(
    ids=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20),
    seed=st.integers(0, 2**63),
)
def test_universal_hash_in_32_bits_equals_python_s_integers(ids, seed):
    a_low, a_high, b = draw_coefficients(seed)
    expected = [((i % 2**30) * a_low + (i // 2**30) * a_high + b) % PRIME for i in ids]
    for dtype in ("int32", "int64"):
        found = universal_hash(np.array(ids, dtype), (a_low, a_high, b), 2**31)
        np.testing.assert_array_equal(found, expected)


def test_universal_hash_of_large_ids_is_exact_and_runs_on_the_runtime():
    a_low, a_high, b = draw_coefficients(3)
    i = 2**59 + 12345
    expected = ((i % 2**30) * a_low + (i // 2**30) * a_high + b) % PRIME
    assert universal_hash(np.array([i]), (a_low, a_high, b), 2**60)[0] == expected
    ids = np.array([0, 1, 2**30, 2**31 - 1])
    on_runtime = to_numpy(UniversalHash(1000, seed=3).classes(ids_of(ids), 2**31))
    np.testing.assert_array_equal(on_runtime, UniversalHash(1000, seed=3).classes(ids, 2**31))


def test_universal_hash_spreads_and_depends_on_the_seed():
    counts = np.bincount(UniversalHash(64, seed=1).classes(np.arange(64_000), 64_000), minlength=64)
    assert counts.min() > 800
    assert counts.max() < 1200
    first, second = (UniversalHash(64, seed=s).classes(np.arange(100), 100) for s in (1, 2))
    assert (first != second).mean() > 0.9


def test_the_package_exports_the_families():
    for name in ("Naive", "Quotient", "Remainder", "Codes", "mixed_radix", "chinese_remainder"):
        assert hasattr(partitions, name)
