"""Bags of ids: composed first, pooled after, in every form that the runtime has."""

import numpy as np
import pytest
from runtime import compiled, gradients, ids_of, randomize, to_numpy

from tf_compemb import QREmbedding
from tf_compemb._keras import BACKEND, keras, ops

BAGS = [[3, 3, 10], [], [7]]
WEIGHTS = [[1.0, 0.5, 2.0], [], [4.0]]
only_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="ragged and sparse tensors are TensorFlow's"
)


def layer_and_table(**kwargs):
    layer = QREmbedding(12, 4, collisions=4, name="field", **kwargs)
    layer.build(None)
    randomize(layer)
    single = QREmbedding(12, 4, collisions=4)
    single.build(None)
    single.set_weights(layer.get_weights())
    return layer, to_numpy(single(np.arange(12)))


def pooled(table, combiner, weights):
    rows = []
    for bag, share in zip(BAGS, weights, strict=True):
        share = np.asarray(share)
        total = (table[np.asarray(bag, int)] * share[:, None]).sum(axis=0)
        norm = {"sum": 1, "mean": share.sum(), "sqrtn": np.sqrt((share**2).sum())}[combiner]
        rows.append(total / norm if bag else np.zeros(4))
    return np.array(rows)


ones = [[1.0] * len(bag) for bag in BAGS]
combiners = pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])


@only_tensorflow
@combiners
@pytest.mark.parametrize("weighted", [False, True])
def test_ragged_and_sparse_bags(combiner, weighted):
    import tensorflow as tf

    layer, table = layer_and_table(combiner=combiner)
    ids = tf.ragged.constant(BAGS, dtype="int64")
    weights = tf.ragged.constant(WEIGHTS, dtype="float32") if weighted else None
    expected = pooled(table, combiner, WEIGHTS if weighted else ones)
    np.testing.assert_allclose(to_numpy(layer(ids, weights=weights)), expected, rtol=1e-5)
    sparse = None if weights is None else weights.to_sparse()
    np.testing.assert_allclose(
        to_numpy(layer(ids.to_sparse(), weights=sparse)), expected, rtol=1e-5
    )
    in_graph = tf.function(lambda i: layer(i, weights=weights))(ids)
    np.testing.assert_allclose(to_numpy(in_graph), expected, rtol=1e-5)


@combiners
@pytest.mark.parametrize("weighted", [False, True])
def test_padded_bags(combiner, weighted):
    layer, table = layer_and_table(combiner=combiner, mask_zero=True)
    ids = np.array([[3, 3, 10], [0, 0, 0], [7, 0, 0]])
    weights = np.array([[1, 0.5, 2], [9, 9, 9], [4, 9, 9]], "float32") if weighted else None
    expected = pooled(table, combiner, WEIGHTS if weighted else ones)
    np.testing.assert_allclose(to_numpy(layer(ids, weights=weights)), expected, rtol=1e-5)
    if not weighted:
        np.testing.assert_allclose(to_numpy(compiled(layer)(ids_of(ids))), expected, rtol=1e-5)


def test_without_mask_zero_an_id_zero_counts():
    layer, table = layer_and_table(combiner="mean")
    np.testing.assert_allclose(to_numpy(layer([[0, 5]])), [(table[0] + table[5]) / 2], rtol=1e-5)


def test_padding_receives_no_gradient():
    layer, _ = layer_and_table(combiner="sum", mask_zero=True)
    # Id 0 shares the remainder row of 4 and 8, and the quotient row of 3.
    found = gradients(layer, [[7, 0, 0]], np.ones((1, 4), "float32"))
    assert (found["remainder"][0] == 0).all()
    assert (found["quotient"][0] == 0).all()
    assert (found["remainder"][3] != 0).all()


def test_pooling_comes_after_composing():
    """Pooling the factors first would give another vector for a product."""
    layer, table = layer_and_table(combiner="sum")
    remainder, quotient = (to_numpy(w) for w in (layer.remainder, layer.quotient))
    found = to_numpy(layer(np.array([[1, 6]])))[0]
    np.testing.assert_allclose(found, table[1] + table[6], rtol=1e-5)
    factors_first = (remainder[1] + remainder[2]) * (quotient[0] + quotient[1])
    assert np.abs(found - factors_first).max() > 0.01


def test_bags_of_feature_vectors_keep_the_partitions_apart():
    layer = QREmbedding(12, 4, 4, "feature", combiner="sum")
    out = to_numpy(layer(np.array([[1, 6], [2, 2]])))
    assert out.shape == (2, 2, 4)
    np.testing.assert_allclose(out[1, 0], 2 * to_numpy(layer.remainder)[2], rtol=1e-6)


@only_tensorflow
def test_ragged_ids_without_combiner_stay_ragged():
    import tensorflow as tf

    layer, table = layer_and_table()
    out = layer(tf.ragged.constant(BAGS, dtype="int64"))
    assert isinstance(out, tf.RaggedTensor)
    np.testing.assert_allclose(to_numpy(out.flat_values), table[[3, 3, 10, 7]], rtol=1e-6)
    assert out.row_lengths().numpy().tolist() == [3, 0, 1]


@only_tensorflow
def test_bags_inside_ragged_rows():
    import tensorflow as tf

    layer, table = layer_and_table(combiner="sum")
    out = layer(tf.ragged.constant([[[1, 2], [3]], [[4]]], dtype="int64"))
    np.testing.assert_allclose(
        to_numpy(out.flat_values), [table[1] + table[2], table[3], table[4]], rtol=1e-5
    )


@only_tensorflow
def test_a_wrong_id_in_a_bag_raises():
    import tensorflow as tf

    layer, _ = layer_and_table(combiner="sum")
    with pytest.raises(ValueError, match=r"ids must be in \[0, 12\). Received: 12"):
        layer(tf.ragged.constant([[1], [12]], dtype="int64"))


def test_forms_that_do_not_go_together():
    layer, _ = layer_and_table()
    with pytest.raises(ValueError, match="`weights` need a combiner"):
        layer(np.array([[1, 2]]), weights=np.ones((1, 2), "float32"))
    pooling, _ = layer_and_table(combiner="sum")
    with pytest.raises(ValueError, match="a scalar has none"):
        pooling(np.array(3))
    with pytest.raises(ValueError, match="Received: combiner='max'"):
        QREmbedding(12, 4, combiner="max")


def test_masks_reach_the_next_layer():
    layer, _ = layer_and_table(mask_zero=True)
    mask = layer.compute_mask(ops.convert_to_tensor([[1, 0], [0, 3]]))
    assert to_numpy(mask).tolist() == [[True, False], [False, True]]
    pooling, _ = layer_and_table(combiner="sum", mask_zero=True)
    assert pooling.compute_mask(ops.convert_to_tensor([[1, 0]])) is None


def test_padded_bags_in_a_model():
    inputs = keras.Input((3,), dtype="int32")
    outputs = keras.layers.Dense(1)(QREmbedding(12, 4, combiner="mean", mask_zero=True)(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "mse")
    ids = np.array([[3, 3, 10], [7, 0, 0]])
    history = model.fit(ids, np.array([[1.0], [0.0]]), epochs=30, verbose=0).history["loss"]
    assert history[-1] < history[0]
