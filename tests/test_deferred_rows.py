"""Exact Adam and AMSGrad in Keras: who reads, saves, copies or writes a table finds current rows.

The expected numbers are those of the same model trained by the stock dense optimiser.
"""

import copy
import pickle
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
from optimizer_training import raw, stored_rows

from tf_compemb import layers, optimizers
from tf_compemb._keras import BACKEND, LEGACY, keras
from tf_compemb.storage.table_rows import table_of

if BACKEND != "tensorflow":
    pytest.skip("updates are deferred on TensorFlow only", allow_module_level=True)

import tensorflow as tf

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


# The first thing that a user tries.


@pytest.mark.parametrize(
    ("name", "compiling"),
    [
        ("adam", {}),
        ("amsgrad", {"steps_per_execution": 3}),
        ("adam", {"run_eagerly": True}),
    ],
)
def test_compile_and_fit(name, compiling):
    ids, labels = data()
    model = make_exact()
    twin = stock_twin(model, 0.01, EXACT[name])
    model.compile(optimizers.get(name, 0.01), keras.losses.MeanSquaredError(), **compiling)
    fit(model, ids, labels, epochs=2)
    fit(twin, ids, labels, epochs=2)
    assert_current(table_variable(model).numpy(), twin)


def test_loss_scaling_of_an_optimizer_that_is_not_built():
    ids, labels = data()
    model = make_exact()
    twin = stock_twin(model, 0.01, False)
    scaled = keras.mixed_precision.LossScaleOptimizer(optimizers.Adam(0.01))
    model.compile(scaled, keras.losses.MeanSquaredError())
    fit(model, ids, labels)
    fit(twin, ids, labels)
    assert_current(table_variable(model).numpy(), twin)


def test_evaluation_and_prediction_before_training_do_not_slow_it_down():
    ids, labels = data()
    model = make_exact()
    twin = stock_twin(model, 0.01, False)
    model.compile(optimizers.Adam(0.01), keras.losses.MeanSquaredError())
    model.evaluate(ids, labels, verbose=0)
    model.predict(ids, verbose=0)
    apart = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            twin.train_on_batch(*(x[batch * BATCH :][:BATCH] for x in (ids, labels)))
            predicted = [m.predict(ids, verbose=0) for m in (self.model, twin)]
            apart.append(np.abs(predicted[0] - predicted[1]).max())

    fit(model, ids, labels, validation_data=(ids, labels), callbacks=[Look()])
    assert len(apart) == 6
    assert max(apart) < 1e-5
    assert table_of(table_variable(model))._deferred[0].stays_current is False
    assert_current(table_variable(model).numpy(), twin)


def test_validation_sees_current_rows():
    ids, labels = data()
    model = make_exact()
    twin = stock_twin(model, 0.01, False)
    model.compile(optimizers.Adam(0.01), keras.losses.MeanSquaredError())
    model.evaluate(ids, labels, verbose=0)
    seen = [fit(m, ids, labels, epochs=3, validation_data=(ids, labels)) for m in (model, twin)]
    ours, theirs = (history.history["val_loss"] for history in seen)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("name", EXACT)
def test_a_model_is_compiled_again_with_a_new_optimizer(name):
    ids, labels = data()
    model = make_exact()
    twin = stock_twin(model, 0.01, EXACT[name])
    model.compile(optimizers.get(name, 0.01), keras.losses.MeanSquaredError())
    fit(model, ids, labels)
    fit(twin, ids, labels)
    model.compile(optimizers.get(name, 0.02), keras.losses.MeanSquaredError())
    twin.compile(keras.optimizers.Adam(0.02, amsgrad=EXACT[name]), keras.losses.MeanSquaredError())
    train_by_batches(model, ids, labels)
    train_by_batches(twin, ids, labels)
    assert_current(table_variable(model).numpy(), twin)
    assert len(table_of(table_variable(model))._deferred) == 1  # The first one's are gone.


