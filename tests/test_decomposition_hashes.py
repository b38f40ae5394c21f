"""Deep hash embedding: exact hashes, laws of encodings, moving averages, the served network."""

import subprocess
import sys

import numpy as np
import pytest
from runtime import ids_of, randomize, to_numpy, weights_by_name

from tf_compemb import DeepHashEmbedding, EmbeddingCollection, FullEmbedding
from tf_compemb._keras import BACKEND, id_dtype, keras
from tf_compemb.layers.decomposition._hash_encoding import HashEncoding

SMALL = {"num_hashes": 12, "hidden_units": (6, 5)}


def encoded(ids, input_dim, **options):
    layer = DeepHashEmbedding(input_dim, 4, **{**SMALL, **options})
    layer.build(None)
    return layer, to_numpy(layer.encode(ids_of(ids)))


@pytest.mark.parametrize("ids", [[0, 1, 2**24 + 1, 2**30 - 1], [2**30, 2**31 + 5, 2**40 + 3]])
def test_hashes_are_exact_for_large_ids(ids):
    if BACKEND == "jax" and max(ids) >= 2**31:
        pytest.skip("JAX has 32-bit ids unless 64 are enabled")
    layer, found = encoded(ids, max(ids) + 1)
    low, *high, addend = to_numpy(layer.hash_coefficients).astype(object)
    assert len(high) == (max(ids) >= 2**30)
    for i, row in zip(ids, found, strict=True):
        total = i % 2**30 * low + addend + (i // 2**30 * high[0] if high else 0)
        buckets = np.array(total % (2**31 - 1) % 10**6, "float64")
        np.testing.assert_allclose(row, 2 * buckets / 999_999 - 1, atol=1e-6)
        assert np.abs(row).max() <= 1


def test_one_hash_worked_by_hand():
    """7 * 3 + 4 = 25, bucket 5 of 10, 2 * 5 / 9 - 1 = 1 / 9."""
    encoding = HashEncoding("uniform", 1, 10, seed=0, input_dim=100)
    found = encoding.of_tensor(ids_of([3]), np.array([[7], [4]]))
    np.testing.assert_allclose(to_numpy(found), [[1 / 9]], rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "variance", "kurtosis"), [("uniform", 1 / 3, 1.8), ("gaussian", 1, 3)]
)
def test_encodings_have_their_law_and_hashes_are_unrelated(kind, variance, kurtosis):
    numbers = HashEncoding(kind, 32, 10**6, seed=1, input_dim=10**6).of_array(np.arange(20_000))
    assert np.abs(numbers.mean(axis=0)).max() < 0.03
    np.testing.assert_allclose(numbers.var(axis=0), variance, rtol=0.05)
    assert np.mean(numbers**4) / np.mean(numbers**2) ** 2 == pytest.approx(kurtosis, rel=0.03)
    related = np.corrcoef(numbers.T) - np.eye(32)
    assert np.abs(related).max() < 0.05
    other = HashEncoding(kind, 32, 10**6, seed=2, input_dim=10**6).of_array(np.arange(20_000))
    assert np.abs(np.mean(numbers * other, axis=0)).max() < 0.05 * variance


def test_tensors_and_arrays_are_encoded_alike():
    for kind in ("uniform", "gaussian"):
        _, found = encoded(range(40), 50, encoding=kind)
        expected = HashEncoding(kind, 12, 10**6, 0, 50).of_array(np.arange(40))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_hidden_layers_it_is_a_linear_map_of_the_hashes():
    layer = DeepHashEmbedding(200, 16, num_hashes=4, hidden_units=())
    layer.build(None)
    randomize(layer)
    vectors = to_numpy(layer(np.arange(200)))
    assert np.linalg.matrix_rank(vectors - weights_by_name(layer)["bias_0"], tol=1e-3) == 4


def test_sizes_of_the_sheet_whatever_the_number_of_ids():
    for ids in (100_000, 1_000_000):
        size = DeepHashEmbedding(ids, 16).footprint()
        assert size.parameters == 83_920
        assert size.index_bytes == 8 * 5 * 64 + 8 * 1024  # Averages; two numbers a hash.
        # Without the scales and shifts: 83,280 numbers.
        assert size.inference_bytes == 4 * 83_280 + 8 * 1024
    assert DeepHashEmbedding(2**31, 16).footprint().inference_bytes == 4 * 83_280 + 12 * 1024
    assert DeepHashEmbedding(100, 16).footprint().inference_bytes == 4 * 100 * 16


@pytest.mark.parametrize("options", [{}, {"encoding": "gaussian", "activation": "relu"}])
def test_vectors_start_with_the_full_table_s_variance_in_training_and_in_service(options):
    layer = DeepHashEmbedding(50_000, 16, num_hashes=64, hidden_units=(32,) * 5, **options)
    ids = np.random.default_rng(0).integers(0, 50_000, 3000)
    for training in (False, True):
        vectors = to_numpy(layer(ids, training=training))
        assert vectors.var() == pytest.approx(1 / 150_000, rel=0.15)
        assert abs(vectors.mean()) < 0.05 * vectors.std()


def test_averages_move_in_training_only():
    layer = DeepHashEmbedding(500, 4, **SMALL)
    ids = np.arange(0, 500, 9)
    layer(ids)
    before = weights_by_name(layer)
    layer(ids, training=False)
    np.testing.assert_array_equal(weights_by_name(layer)["mean_0"], before["mean_0"])
    in_training = to_numpy(layer(ids, training=True))
    after = weights_by_name(layer)
    hidden = to_numpy(layer.encode(ids_of(ids))) @ before["kernel_0"] + before["bias_0"]
    for name, own in (("mean_0", hidden.mean(axis=0)), ("variance_0", hidden.var(axis=0))):
        expected = 0.99 * before[name] + 0.01 * own
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(in_training - to_numpy(layer(ids))).max() > 0


