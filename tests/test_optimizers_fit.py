"""The row optimisers inside Keras: `fit`, saving, loss scaling, the traced step, two replicas."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from optimizer_training import RowTable, make_optimizer, raw

from tf_compemb import layers, optimizers
from tf_compemb._keras import BACKEND, LEGACY, keras, register

if BACKEND != "tensorflow":
    pytest.skip("row updates exist on TensorFlow only", allow_module_level=True)

import tensorflow as tf

register(RowTable)
ROWS, WIDTH = 997, 4  # 997 is the size of nothing else


def data(batches=6, batch=16):
    rng = np.random.default_rng(0)
    ids = (ROWS * rng.random((batches * batch, 3)) ** 3).astype("int32")
    labels = rng.random((batches * batch, 1)).astype("float32")
    return ids, labels


def make_model(optimizer, dtype=None, embedding=None, **compiling):
    keras.utils.set_random_seed(11)
    model = keras.Sequential(
        [
            keras.layers.Input((3,), dtype="int32"),
            embedding() if embedding else RowTable(ROWS, WIDTH, name="table", dtype=dtype),
            keras.layers.Flatten(),
            keras.layers.Dense(1, dtype="float32"),
        ]
    )
    model.compile(optimizer=optimizer, loss="mse", **compiling)
    model.optimizer.build(model.trainable_variables)
    return model


def table_of(model):
    return model.get_layer("table").table


def fit(model, ids, labels, **options):
    return model.fit(ids, labels, batch_size=16, shuffle=False, verbose=0, **options)


def dense_fit(optimizer, ids, labels, epochs, embedding=None):
    """Weights of the same model trained with dense gradients by a stock optimiser."""
    model = make_model("sgd", embedding=embedding)
    variables = model.trainable_variables
    optimizer.build(variables)
    for _ in range(epochs):
        for start in range(0, len(ids), 16):
            with tf.GradientTape() as tape:
                out = model(ids[start : start + 16])
                loss = tf.reduce_mean((out - labels[start : start + 16]) ** 2)
            grads = tape.gradient(loss, [raw(v) for v in variables])
            grads = [tf.convert_to_tensor(g) for g in grads]
            optimizer.apply_gradients(zip(grads, variables, strict=True))
    return [v.numpy() for v in variables]


def assert_close(model, expected):
    # 2e-5: roundings, of which Adam makes steps where gradients are small.
    for variable, weights in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), weights, rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore:Converting sparse IndexedSlices")
@pytest.mark.parametrize("name", ["adagrad", "adam", "amsgrad"])
def test_fit_is_stock_training(name):
    ids, labels = data()
    model = make_model(make_optimizer(name, 0.01))
    fit(model, ids, labels, epochs=3)
    stock = {
        "adagrad": lambda: keras.optimizers.Adagrad(0.01),
        "adam": lambda: keras.optimizers.Adam(0.01),
        "amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    }[name]()
    assert_close(model, dense_fit(stock, ids, labels, 3))


EMBEDDINGS = {
    "full": lambda: layers.FullEmbedding(ROWS, WIDTH),
    "hash": lambda: layers.HashEmbedding(ROWS, WIDTH, collisions=4),
    "qr": lambda: layers.QREmbedding(ROWS, WIDTH, collisions=7),
    "path": lambda: layers.PathEmbedding(ROWS, WIDTH, collisions=4, hidden_units=(8,)),
}


@pytest.mark.filterwarnings("ignore:Converting sparse IndexedSlices")
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_layers_train_exactly(embedding, every_table_is_read_by_rows):
    ids, labels = data()
    embedding = EMBEDDINGS[embedding]
    model = make_model(make_optimizer("amsgrad", 0.01), embedding=embedding)
    fit(model, ids, labels, epochs=3)
    stock = keras.optimizers.Adam(0.01, amsgrad=True)
    assert_close(model, dense_fit(stock, ids, labels, 3, embedding))


def test_several_steps_an_execution():
    ids, labels = data()
    plain = make_model(make_optimizer("amsgrad", 0.01))
    looped = make_model(make_optimizer("amsgrad", 0.01), steps_per_execution=3)
    for model in (plain, looped):
        fit(model, ids, labels, epochs=2)
    assert int(looped.optimizer.iterations) == 12
    np.testing.assert_allclose(table_of(looped).numpy(), table_of(plain).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_saved_models_resume(name, tmp_path):
    ids, labels = data()
    model = make_model(make_optimizer(name, 0.01))
    fit(model, ids, labels)
    model.save(tmp_path / "model.keras")
    fit(model, ids, labels)
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is type(model.optimizer)
    fit(again, ids, labels)
    np.testing.assert_array_equal(table_of(again).numpy(), table_of(model).numpy())


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_models_of_two_tables_are_saved_as_hdf5(name, tmp_path):
    inputs = keras.layers.Input((3,), dtype="int32")
    tables = [RowTable(ROWS, WIDTH, name=f"table_{i}")(inputs) for i in range(2)]
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(keras.layers.Add()(tables)))
    model = keras.Model(inputs, outputs)
    model.compile(make_optimizer(name, 0.01), keras.losses.MeanSquaredError())
    fit(model, *data(2))
    model.save(tmp_path / "model.h5")
    again = keras.models.load_model(tmp_path / "model.h5")
    for variable, expected in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected.numpy())
    if LEGACY:  # Keras 3 restores no optimiser from HDF5.
        fit(model, *data(2))
        fit(again, *data(2))
        for variable, expected in zip(again.weights, model.weights, strict=True):
            np.testing.assert_array_equal(variable.numpy(), expected.numpy())


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_state_of_tables_that_were_traced_first_is_saved_as_hdf5(tmp_path):
    """The state of a table that a graph reads is made before its optimiser is."""
    optimizer = make_optimizer("amsgrad", 0.01)
    inputs = keras.layers.Input((3,), dtype="int32")
    tables = [RowTable(ROWS, WIDTH, name=f"first_{i}")(inputs) for i in range(2)]
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(keras.layers.Add()(tables)))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, keras.losses.MeanSquaredError())
    model.predict(data()[0], verbose=0)
    fit(model, *data())
    variables = optimizer.variables
    names = [v.name for v in (variables() if callable(variables) else variables)]
    assert any("first_0" in name and "moments" in name for name in names)
    assert len(set(names)) == len(names)
    model.save(tmp_path / "model.h5")


@pytest.mark.parametrize("name", ["sgd", "rowwise_adagrad", "amsgrad", "lazy_adam"])
def test_loss_scaling(name):
    ids, labels = data()
    scaled = make_model(keras.mixed_precision.LossScaleOptimizer(make_optimizer(name, 0.01)))
    plain = make_model(make_optimizer(name, 0.01))
    for model in (scaled, plain):
        fit(model, ids, labels)
    assert np.abs(table_of(plain).numpy()).sum() > 0
    np.testing.assert_allclose(
        table_of(scaled).numpy(), table_of(plain).numpy(), rtol=1e-4, atol=1e-6
    )


def graphs(concrete):
    """The graph of a traced function and those of the functions that it calls."""
    yield concrete.graph.as_graph_def().node
    for function in concrete.graph.as_graph_def().library.function:
        yield function.node_def


def ops_of_table_shape(concrete):
    return [
        f"{op.type} {op.name}"
        for op in concrete.graph.get_operations()
        for out in op.outputs
        if out.dtype != tf.resource and out.shape.rank and out.shape[0] == ROWS
    ]


@pytest.mark.parametrize(
    ("name", "clipping"),
    [(name, {}) for name in optimizers.NAMES]
    + [("adagrad", {"clipnorm": 1.0}), ("sgd", {"global_clipnorm": 1.0})]
    + [("amsgrad", {"clipvalue": 1.0})],
)
def test_no_op_of_a_step_has_the_tables_size(name, clipping):
    model = make_model(make_optimizer(name, 0.01, **clipping), "mixed_bfloat16")

    @tf.function
    def step(ids, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(ids, training=True) - labels) ** 2)
        variables = model.trainable_variables
        grads = tape.gradient(loss, [raw(v) for v in variables])
        model.optimizer.apply_gradients(zip(grads, variables, strict=True))

    ids, labels = data(1)
    concrete = step.get_concrete_function(tf.constant(ids), tf.constant(labels))
    assert ops_of_table_shape(concrete) == []
    types = {node.op for nodes in graphs(concrete) for node in nodes}
    native = {"TfCompemb>SgdRows", "TfCompemb>AdagradRows"}
    assert types & {"ResourceScatterUpdate", *native}
    assert "ResourceScatterSub" not in types
    handle = raw(table_of(model)).handle
    inside = next(i for o, i in concrete.graph.captures if o is handle)
    assert "ReadVariableOp" not in {op.type for op in inside.consumers()}


def test_two_replicas_train_like_one():
    # In its own process: TensorFlow takes one strategy object and one device list a process.
    script = textwrap.dedent(
        """
        import numpy as np, tensorflow as tf
        cpus = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
        from test_optimizers_fit import data, fit, make_model, table_of
        from optimizer_training import make_optimizer
        from tf_compemb import optimizers
        from tf_compemb._keras import keras
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        ids, labels = data()
        for name in optimizers.NAMES:
            def optimizer():
                schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.5)
                return make_optimizer(name, schedule)
            one = make_model(optimizer())
            fit(one, ids, labels, epochs=2)
            with strategy.scope():
                two = make_model(optimizer())
            fit(two, ids, labels, epochs=2)
            table = table_of(two)
            copies = strategy.experimental_local_results(getattr(table, "_value", table))
            assert len(copies) == 2, copies
            np.testing.assert_array_equal(copies[0].numpy(), copies[1].numpy())
            off = np.abs(copies[0].numpy() - table_of(one).numpy()).max()
            assert off < 2e-5, (name, off)
            print(name, "ok")
        """
    )
    tests = Path(__file__).resolve().parent
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = [{str(tests.parent)!r}, {str(tests)!r}]" + script,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split("\n")[:-1] == [f"{n} ok" for n in optimizers.NAMES], run.stderr[-3000:]
