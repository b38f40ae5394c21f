"""Steps of tables whose rows' products are vectors, by the compiled kernels in one pass."""

import hashlib

import numpy as np
import product_entries as oracle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_compemb._keras import BACKEND

if BACKEND != "tensorflow":
    pytest.skip("the kernels are TensorFlow's", allow_module_level=True)

import tensorflow as tf
from runtime import printed_with_threads

compiled = pytest.mark.slow  # compiling takes a minute
FIXTURE = [HealthCheck.function_scoped_fixture]  # `kernels` is the same in every example
RULES = ["sgd", "adagrad", "rowwise_adagrad"]
EPSILON = 1e-7  # as in the oracle

# Sizes of fields, rows of tables, entries.
LAYOUTS = {
    "one table": ([40, 900], [940], [(0, 0, 1, 40, 0), (1, 0, 1, 900, 40)]),
    "quotients and remainders": (
        [40, 900],
        [235, 8],
        [(0, 0, 4, 10, 0), (0, 1, 1, 4, 0), (1, 0, 4, 225, 10), (1, 1, 1, 4, 4)],
    ),
    "a field of one row": ([40, 9], [19, 4], [(0, 0, 4, 10, 0), (0, 1, 1, 4, 0), (1, 0, 1, 9, 10)]),
    "both of many rows": ([4000], [64, 63], [(0, 0, 63, 64, 0), (0, 1, 1, 63, 0)]),
    "three digits": ([900], [10, 9, 10], [(0, 0, 90, 10, 0), (0, 1, 10, 9, 0), (0, 2, 1, 10, 0)]),
    "each table leads once": (
        [90, 90],
        [33, 33],
        [(0, 0, 3, 30, 0), (0, 1, 1, 3, 0), (1, 0, 1, 3, 30), (1, 1, 3, 30, 3)],
    ),
}


def accumulators(rule, tables):
    return [
        np.full((len(t), 1) if rule == "rowwise_adagrad" else t.shape, 0.1, "f4") for t in tables
    ]


def random_step(sizes, rows, batch, width, seed=0):
    """Tables, ids and the gradient of the vectors."""
    rng = np.random.default_rng(seed)
    tables = [rng.normal(size=(count, width)).astype("float32") for count in rows]
    ids = (np.asarray(sizes) * rng.random((batch, len(sizes))) ** 3).astype("int64")
    return tables, ids, rng.normal(size=(batch, len(sizes), width)).astype("float32")


def step(kernels, rule, tables, sizes, entries, numbers, upstream, rate=0.25, states=None):
    """Tables and accumulators after a step by the kernels."""
    weights = [tf.Variable(table) for table in tables]
    states = [tf.Variable(s) for s in states or accumulators(rule, tables)]
    said = oracle.attributes_of(tables, sizes, entries)
    handles = [v.handle for v in weights]
    if rule == "sgd":
        kernels.tf_compemb_sgd_row_products(handles, numbers, upstream, rate, **said)
    else:
        of_states = [v.handle for v in states]
        kernels.tf_compemb_adagrad_row_products(
            handles, of_states, numbers, upstream, rate, **said, epsilon=EPSILON
        )
    return [v.numpy() for v in weights], [v.numpy() for v in states]


def check_step(kernels, rule, sizes, entries, tables, ids, upstream):
    numbers = oracle.row_numbers(entries, ids)
    moved, states = step(kernels, rule, tables, sizes, entries, numbers, upstream)
    expected, expected_states = oracle.step(rule, tables, entries, ids, upstream, 0.25)
    for got, wanted in zip(moved, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5 * np.sqrt(1 + len(ids)))
    if rule != "sgd":
        for got, wanted in zip(states, expected_states, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4)


@compiled
def test_a_step_worked_by_hand(kernels):
    # Ids 5 and 4 have quotient 2 and remainders 1 and 0; the quotient's row is 3, those of the
    # remainders are 10 and 100. Gradients 1 and 2: of the quotient 1 * 100 + 2 * 10, of the
    # remainders 2 * 3 and 1 * 3.
    tables = [np.array([[1], [2], [3]], "f4"), np.array([[10], [100]], "f4")]
    entries = [(0, 0, 2, 3, 0), (0, 1, 1, 2, 0)]
    numbers = [np.array([[2], [2]], "i4"), np.array([[1], [0]], "i4")]
    upstream = np.array([[[1]], [[2]]], "f4")
    moved, _ = step(kernels, "sgd", tables, [6], entries, numbers, upstream, rate=0.5)
    assert moved[0].ravel().tolist() == [1, 2, 3 - 0.5 * 120]
    assert moved[1].ravel().tolist() == [10 - 0.5 * 6, 100 - 0.5 * 3]


@compiled
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch", [0, 1, 7, 700, 20_000])  # the last in several parts
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_is_the_oracles(kernels, rule, layout, batch):
    sizes, rows, entries = LAYOUTS[layout]
    check_step(kernels, rule, sizes, entries, *random_step(sizes, rows, batch, 8))


