"""Who reads, saves, copies or writes a table while updates are deferred finds current rows."""

import copy
import pickle
import zlib

import numpy as np
import pytest

from tf_compemb import optimizers
from tf_compemb._keras import BACKEND, LEGACY, keras

if BACKEND != "tensorflow":
    pytest.skip("updates are deferred on TensorFlow only", allow_module_level=True)

import tensorflow as tf
from dense_twin import (
    BATCH,
    ROWS,
    WIDTH,
    assert_current,
    assert_lags,
    data,
    fit,
    make_exact,
    of_weights,
    stock_twin,
    table_variable,
    train_by_batches,
    trained_pair,
)
from optimizer_training import raw, stored_rows

# Ways to read.


READING = {
    "get_weights of the model": lambda m: of_weights(m.get_weights()),
    "get_weights of the layer": lambda m: of_weights(m.get_layer("table").get_weights()),
    "numpy": lambda m: table_variable(m).numpy(),
    "np.array": lambda m: np.array(table_variable(m)),
    "convert_to_tensor": lambda m: tf.convert_to_tensor(table_variable(m)),
    "raw read_value": lambda m: raw(table_variable(m)).read_value(),
    "raw value": lambda m: tf.identity(raw(table_variable(m)).value()),
    "tf.gather": lambda m: tf.gather(raw(table_variable(m)), np.arange(ROWS)),
    "tf.gather_nd": lambda m: tf.gather_nd(raw(table_variable(m)), np.arange(ROWS)[:, None]),
    "embedding_lookup": lambda m: tf.nn.embedding_lookup(raw(table_variable(m)), tf.range(ROWS)),
    "arithmetic": lambda m: table_variable(m) * 1.0,
    "reduce_sum": lambda m: tf.reduce_sum(raw(table_variable(m))[None], 0),
    "compiled dispatch": lambda m: tf.raw_ops.AddV2(x=raw(table_variable(m)), y=0.0),
    "slice": lambda m: raw(table_variable(m))[:],
    "matmul": lambda m: tf.matmul(raw(table_variable(m)), tf.eye(WIDTH)),
    "deepcopy of the variable": lambda m: copy.deepcopy(raw(table_variable(m))).numpy(),
    "the layer": lambda m: m.get_layer("table")(np.arange(ROWS)),
    "keras.ops": lambda m: keras_numpy(table_variable(m)),
}


def keras_numpy(variable):
    import keras as keras3

    return keras3.ops.convert_to_numpy(variable)


@pytest.fixture(scope="module")
def shared_pair():
    return trained_pair("adam")


@pytest.fixture
def pair(shared_pair, request):
    """An exact model and its dense twin, a few steps after they were last looked at."""
    seed = zlib.crc32(request.node.name.encode())
    for m in shared_pair:
        train_by_batches(m, *data(2, seed))
    assert_lags(*shared_pair)
    return shared_pair


@pytest.mark.parametrize("way", READING)
def test_every_way_to_read_is_current(way, pair):
    model, twin = pair
    assert_current(READING[way](model), twin)


@pytest.mark.parametrize("way", ["tf.gather", "tf.gather_nd", "convert_to_tensor", "raw value",
                                 "raw read_value", "matmul", "slice", "arithmetic"])  # fmt: skip
def test_graphs_read_current_rows_and_write_nothing(way, pair):
    model, twin = pair
    before = stored_rows(table_variable(model)).numpy()
    found = tf.function(lambda: tf.identity(READING[way](model)))()
    assert_current(found, twin)
    np.testing.assert_array_equal(stored_rows(table_variable(model)).numpy(), before)


def test_a_gradient_through_the_whole_table(pair):
    model, _ = pair
    variable = raw(table_variable(model))
    expected = 2 * table_variable(model).numpy()
    for run in (lambda f: f, tf.function):

        def gradient():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.convert_to_tensor(variable) ** 2)
            return tape.gradient(loss, variable)

        np.testing.assert_allclose(run(gradient)().numpy(), expected, rtol=1e-6)


# Files and copies.


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".keras", ".h5", *(["saved_model"] if LEGACY else [])])
def test_saved_models_are_current_and_go_on(suffix, tmp_path):
    model, twin = trained_pair("adam")
    assert_lags(model, twin)
    path = tmp_path / (suffix if suffix == "saved_model" else f"model{suffix}")
    model.save(path)
    again = keras.models.load_model(path)
    assert_current(table_variable(again).numpy(), twin)
    ids, labels = data(seed=1)
    # With stock optimisers too, Keras 3 cannot train what it has loaded from HDF5, and tf_keras
    # restores no optimiser from a SavedModel.
    restored = suffix == ".keras" or (suffix == ".h5" and LEGACY)
    go_on = [model, again] if restored else [model]
    for m in (*go_on, twin):
        train_by_batches(m, ids, labels)
    for m in go_on:
        assert_current(table_variable(m).numpy(), twin)


WEIGHTS = ["w.weights.h5", *(["weights_of_tensorflow"] if LEGACY else [])]


@pytest.mark.parametrize("file", WEIGHTS)
def test_saved_weights_are_current(file, pair, tmp_path):
    model, twin = pair
    model.save_weights(str(tmp_path / file))
    fresh = make_exact()
    fresh.load_weights(str(tmp_path / file))
    assert_current(table_variable(fresh).numpy(), twin)


def test_a_checkpoint_of_the_model_alone_is_current(pair, tmp_path):
    model, twin = pair
    path = tf.train.Checkpoint(model=model).save(tmp_path / "model")
    fresh = make_exact()
    tf.train.Checkpoint(model=fresh).restore(path).expect_partial()
    assert_current(table_variable(fresh).numpy(), twin)