@pytest.mark.filterwarnings("ignore:The function .* was traced before the optimizer")
@pytest.mark.parametrize("named", ["by Keras", "as in Keras"])
def test_a_function_of_another_model_with_the_same_table_is_current(named):
    """It was traced before the optimiser was made, and compiling replaced another model's."""
    ids, labels = data()
    model = make_exact()
    twin = stock_twin(model, 0.01, False)
    other = make_model(model.get_layer("table"))
    other.layers[-1].set_weights(model.layers[-1].get_weights())
    if named == "by Keras":

        def look():
            return other.predict(ids, batch_size=len(ids), verbose=0)

    else:

        @tf.function
        def predict_function():
            return other(ids)

        look = predict_function
    look()
    model.compile(optimizers.Adam(0.01), keras.losses.MeanSquaredError())
    train_by_batches(model, ids, labels)
    train_by_batches(twin, ids, labels)
    other.layers[-1].set_weights(model.layers[-1].get_weights())
    np.testing.assert_allclose(look(), twin.predict(ids, verbose=0), rtol=0, atol=1e-5)


@pytest.mark.skipif(not LEGACY, reason="Keras 3 keeps what it replaces, and the optimizer warns")
def test_functions_that_compile_replaced_do_not_slow_training_down():
    ids, labels = data()
    model = make_exact()
    model.compile(optimizers.SGD(0.01), keras.losses.MeanSquaredError())
    fit(model, ids, labels, validation_data=(ids, labels))
    model.predict(ids, verbose=0)
    twin = stock_twin(model, 0.01, False)
    model.compile(optimizers.Adam(0.01), keras.losses.MeanSquaredError())
    fit(model, ids, labels)
    fit(twin, ids, labels)
    assert table_of(table_variable(model))._deferred[0].stays_current is False
    assert_current(table_variable(model).numpy(), twin)


# Steps that leave a table out.


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("again", [False, True])
def test_a_frozen_table_stands_still_and_goes_on_when_it_is_thawed(name, again):
    ids, labels = data()
    model = make_exact()
    twin = stock_twin(model, 0.1, EXACT[name])
    optimizer = optimizers.get(name, 0.1)
    for m, o in ((model, optimizer), (twin, twin.optimizer)):
        m.compile(o, keras.losses.MeanSquaredError())
        fit(m, ids, labels)
        before = table_variable(m).numpy()
        m.get_layer("table").trainable = False
        m.compile(o, keras.losses.MeanSquaredError())
        fit(m, ids, labels, epochs=2)
        np.testing.assert_array_equal(table_variable(m).numpy(), before)
        if again:
            m.get_layer("table").trainable = True
            m.compile(o, keras.losses.MeanSquaredError())
            train_by_batches(m, ids, labels)
    # 1e-4: at this rate a rounding that decides the sign of a small gradient moves a row by 0.1.
    np.testing.assert_allclose(
        table_variable(model).numpy(), table_variable(twin).numpy(), rtol=0, atol=5e-4
    )


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("left_out", ["none", "subset"])
@pytest.mark.parametrize("traced", [False, True])
def test_towers_that_train_by_turns(name, left_out, traced):
    """Two tables, each left out of every other step, by a gradient of None or by its absence."""
    rng = np.random.default_rng(3)
    starts = rng.normal(size=(2, 40, WIDTH)).astype("float32")
    ours = [layers.FullEmbedding(40, WIDTH) for _ in range(2)]
    for layer, start in zip(ours, starts, strict=True):
        layer.build(None)
        layer.set_weights([start])
    variables = [layer.trainable_weights[0] for layer in ours]
    optimizer = optimizers.get(name, 0.1)
    optimizer.build(variables)
    stock_variables = [tf.Variable(start) if LEGACY else keras.Variable(start) for start in starts]
    stock = keras.optimizers.Adam(0.1, amsgrad=EXACT[name])
    stock.build(stock_variables)

    def pairs(turn, gradient, both):
        gradients = [gradient if i == turn else None for i in range(2)]
        if left_out == "none":
            return list(zip(gradients, both, strict=True))
        return [(gradient, both[turn])]

    def step(rows, values, turn):
        slices = tf.IndexedSlices(values, rows, (40, WIDTH))
        optimizer.apply_gradients(pairs(turn, slices, variables))

    steps = tf.function(step) if traced else step
    for t in range(30):
        turn = t // 2 % 2
        rows = np.unique(rng.integers(0, 40, 5))
        values = rng.normal(size=(len(rows), WIDTH)).astype("float32")
        dense = np.zeros((40, WIDTH), "float32")
        dense[rows] = values
        steps(tf.constant(rows), tf.constant(values), turn)
        stock.apply_gradients(pairs(turn, tf.constant(dense), stock_variables))
    for variable, expected in zip(variables, stock_variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=0, atol=2e-5)