@compiled
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("width", [1, 3, 15, 16, 17, 32, 64, 65])
@pytest.mark.parametrize("layout", ["quotients and remainders", "three digits"])
def test_a_step_of_any_width_is_the_oracles(kernels, rule, layout, width):
    sizes, rows, entries = LAYOUTS[layout]
    check_step(kernels, rule, sizes, entries, *random_step(sizes, rows, 50, width, seed=width))


@compiled
@pytest.mark.parametrize("rule", RULES)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    divisor=st.integers(1, 9),
    batch=st.integers(0, 40),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60, suppress_health_check=FIXTURE)
def test_any_quotients_and_remainders(kernels, rule, sizes, divisor, batch, seed):
    entries, first = [], 0
    for f, size in enumerate(sizes):
        count = -(-size // divisor)
        entries += [(f, 0, divisor, count, first), (f, 1, 1, divisor, divisor * f)]
        first += count
    rows = [first, divisor * len(sizes)]
    check_step(kernels, rule, sizes, entries, *random_step(sizes, rows, batch, 5, seed))


def digest_of_large_steps(kernels):
    """A hash of all bits after steps in several parts."""
    digest = hashlib.sha256()
    for layout in ("quotients and remainders", "both of many rows"):
        sizes, rows, entries = LAYOUTS[layout]
        tables, ids, upstream = random_step(sizes, rows, 40_000, 9)
        numbers = oracle.row_numbers(entries, ids)
        for rule in RULES:
            for part in step(kernels, rule, tables, sizes, entries, numbers, upstream):
                digest.update(b"".join(array.tobytes() for array in part))
    return digest.hexdigest()


@compiled
def test_every_bit_is_the_same_whatever_the_number_of_threads(kernels):
    expected = digest_of_large_steps(kernels)
    assert digest_of_large_steps(kernels) == expected
    script = (
        "import test_native_product_updates as t; "
        "from tf_compemb.native_kernels import library; "
        "print(t.digest_of_large_steps(library.loaded()))"
    )
    assert printed_with_threads(7, script) == expected


@compiled
@pytest.mark.parametrize("table", [0, 1])
@pytest.mark.parametrize("number", [-1, 10, 2**31 - 1, -(2**31)])
def test_a_row_of_another_field_is_refused_and_nothing_is_written(kernels, table, number):
    sizes, rows, entries = LAYOUTS["quotients and remainders"]
    tables, ids, upstream = random_step(sizes, rows, 30, 2)
    numbers = oracle.row_numbers(entries, ids)
    numbers[table][17, 0] = number
    weights = [tf.Variable(t) for t in tables]
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be those of the entries' digi"):
        kernels.tf_compemb_sgd_row_products(
            [v.handle for v in weights],
            numbers,
            upstream,
            0.1,
            **oracle.attributes_of(tables, sizes, entries),
        )
    for variable, before in zip(weights, tables, strict=True):
        np.testing.assert_array_equal(variable, before)


@compiled
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": [0.1]}, r"learning rate must be a scalar, not of shape \[1\]"),
        (
            {"upstream": np.zeros((3, 2, 3), "f4")},
            r"must be of shape \(batch, 2, 2\), not \[3,2,3\]",
        ),
        (
            {"numbers": [np.zeros((2, 2), "i4")]},
            r"of table 0 must be of shape \(3, 2\), not \[2,2\]",
        ),
        (
            {"states": [np.zeros((6, 3), "f4")]},
            r"accumulator must have the shape \[6,2\] or \[6,1\], not",
        ),
        ({"tables": [np.zeros((6,), "f4")]}, "must be float32 matrices"),
        (
            {"tables": [np.zeros((7, 2), "f4")], "states": [np.zeros((7, 1), "f4")]},
            r"Table 0 must be of shape \(6, 2\), not \(7, 2\)",
        ),
        ({"entries": [(0, 0, 1, 3, 0), (1, 0, 1, 3, 2)]}, "Entries 0 and 1 have rows in common"),
        ({"entries": [(0, 0, 1, 3, 0), (1, 0, 1, 9, 3)]}, "Entry 1 reaches beyond its table"),
    ],
)
def test_what_does_not_fit_is_refused(kernels, changed, message):
    given_ = {
        "rate": 0.1,
        "upstream": np.zeros((3, 2, 2), "f4"),
        "numbers": [np.array([[0, 3]] * 3, "i4")],
        "states": [np.zeros((6, 2), "f4")],
        "tables": [np.zeros((6, 2), "f4")],
        "entries": [(0, 0, 1, 3, 0), (1, 0, 1, 3, 3)],
        **changed,
    }
    weights = [tf.Variable(t) for t in given_["tables"]]
    states = [tf.Variable(s) for s in given_["states"]]
    said = oracle.attributes_of([np.zeros((6, 2))], [4, 4], given_["entries"])
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        kernels.tf_compemb_adagrad_row_products(
            [v.handle for v in weights],
            [v.handle for v in states],
            given_["numbers"],
            given_["upstream"],
            given_["rate"],
            **said,
            epsilon=0.0,
        )
