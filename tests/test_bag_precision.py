"""Bags under half precision are pooled in float32, and the gradients of bags of any weights."""

import numpy as np
import pytest
from runtime import ids_of, to_numpy, traced_gradients

from tf_compemb import EmbeddingCollection, FullEmbedding
from tf_compemb._keras import BACKEND, keras, ops
from tf_compemb.layers import get_method, method_names

POLICIES = ["mixed_bfloat16", "mixed_float16", "float16", "bfloat16"]
COMBINERS = ["sum", "mean", "sqrtn"]
policies = pytest.mark.parametrize("policy", POLICIES)
combiners = pytest.mark.parametrize("combiner", COMBINERS)


def forms(rows, weights=None):
    """The same bags (all of one length) in every form of the runtime, with their weights."""
    yield ids_of(rows), None if weights is None else ops.convert_to_tensor(weights)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        ragged = tf.RaggedTensor.from_tensor(tf.constant(rows, "int64"))
        for ids in (ragged, ragged.to_sparse()):
            flat = None if weights is None else tf.constant(weights.ravel())
            yield ids, None if flat is None else ids.with_values(flat)


def layer_with(table, **kwargs):
    layer = FullEmbedding(*table.shape, **kwargs)
    layer.build(None)
    layer.embeddings.assign(table.astype("float32"))
    return layer


def in_float32(x):
    return to_numpy(ops.cast(x, "float32"))


@policies
def test_a_sum_of_ones_is_their_number(policy):
    layer = layer_with(np.ones((3, 2)), combiner="sum", dtype=policy)
    for ids, _ in forms(np.ones((2, 1000), int)):
        out = layer(ids)
        # 1000 is exact in float16 and in bfloat16.
        assert in_float32(out).tolist() == [[1000.0, 1000.0]] * 2


@policies
@combiners
@pytest.mark.parametrize("weighted", [False, True])
def test_bags_of_random_rows_are_off_by_roundings_only(policy, combiner, weighted):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 4))
    rows = rng.integers(1, 50, size=(3, 400))
    weights = rng.uniform(0.5, 1.5, size=rows.shape).astype("float32") if weighted else None
    share = np.ones(rows.shape) if weights is None else weights.astype("float64")
    total = (table[rows] * share[..., None]).sum(axis=1)
    norm = {
        "sum": np.ones(3),
        "mean": share.sum(axis=1),
        "sqrtn": np.sqrt((share**2).sum(axis=1)),
    }[combiner]
    expected = total / norm[:, None]
    # Each of the 400 rows is rounded once, and the result once.
    step = 2.0**-8 if "bfloat16" in policy else 2.0**-11
    error = step * (np.sqrt((table[rows] ** 2).sum(axis=1)) * 4 / norm[:, None] + np.abs(expected))
    layer = layer_with(table, combiner=combiner, dtype=policy)
    for ids, given in forms(rows, weights):
        assert (np.abs(in_float32(layer(ids, weights=given)) - expected) <= error).all()


@policies
def test_the_mean_of_a_sum_beyond_float16_is_right(policy):
    layer = layer_with(np.full((2, 1), 1024.0), combiner="mean", dtype=policy)
    for ids, _ in forms(np.ones((1, 1000), int)):
        assert in_float32(layer(ids)).tolist() == [[1024.0]]


@policies
def test_weights_are_not_rounded(policy):
    """0.1 has no exact half; ten thousand of 1e-4 are below float16's smallest square."""
    layer = layer_with(np.ones((2, 1)), combiner="sqrtn", dtype=policy)
    for ids, weights in forms(np.ones((1, 10_000), int), np.full((1, 10_000), 1e-4, "float32")):
        assert in_float32(layer(ids, weights=weights)).tolist() == [[100.0]]


@policies
def test_padding_is_counted_exactly(policy):
    layer = layer_with(np.ones((2, 1)), combiner="mean", mask_zero=True, dtype=policy)
    ids = np.zeros((1, 1200), int)
    ids[0, :1001] = 1
    assert in_float32(layer(ids_of(ids))).tolist() == [[1.0]]
    layer = layer_with(np.ones((2, 1)), combiner="sum", mask_zero=True, dtype=policy)
    assert in_float32(layer(ids_of(ids[:, :1000]))).tolist() == [[1000.0]]


QUICK = ["full", "hash", "qr", "memcom", "unified", "robe"]


@pytest.mark.parametrize(
    "method", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in method_names()]
)
def test_every_method_pools_in_float32(method):
    """The mean of 600 equal vectors is that vector, up to its own rounding."""
    cls = get_method(method)
    layer = cls(60, 8, combiner="mean", dtype="mixed_bfloat16")
    one = cls.from_config({**layer.get_config(), "combiner": None})
    for built in (layer, one):
        built.build(None)
    one.set_weights(layer.get_weights())
    expected = in_float32(one(ids_of([7])))
    assert np.abs(expected).max() > 0
    for ids, _ in forms(np.full((1, 600), 7)):
        np.testing.assert_allclose(in_float32(layer(ids)), expected, rtol=2.0**-8)