# Ways to read.


def of_weights(weights):
    return next(np.asarray(w) for w in weights if tuple(w.shape) == (ROWS, WIDTH))


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


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copied_layer_looks_up_and_trains(way):
    layer = layers.QREmbedding(ROWS, WIDTH, collisions=7)
    layer.build(None)
    copied = copy.deepcopy(layer) if way == "deepcopy" else pickle.loads(pickle.dumps(layer))
    ids = np.arange(ROWS)
    expected = layer(ids).numpy()
    np.testing.assert_array_equal(copied(ids).numpy(), expected)
    optimizer = optimizers.AMSGrad(0.1)
    optimizer.build(copied.trainable_weights)
    assert all(table_of(v).is_deferred for v in copied.trainable_weights)
    gradients = [
        tf.IndexedSlices(tf.ones((1, WIDTH)), tf.constant([1]), tuple(v.shape))
        for v in copied.trainable_weights
    ]
    optimizer.apply_gradients(zip(gradients, copied.trainable_weights, strict=True))
    np.testing.assert_array_equal(layer(ids).numpy(), expected)
    assert np.abs(copied(ids).numpy() - expected).max() > 0.01


def test_replicas_read_save_and_write_current_rows(tmp_path):
    # In its own process: TensorFlow takes one strategy object and one device list a process.
    script = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = [{str(Path(__file__).parent.parent)!r}, {str(Path(__file__).parent)!r}]
        import numpy as np, tensorflow as tf
        cpus = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
        from test_deferred_rows import *
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        ids, labels = data()
        one = make_exact()
        twin = stock_twin(one, 0.01, False)
        with strategy.scope():
            model = make_exact()
            model.compile(optimizers.Adam(0.01), keras.losses.MeanSquaredError())
        table = lambda: raw(table_variable(model))
        for m in (model, twin):
            train_by_batches(m, ids, labels)
        assert not table_of(table_variable(model))._deferred[0].stays_current
        assert_lags(model, twin)
        ways = {{
            "get_weights": lambda: of_weights(model.get_weights()),
            "numpy": lambda: table().numpy(),
            "gather": lambda: tf.gather(table(), np.arange(ROWS)),
            "tensor": lambda: tf.convert_to_tensor(table()) * 1.0,
            "copy": lambda: strategy.experimental_local_results(table())[1].numpy(),
        }}
        for name, way in ways.items():
            for m in (model, twin):
                train_by_batches(m, *data(1, len(name)))
            assert_current(way(), twin)
            print(name, "is current")
        for m in (model, twin):
            train_by_batches(m, *data(1, 9))
        path = tf.train.Checkpoint(model=model).save({str(tmp_path / "saved")!r})
        tf.train.Checkpoint(model=one).restore(path).expect_partial()
        assert_current(of_weights(one.get_weights()), twin)
        values = np.ones((ROWS, WIDTH), "float32")
        for m in (model, twin):
            m.set_weights([values if w.shape == values.shape else w for w in m.get_weights()])
            train_by_batches(m, *data(2, 5))
        assert_current(of_weights(model.get_weights()), twin)
        print("written")
        with strategy.scope():
            model.compile(optimizers.Adam(0.02), keras.losses.MeanSquaredError())
        twin.compile(keras.optimizers.Adam(0.02), keras.losses.MeanSquaredError())
        for m in (model, twin):
            train_by_batches(m, ids, labels)
        assert_current(of_weights(model.get_weights()), twin)
        print("compiled again")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    ways = ("get_weights", "numpy", "gather", "tensor", "copy")
    expected = [*(f"{way} is current" for way in ways), "written", "compiled again"]
    assert done.stdout.splitlines() == expected, done.stderr[-3000:]
