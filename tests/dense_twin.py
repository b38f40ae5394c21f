"""A model under exact Adam or AMSGrad, and the same model under the stock optimiser, densely.

For tests under TensorFlow of who sees current rows while updates are deferred.
"""

import numpy as np
import tensorflow as tf
from optimizer_training import stored_rows

from tf_compemb import layers, optimizers
from tf_compemb._keras import keras

ROWS, WIDTH, BATCH = 2500, 4, 32  # More rows than small tables have.
EXACT = {"adam": False, "amsgrad": True}


def data(batches=6, seed=0):
    rng = np.random.default_rng(seed)
    ids = (ROWS * rng.random((batches * BATCH, 3)) ** 3).astype("int32")
    return ids, rng.random((batches * BATCH, 1)).astype("float32")


class DenseTable(keras.layers.Layer):
    """An embedding whose gradient is dense, for stock optimisers."""

    def __init__(self, values, **kwargs):
        super().__init__(**kwargs)
        self.values = values

    def build(self, input_shape):
        self.table = self.add_weight(
            name="table", shape=(ROWS, WIDTH), initializer=lambda *_, **__: tf.constant(self.values)
        )
        self.built = True

    def call(self, ids):
        return tf.gather(tf.convert_to_tensor(self.table) * 1.0, ids)


def make_model(embedding):
    keras.utils.set_random_seed(11)
    tower = [keras.layers.Input((3,), dtype="int32"), embedding, keras.layers.Flatten()]
    return keras.Sequential([*tower, keras.layers.Dense(1)])


def make_exact():
    return make_model(layers.FullEmbedding(ROWS, WIDTH, name="table"))


def table_variable(model):
    return model.get_layer("table").weights[0]


def fit(model, ids, labels, **options):
    return model.fit(ids, labels, batch_size=BATCH, shuffle=False, verbose=0, **options)


def train_by_batches(model, ids, labels):
    for start in range(0, len(ids), BATCH):
        model.train_on_batch(ids[start : start + BATCH], labels[start : start + BATCH])


def stock_twin(model, rate, amsgrad, compiling=None):
    """The same weights under the stock optimiser, with a dense gradient."""
    twin = make_model(DenseTable(table_variable(model).numpy(), name="table"))
    for ours, theirs in zip(model.weights, twin.weights, strict=True):
        theirs.assign(ours.numpy())
    twin.compile(
        keras.optimizers.Adam(rate, amsgrad=amsgrad),
        keras.losses.MeanSquaredError(),
        **(compiling or {}),
    )
    return twin


def trained_pair(name, rate=0.01, batches=6):
    """An exact model in the middle of its training, and its dense twin."""
    model = make_exact()
    twin = stock_twin(model, rate, EXACT[name])
    model.compile(optimizers.get(name, rate), keras.losses.MeanSquaredError())
    ids, labels = data(batches)
    train_by_batches(model, ids, labels)
    train_by_batches(twin, ids, labels)
    return model, twin


def assert_current(found, twin):
    expected = table_variable(twin).numpy()
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=2e-5)


def assert_lags(model, twin):
    """The test can fail: as stored, rows are far from current."""
    stored = stored_rows(table_variable(model)).numpy()
    assert np.abs(stored - table_variable(twin).numpy()).max() > 1e-3


def of_weights(weights):
    return next(np.asarray(w) for w in weights if tuple(w.shape) == (ROWS, WIDTH))
