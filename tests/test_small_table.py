"""Small tables: rows and dense gradients against sums by hand, in each form that is computed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime import ids_of, to_numpy

from tf_compemb._keras import BACKEND, add_slices, all_below, ops, training_phase
from tf_compemb.storage.small_table import gather_with_dense_gradient

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(6, 4)).astype("float32")
# The second column reads none of the table's rows but the one after the last.
FEW = np.stack([RNG.integers(0, 3, 50), np.full(50, 6), 3 + RNG.integers(0, 3, 50)], axis=1)
MANY = np.tile(FEW, (60, 1))  # More than one thread is worth waking for.

of_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")


@of_tensorflow
@pytest.mark.parametrize("ids", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("batch", ["known", "unknown", "compiled by XLA"])
@pytest.mark.parametrize("training", [True, False])
def test_rows_and_gradient_in_every_form(ids, batch, training):
    import tensorflow as tf

    upstream = RNG.normal(size=(*ids.shape, 4)).astype("float32")
    shape = tf.TensorSpec([None if batch == "unknown" else len(ids), 3], tf.int64)

    @tf.function(
        input_signature=[tf.TensorSpec([6, 4]), shape, tf.TensorSpec([*shape.shape, 4])],
        jit_compile=batch == "compiled by XLA",
    )
    def rows_and_gradient(rows, ids, upstream):
        with tf.GradientTape() as tape, training_phase(training):
            tape.watch(rows)
            found = gather_with_dense_gradient(rows, ids, neutral=1.0)
        return found, tape.gradient(found, rows, upstream)

    found, gradient = rows_and_gradient(ROWS, ids, upstream)
    np.testing.assert_array_equal(found, np.vstack([ROWS, np.ones((1, 4))])[ids])
    expected = np.zeros((7, 4))
    np.add.at(expected, ids, upstream)
    np.testing.assert_allclose(gradient, expected[:6], rtol=1e-4, atol=1e-4)


def test_rows_are_those_of_the_ids():
    found = gather_with_dense_gradient(ops.convert_to_tensor(ROWS), ids_of(FEW), 2.5)
    np.testing.assert_array_equal(to_numpy(found), np.vstack([ROWS, np.full((1, 4), 2.5)])[FEW])
    own = FEW[:, ::2]
    np.testing.assert_array_equal(
        to_numpy(gather_with_dense_gradient(ops.convert_to_tensor(ROWS), ids_of(own))), ROWS[own]
    )


@of_tensorflow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("numbers", ["int32", "int64"])
def test_slices_are_added_up_by_row(compiled, dtype, numbers):
    import tensorflow as tf

    rows = RNG.integers(0, 5, 40).astype(numbers)  # Row 5 and the last have no slice.
    slices = RNG.integers(-8, 9, (40, 3)).astype(dtype)  # Exact in every type.
    added = tf.function(add_slices, jit_compile=compiled)(slices, tf.constant(rows), 7)
    expected = np.zeros((7, 3), dtype)
    np.add.at(expected, rows, slices)
    assert added.dtype == dtype
    np.testing.assert_array_equal(added, expected)


_LIMITS = [-(2**63), -1, 0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1]
_SIZES = [1, 8, 2**31, 2**32 - 1]


@of_tensorflow
@given(
    st.lists(st.tuples(*[st.sampled_from(_LIMITS) | st.integers(-3, 9)] * 2), max_size=4),
    # Sizes of 32 bits, which are compared by halves, and larger ones.
    st.lists(st.sampled_from(_SIZES), min_size=2, max_size=2)
    | st.lists(st.sampled_from([*_SIZES, 2**32, 2**63 - 1]), min_size=2, max_size=2),
)
def test_all_below_is_the_comparison_of_each_id(ids, sizes):
    import tensorflow as tf

    ids = np.array(ids, "int64").reshape(-1, 2)
    for limit in (np.array(sizes), np.array(sizes[0])):
        assert bool(all_below(tf.constant(ids), limit)) == bool(((ids >= 0) & (ids < limit)).all())
