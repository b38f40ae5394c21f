"""As a user of Keras meets the layers: models, large ids, strategies."""

import numpy as np
import pytest
from runtime import ids_of, randomize, to_numpy, weights_by_name

import tf_compemb
from tf_compemb import FullEmbedding, HashEmbedding, QREmbedding
from tf_compemb._keras import BACKEND, LEGACY, id_dtype, keras


def test_the_readme_s_model_learns_saves_and_loads(tmp_path):
    model = keras.Sequential(
        [QREmbedding(10_000, 16), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    ids = np.random.default_rng(0).integers(0, 10_000, size=(256, 2))
    labels = (ids[:, :1] % 4 < 2).astype("float32")
    model.compile(keras.optimizers.Adam(0.01), "mse")
    losses = model.fit(ids, labels, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict_on_batch(ids), model.predict_on_batch(ids))


def test_it_takes_the_place_of_keras_own_layer():
    ours = FullEmbedding(50, 4, embeddings_initializer="zeros", mask_zero=True)
    theirs = keras.layers.Embedding(50, 4, mask_zero=True)
    theirs.build((None,))
    ours.build((None,))
    ours.set_weights(theirs.get_weights())
    ids = np.array([[3, 0], [49, 49]])
    np.testing.assert_array_equal(to_numpy(ours(ids)), to_numpy(theirs(ids)))
    assert tuple(ours.embeddings.shape) == (50, 4)


@pytest.mark.parametrize("i", [2**24 + 1, 2**31 - 2])
def test_large_ids_are_exact(i):
    n = 2**31 - 1
    layer = QREmbedding(n, 2, collisions=2**16, operation="add")
    layer.build(None)
    randomize(layer)
    w = weights_by_name(layer)
    expected = w["remainder"][i % 2**16] + w["quotient"][i // 2**16]
    np.testing.assert_array_equal(to_numpy(layer(np.array([i]))), [expected])


def test_ids_above_31_bits_are_exact_or_refused():
    n, i = 2**40, 2**33 + 5
    if id_dtype() == "int32":
        with pytest.raises(ValueError, match="JAX_ENABLE_X64=1"):
            QREmbedding(n, 2, collisions=2**20)
        layer = QREmbedding(1000, 2, name="field")
        with pytest.raises(ValueError, match=f"field: id {i} needs 64 bits"):
            layer(np.array([i]))
        return
    layer = QREmbedding(n, 2, collisions=2**20, operation="add")
    layer.build(None)
    randomize(layer)
    w = weights_by_name(layer)
    expected = w["remainder"][i % 2**20] + w["quotient"][i // 2**20]
    np.testing.assert_array_equal(to_numpy(layer(np.array([i]))), [expected])


@pytest.mark.skipif(LEGACY, reason="tf_keras gives Sequential models the type of the data")
def test_a_sequential_model_never_rounds_ids():
    """Keras 3 gives a Sequential model without an Input a float32 input."""
    small = keras.Sequential([FullEmbedding(2**12, 1), keras.layers.Flatten()])
    small.predict_on_batch(np.array([[2**12 - 1]]))
    large = keras.Sequential([HashEmbedding(2**25, 1, collisions=2**14), keras.layers.Flatten()])
    with pytest.raises(
        TypeError, match=r"type float32, which cannot tell ids above 16777216 apart"
    ):
        large.predict_on_batch(np.array([[2**24 + 1]]))
    stated = keras.Sequential(
        [keras.Input((1,), dtype=id_dtype()), QREmbedding(2**25, 1, 2**13), keras.layers.Flatten()]
    )
    w = weights_by_name(stated.layers[0])
    i = 2**24 + 1
    expected = w["remainder"][i % 2**13] * w["quotient"][i // 2**13]
    np.testing.assert_array_equal(to_numpy(stated(ids_of([[i]]))), [expected])


def test_a_sequential_model_never_cuts_a_fraction_off_an_id():
    """Compiled by JAX, where nothing can raise, the vector is NaN; elsewhere the id raises."""
    model = keras.Sequential([FullEmbedding(100, 2), keras.layers.Flatten()])
    model.predict_on_batch(np.array([[3.0]]))
    if BACKEND == "jax":
        out = to_numpy(model.predict_on_batch(np.array([[3.5], [3.0]])))
        assert np.isnan(out[0]).all()
        assert np.isfinite(out[1]).all()
    else:
        with pytest.raises(Exception, match=r"ids must be in \[0, 100\)"):
            model.predict_on_batch(np.array([[3.5]]))


@pytest.mark.parametrize(("collisions", "quotient_rows"), [(4, 8_440_645), (60, 562_710)])
def test_a_field_of_all_of_criteo_s_rows_builds_compressed(collisions, quotient_rows):
    n = 33_762_577
    layer = QREmbedding(n, 16, collisions=collisions)
    layer.build(None)
    w = weights_by_name(layer)
    assert (len(w["remainder"]), len(w["quotient"])) == (collisions, quotient_rows)
    expected = w["remainder"][(n - 1) % collisions] * w["quotient"][-1]
    np.testing.assert_array_equal(to_numpy(layer(np.array([n - 1]))), [expected])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_dim": 0}, "`input_dim` must be a positive integer. Received: input_dim=0"),
        ({"input_dim": 3.5}, "Received: input_dim=3.5"),
        ({"output_dim": True}, "Received: output_dim=True"),
        ({"collisions": -1}, "Received: collisions=-1"),
        ({"modulus": 0}, "Received: modulus=0"),
        ({"operation": "max"}, "`operation` must be one of 'mult', 'add', 'concat', 'feature'"),
        (
            {"operation": "concat", "output_dim": 7},
            "must be a multiple of the number of partitions",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        QREmbedding(**{"input_dim": 10, "output_dim": 8, **arguments})


def test_a_name_is_registered_once():
    from tf_compemb.layers import get_method, method

    with pytest.raises(ValueError, match="named 'qr' or a class"):
        method("qr")(type("OtherEmbedding", (QREmbedding,), {}))
    with pytest.raises(ValueError, match="named 'other' or a class QREmbedding"):
        method("other")(type("QREmbedding", (QREmbedding,), {}))
    assert get_method("qr") is QREmbedding


def test_the_package_lists_what_it_exports():
    for name in tf_compemb.__all__:
        if name not in ("models", "data", "optimizers"):  # these need TensorFlow and pyarrow
            assert getattr(tf_compemb, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'QRembedding'"):
        _ = tf_compemb.QRembedding


@pytest.mark.skipif(BACKEND != "tensorflow", reason="MirroredStrategy is TensorFlow's")
def test_mirrored_training_equals_one_device(tmp_path):
    """In a process of its own: logical devices are fixed before TensorFlow starts."""
    import subprocess
    import sys

    script = """
import numpy as np, tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from tf_compemb import EmbeddingCollection
from tf_compemb._keras import keras
ids = np.random.default_rng(0).integers(0, 50, size=(64, 3))
labels = np.random.default_rng(1).normal(size=(64, 1)).astype("float32")
def train(scope):
    with scope:
        keras.utils.set_random_seed(3)
        inputs = keras.Input((3,), dtype="int64")
        vectors = EmbeddingCollection([50, 60, 70], 4, "qr", name="c")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(vectors)))
        model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(ids, labels, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()
import contextlib
one = train(contextlib.nullcontext())
two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope())
for a, b in zip(one, two, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
print("equal", len(one))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.endswith("equal 4\n"), done.stderr
