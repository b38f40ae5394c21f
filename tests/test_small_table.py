"""Small tables: rows and dense gradients against sums by hand."""

import numpy as np
import pytest
from runtime import ids_of, to_numpy

from tf_compemb._keras import BACKEND, ops
from tf_compemb.storage.small_table import Blocks, gather_with_dense_gradient

RNG = np.random.default_rng(0)
# Three columns; the second reads none of the table's rows but the one after the last.
IDS = np.stack([RNG.integers(0, 3, 50), np.full(50, 6), 3 + RNG.integers(0, 3, 50)], axis=1)
BLOCKS = Blocks(starts=np.array([0, 3, 3]), size=3, members=np.array([0, 2]))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the gradient is TensorFlow's")
@pytest.mark.parametrize("blocks", [None, BLOCKS])
def test_gradient_is_the_sum_of_the_slices_of_a_row(blocks):
    import tensorflow as tf

    rows = tf.constant(RNG.normal(size=(6, 4)).astype("float32"))
    upstream = RNG.normal(size=(50, 3, 4)).astype("float32")
    with tf.GradientTape() as tape:
        tape.watch(rows)
        found = gather_with_dense_gradient(rows, tf.constant(IDS), blocks, neutral=1.0)
    expected = np.zeros((7, 4))
    np.add.at(expected, IDS, upstream)
    gradient = tape.gradient(found, rows, tf.constant(upstream))
    np.testing.assert_allclose(gradient, expected[:6], rtol=1e-5, atol=1e-5)


def test_rows_are_those_of_the_ids():
    rows = RNG.normal(size=(6, 4)).astype("float32")
    found = gather_with_dense_gradient(ops.convert_to_tensor(rows), ids_of(IDS), BLOCKS, 2.5)
    np.testing.assert_array_equal(to_numpy(found), np.vstack([rows, np.full((1, 4), 2.5)])[IDS])
    own = IDS[:, ::2]
    np.testing.assert_array_equal(
        to_numpy(gather_with_dense_gradient(ops.convert_to_tensor(rows), ids_of(own))), rows[own]
    )
