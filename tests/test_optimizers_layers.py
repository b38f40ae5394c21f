"""The row optimisers with the real layers: exact AMSGrad is dense AMSGrad, fused or not."""

import numpy as np
import pytest

from tf_compemb import EmbeddingCollection
from tf_compemb._keras import BACKEND, keras
from tf_compemb.optimizers import names as optimizer_names
from tf_compemb.storage import small_table

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="row updates are TensorFlow's; elsewhere gradients are dense"
)

CARDINALITIES = [60, 50, 40]


@pytest.fixture(params=["by rows", "whole"])
def reading(request, monkeypatch):
    """The tables' sizes do not matter to what is computed, only to how it is."""
    monkeypatch.setattr(small_table, "SMALL_TABLE", 0 if request.param == "by rows" else 2048)


ROWS = np.arange(40)[:, None].repeat(3, axis=1)


def trained(optimizer, embedding, steps=40, callbacks=(), get_model=False):
    keras.utils.set_random_seed(5)
    inputs = keras.Input((3,), dtype="int64")
    vectors = EmbeddingCollection(CARDINALITIES, 4, embedding)(inputs)
    outputs = keras.layers.Dense(1, dtype="float32")(keras.layers.Flatten()(vectors))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(1)
    # Squares make most rows rare: they are idle for many steps, as in real logs.
    ids = (rng.random((8 * steps, 3)) ** 3 * CARDINALITIES).astype("int64")
    labels = rng.normal(size=(8 * steps, 1)).astype("float32")
    model.fit(ids, labels, batch_size=8, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model if get_model else model.get_weights()


@pytest.mark.parametrize("embedding", ["full", "qr", "path"])
@pytest.mark.parametrize("name", ["AMSGrad", "Adam"])
def test_exact_adam_trains_the_layers_as_the_dense_rule_does(embedding, name, reading):
    from tf_compemb import optimizers

    exact = trained(getattr(optimizers, name)(0.01), embedding)
    # Eager dense gradients go through the stock rule; duplicates add up on their own there.
    dense = trained(DenseAdam(0.01, amsgrad=name == "AMSGrad"), embedding)
    for a, b in zip(exact, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", optimizer_names.NAMES)
def test_every_optimiser_trains_a_table_alike_however_it_is_read(name, monkeypatch):
    from tf_compemb import optimizers

    whole = trained(optimizers.get(name, 0.01), "qr")
    monkeypatch.setattr(small_table, "SMALL_TABLE", 0)
    by_rows = trained(optimizers.get(name, 0.01), "qr")
    for a, b in zip(whole, by_rows, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


def test_a_lazy_optimiser_differs_where_rows_are_idle():
    from tf_compemb import optimizers

    lazy = trained(optimizers.LazyAdam(0.01, amsgrad=True), "full")
    exact = trained(optimizers.AMSGrad(0.01), "full")
    assert np.abs(lazy[0] - exact[0]).max() > 1e-3


@pytest.mark.parametrize("embedding", ["full", "qr"])
def test_a_file_saved_in_the_middle_of_training_is_up_to_date(embedding, tmp_path):
    """Saved from inside `fit`, where idle rows still lack steps."""
    from tf_compemb import optimizers

    class SaveAtStep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 20:
                self.model.save_weights(tmp_path / "step.weights.h5")
                self.read = self.model.predict_on_batch(ROWS)

    saver = SaveAtStep()
    model = trained(optimizers.AMSGrad(0.01), embedding, callbacks=[saver], get_model=True)
    model.load_weights(tmp_path / "step.weights.h5")
    fresh = keras.models.clone_model(model)
    fresh.set_weights(model.get_weights())
    np.testing.assert_allclose(fresh.predict_on_batch(ROWS), saver.read, rtol=1e-5, atol=1e-7)


class DenseAdam(keras.optimizers.Adam):
    """Stock Adam on gradients made dense, which adds up duplicates."""

    def apply_gradients(self, pairs, *args, **kwargs):
        pairs = [(_dense(g), v) for g, v in pairs]
        return super().apply_gradients(pairs, *args, **kwargs)

    def apply(self, gradients, *args, **kwargs):
        return super().apply([_dense(g) for g in gradients], *args, **kwargs)


def _dense(gradient):
    import tensorflow as tf

    return tf.convert_to_tensor(gradient)