@pytest.mark.parametrize("order", [("model", "optimizer"), ("optimizer", "model")])
def test_a_checkpoint_of_model_and_optimizer_goes_on(order, tmp_path):
    """Into a model whose own optimiser has been elsewhere in the meantime."""
    model, twin = trained_pair("adam")
    parts = {"model": model, "optimizer": model.optimizer}
    path = tf.train.Checkpoint(**{k: parts[k] for k in order}).save(tmp_path / "both")
    other, _ = trained_pair("adam", batches=4)
    parts = {"model": other, "optimizer": other.optimizer}
    tf.train.Checkpoint(**{k: parts[k] for k in order}).restore(path).expect_partial()
    assert_current(other.get_layer("table")(np.arange(ROWS)), twin)
    ids, labels = data(seed=1)
    for m in (other, twin):
        train_by_batches(m, ids, labels)
    assert_current(table_variable(other).numpy(), twin)


def test_a_deep_copy_of_the_model_is_current(pair):
    model, twin = pair
    copied = copy.deepcopy(model)
    assert_current(table_variable(copied).numpy(), twin)
    assert_current(copied.get_layer("table")(np.arange(ROWS)), twin)


def test_a_pickled_model_is_current(pair):
    model, twin = pair
    copied = pickle.loads(pickle.dumps(model))
    assert_current(table_variable(copied).numpy(), twin)


def test_a_model_exported_in_training_serves_current_rows(pair, tmp_path):
    model, twin = pair
    if LEGACY:
        tf.saved_model.save(model, str(tmp_path))
    else:
        model.export(tmp_path, verbose=False)
    ids, _ = data()
    served = tf.saved_model.load(str(tmp_path))
    found = served.serve(tf.constant(ids)) if not LEGACY else served(tf.constant(ids))
    np.testing.assert_allclose(found, twin.predict(ids, verbose=0), rtol=0, atol=1e-5)


def callbacks_that_save(tmp_path):
    yield "model.keras", {}
    yield "model.h5", {}
    yield "model.weights.h5", {"save_weights_only": True}
    if LEGACY:
        yield "weights", {"save_weights_only": True}
        yield "saved_model", {}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("case", range(5 if LEGACY else 3))
def test_model_checkpoints_in_fit_are_current(case, tmp_path):
    file, options = list(callbacks_that_save(tmp_path))[case]
    ids, labels = data()
    model = make_exact()
    twin = stock_twin(model, 0.01, False)
    model.compile(optimizers.Adam(0.01), keras.losses.MeanSquaredError())
    path = str(tmp_path / file)
    saving = keras.callbacks.ModelCheckpoint(path, save_freq=5, **options)
    fit(model, ids, labels, callbacks=[saving])
    train_by_batches(twin, ids[: 5 * BATCH], labels[: 5 * BATCH])
    if options:
        again = make_exact()
        again.load_weights(path)
    else:
        again = keras.models.load_model(path)
    assert_current(table_variable(again).numpy(), twin)


# Ways to write.


def test_early_stopping_restores_the_best_weights():
    ids, labels = data()
    model = make_exact()
    twin = stock_twin(model, 0.05, False)
    model.compile(optimizers.Adam(0.05), keras.losses.MeanSquaredError())
    for m in (model, twin):
        stop = keras.callbacks.EarlyStopping(
            monitor="loss", mode="max", patience=2, restore_best_weights=True
        )
        fit(m, ids, labels, epochs=6, callbacks=[stop])
        assert stop.stopped_epoch == 2
    assert_current(table_variable(model).numpy(), twin)
    np.testing.assert_allclose(
        model.predict(ids, verbose=0), twin.predict(ids, verbose=0), rtol=0, atol=1e-4
    )


WRITING = {
    "set_weights": lambda m, values: m.set_weights(
        [values if tuple(w.shape) == (ROWS, WIDTH) else w for w in m.get_weights()]
    ),
    "assign": lambda m, values: table_variable(m).assign(values),
    "raw assign": lambda m, values: raw(table_variable(m)).assign(values),
    "assign_add": lambda m, values: table_variable(m).assign_add(
        values - table_variable(m).numpy()
    ),
    "raw assign_sub": lambda m, values: raw(table_variable(m)).assign_sub(
        table_variable(m).numpy() - values
    ),
    "scatter_update": lambda m, values: raw(table_variable(m)).scatter_update(
        tf.IndexedSlices(values, tf.range(ROWS))
    ),
    "scatter_nd_update": lambda m, values: raw(table_variable(m)).scatter_nd_update(
        tf.range(ROWS)[:, None], values
    ),
    "slice assign": lambda m, values: raw(table_variable(m))[:].assign(values),
}


@pytest.mark.parametrize(
    ("way", "traced"),
    [(way, False) for way in WRITING]
    + [(way, True) for way in ("assign", "raw assign", "scatter_update", "scatter_nd_update")],
)
def test_what_is_written_is_what_is_read_and_trained_on(way, traced, pair):
    model, twin = pair
    values = np.random.default_rng(5).normal(size=(ROWS, WIDTH)).astype("float32")
    if traced:
        tf.function(lambda: [WRITING[way](model, tf.constant(values)), 0][1])()
    else:
        WRITING[way](model, values)
    np.testing.assert_allclose(model.get_layer("table")(np.arange(ROWS)), values, rtol=0, atol=1e-6)
    table_variable(twin).assign(values)
    ids, labels = data(seed=2)
    for m in (model, twin):  # Moments are as they were.
        train_by_batches(m, ids, labels)
    assert_current(table_variable(model).numpy(), twin)