@pytest.mark.parametrize("method", ["full", "qr", "unified", "robe", "lma"])
def test_bags_of_a_collection(method):
    collection = EmbeddingCollection(
        {"a": 60, "b": 60}, 8, method, threshold=0, combiner="mean", dtype="mixed_bfloat16"
    )
    collection.build(None)
    one = ids_of([7])
    expected = in_float32(collection({"a": one, "b": one}))
    assert np.abs(expected).max() > 0
    for ids, _ in forms(np.full((1, 600), 7)):
        found = in_float32(collection({"a": ids, "b": one}))
        np.testing.assert_allclose(found, expected, rtol=2.0**-8)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
@combiners
def test_gradients_of_bags_under_half_precision(policy, combiner):
    table = np.random.default_rng(1).normal(size=(6, 3))
    rows = np.full((2, 900), 4)
    norm = {"sum": 1, "mean": 900, "sqrtn": 30}[combiner]
    for weights in (None, np.full((2, 900), 0.5, "float32")):
        scale = 0.5 if combiner == "sum" and weights is not None else 1
        for ids, given in forms(rows, weights):
            layer = layer_with(table, combiner=combiner, dtype=policy)
            of_table, of_weights = traced_gradients(layer, ids, given)
            # Two bags of 900 times row 4; each share is rounded once.
            np.testing.assert_allclose(of_table[4], 1800 * scale / norm, rtol=2.0**-8)
            assert (np.delete(of_table, 4, axis=0) == 0).all()
            if given is not None:
                assert np.isfinite(of_weights).all()
                total = table[4].sum() / {"sum": 1, "mean": np.inf, "sqrtn": np.inf}[combiner]
                np.testing.assert_allclose(of_weights, total, rtol=2.0**-6, atol=1e-5)


@combiners
@pytest.mark.parametrize("shares", [[0.0, 0.0], [1.0, -1.0], [0.0, 2.0]], ids=str)
def test_gradients_where_weights_are_or_sum_to_zero(combiner, shares):
    table = np.random.default_rng(2).normal(size=(6, 3))
    weights = np.array([shares, [1.0, 3.0]], "float32")
    divisor = {"sum": 1, "mean": sum(shares), "sqrtn": np.sqrt(np.square(shares).sum())}[combiner]
    layer = layer_with(table, combiner=combiner)
    for ids, given in forms(np.array([[1, 2], [3, 4]]), weights):
        out = to_numpy(layer(ids, weights=given))
        of_table, of_weights = traced_gradients(layer, ids, given)
        assert np.isfinite(out).all()
        assert np.isfinite(of_table).all()
        assert np.isfinite(of_weights).all()
        if divisor == 0:
            assert (out[0] == 0).all()
            assert (of_table[[1, 2]] == 0).all()
            assert (of_weights[:2] == 0).all()
        else:
            expected = np.array(shares) / divisor
            np.testing.assert_allclose(of_table[[1, 2], 0], expected, rtol=1e-6)
        assert (of_table[[3, 4]] != 0).all()


@combiners
def test_an_empty_bag_has_no_gradient_and_spoils_no_other(combiner):
    table = np.random.default_rng(3).normal(size=(6, 3))
    layer = layer_with(table, combiner=combiner, mask_zero=True)
    ids, weights = np.array([[0, 0], [3, 4]]), np.ones((2, 2), "float32")
    cases = [(ids_of(ids), ops.convert_to_tensor(weights))]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        ragged = tf.ragged.constant([[], [3, 4]], dtype="int64")
        shares = ragged.with_values(tf.ones(2))
        cases += [(ragged, shares), (ragged.to_sparse(), shares.to_sparse())]
    for given, shares in cases:
        out = to_numpy(layer(given, weights=shares))
        of_table, of_weights = traced_gradients(layer, given, shares)
        assert (out[0] == 0).all()
        assert np.isfinite(of_weights).all()
        assert (of_table[[0, 1, 2, 5]] == 0).all()
        assert (of_table[[3, 4]] > 0).all()


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 unless it is enabled")
def test_float64_bags_stay_float64():
    table = np.array([[1.0], [2.0**-30]])
    layer = layer_with(table, combiner="sum", dtype="float64")
    assert to_numpy(layer(ids_of([[0, 1]]))).tolist() == [[1.0 + 2.0**-30]]


def test_a_model_of_padded_bags_learns_under_mixed_precision():
    inputs = keras.Input((300,), dtype="int32")
    layer = FullEmbedding(12, 4, combiner="mean", mask_zero=True, dtype="mixed_bfloat16")
    model = keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    ids = np.array([[3] * 300, [7] * 290 + [0] * 10])
    history = model.fit(ids, np.array([[1.0], [0.0]]), epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