def test_a_batch_without_ids_moves_nothing():
    layer = DeepHashEmbedding(500, 4, **SMALL)
    layer.build(None)
    before = layer.get_weights()
    layer(np.zeros((0,), "int64"), training=True)
    for a, b in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_id_s_vector_does_not_depend_on_its_batch():
    layer = DeepHashEmbedding(500, 4, **SMALL)
    together = to_numpy(layer(np.arange(500)))
    for i in (0, 17, 499):
        np.testing.assert_allclose(
            to_numpy(layer(np.array([i])))[0], together[i], rtol=1e-4, atol=1e-6
        )


def test_the_served_network_gives_the_vectors_of_trained_averages():
    layer = DeepHashEmbedding(500, 4, **SMALL, combiner="sum", name="field")
    for start in range(0, 500, 50):
        layer(np.arange(start, start + 50)[:, None], training=True)
    randomize(layer)
    served = layer.for_inference()
    assert not served.batch_normalization
    assert (served.name, served.combiner) == ("field", "sum")
    assert not {"mean_0", "scale_0"} & set(weights_by_name(served))
    ids = np.arange(500)[:, None]
    np.testing.assert_allclose(to_numpy(served(ids)), to_numpy(layer(ids)), rtol=1e-3, atol=1e-4)


def test_fit_trains_a_collection_and_prediction_leaves_it_alone():
    """The phase reaches the fields of a collection inside a model."""
    collection = EmbeddingCollection([500, 800], 4, "dhe", options=SMALL)
    inputs = keras.Input((2,), dtype=id_dtype())
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(collection(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    ids = np.random.default_rng(0).integers(0, 500, size=(64, 2))

    def averages():
        return np.concatenate(
            [to_numpy(w) for w in collection.non_trainable_weights if "mean" in w.name]
        )

    first = averages()
    model.predict(ids, verbose=0)
    np.testing.assert_array_equal(averages(), first)
    model.fit(ids, np.ones((64, 1)), batch_size=16, verbose=0)
    assert (averages() != first).mean() > 0.9


def test_the_learned_function_reaches_unseen_ids():
    """No table: a step on some ids moves the vectors of all."""
    layer = DeepHashEmbedding(500, 4, **SMALL)
    model = keras.Sequential([keras.Input((1,), dtype=id_dtype()), layer, keras.layers.Flatten()])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = to_numpy(layer(np.arange(500)))
    model.fit(np.arange(10)[:, None], np.ones((10, 4)), verbose=0)
    assert (to_numpy(layer(np.arange(500))) != before).all(axis=1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "binary"}, "'uniform' or 'gaussian'.*encoding='binary'"),
        ({"encoding": "gaussian", "num_hashes": 3}, "must be even.*num_hashes=3"),
        ({"activation": "gelu"}, "'mish' or 'relu'.*activation='gelu'"),
        ({"num_buckets": 2**25}, r"from 2 to 2\*\*24.*num_buckets=33554432"),
        ({"num_buckets": 1}, r"from 2 to 2\*\*24.*num_buckets=1"),
        ({"hidden_units": (4, 0)}, "`hidden_units` must be a positive integer"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DeepHashEmbedding(50, 8, **options)


def test_the_width_follows_from_the_budget():
    """The positive root of the size in w, with 1024 hashes while they leave room for 32 units."""
    budget = 4 * 1_000_000 * 16 // 100
    chosen = DeepHashEmbedding.for_budget(1_000_000, 16, budget)
    assert chosen["num_hashes"] == 1024
    (width,) = set(chosen["hidden_units"])
    assert len(chosen["hidden_units"]) == 5

    def size(w):
        return 4 * (1025 * w + 4 * (w + 1) * w + (w + 1) * 16) + 8 * 1024

    assert size(width) <= budget < size(width + 1)
    small = DeepHashEmbedding.for_budget(1_000_000, 16, 64_000)
    assert small["num_hashes"] == 256
    served = DeepHashEmbedding.for_budget(50, 16, 4 * 50 * 16)
    assert isinstance(_built(DeepHashEmbedding(50, 16, **served)).for_inference(), FullEmbedding)


def _built(layer):
    layer.build(None)
    return layer


TWO_REPLICAS = """
import numpy as np
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tf_compemb import DeepHashEmbedding
from tf_compemb._keras import keras
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    layer = DeepHashEmbedding(500, 4, num_hashes=12, hidden_units=(6, 5))
    model = keras.Sequential([keras.Input((1,), dtype="int64"), layer, keras.layers.Flatten()])
    model.compile("sgd", "mse")
mean, kernel = np.array(layer.mean_0), np.array(layer.kernel_0)
ids = np.arange(20)[:, None]
hidden = layer.encode(tf.constant(ids[:, 0], "int64")).numpy() @ kernel
model.fit(ids, np.ones((20, 4)), batch_size=20, verbose=0)
expected = 0.99 * mean + 0.01 * hidden.mean(axis=0)
np.testing.assert_allclose(np.array(layer.mean_0), expected, rtol=1e-4, atol=1e-6)
"""


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
def test_replicas_average_what_they_saw():
    done = subprocess.run([sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
