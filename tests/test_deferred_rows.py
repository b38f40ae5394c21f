"""Exact Adam and AMSGrad in Keras train as the stock dense rule, whatever a step leaves out."""

import copy
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tf_compemb import layers, optimizers
from tf_compemb._keras import BACKEND, LEGACY, keras
from tf_compemb.storage.table_rows import table_of

if BACKEND != "tensorflow":
    pytest.skip("updates are deferred on TensorFlow only", allow_module_level=True)

import tensorflow as tf
from dense_twin import (
    BATCH,
    EXACT,
    ROWS,
    WIDTH,
    assert_current,
    data,
    fit,
    make_exact,
    make_model,
    stock_twin,
    table_variable,
    train_by_batches,
)

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
        from dense_twin import *
        from optimizer_training import raw
        from tf_compemb.storage.table_rows import table_of
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
