"""What the tests need of the runtime under test: NumPy values, gradients, compiled calls."""

import os
import subprocess
import sys
from pathlib import Path

import keras as keras3
import numpy as np

from tf_compemb._keras import BACKEND, LEGACY, id_dtype, ops

if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax
    import jax.numpy as jnp


def to_numpy(x) -> np.ndarray:
    if BACKEND == "torch" and hasattr(x, "detach"):
        x = x.detach().cpu()
    return np.asarray(x)


def ids_of(values):
    return ops.convert_to_tensor(np.asarray(values), dtype=id_dtype())


def dtype_name(x) -> str:
    return keras3.backend.standardize_dtype(x.dtype)


def weights_by_name(layer) -> dict[str, np.ndarray]:
    """Each variable's values under the name that the layer gave it."""
    return {w.name.split("/")[-1].split(":")[0]: to_numpy(w) for w in layer.weights}


def randomize(layer, seed=0) -> None:
    """Gives every trained weight random values: an initialiser of ones hides a wrong index."""
    rng = np.random.default_rng(seed)
    for w in layer.trainable_weights:
        w.assign(rng.normal(size=tuple(w.shape)).astype("float32"))


def gradients(layer, ids, cotangent) -> dict[str, np.ndarray]:
    """Gradient of sum(cotangent * layer(ids)) for every trained weight, by name, dense."""
    ids = ids_of(ids)
    variables = layer.trainable_weights
    if BACKEND == "tensorflow":
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids) * cotangent)
        raw = [v if LEGACY else v.value for v in variables]
        values = [tf.convert_to_tensor(g) for g in tape.gradient(loss, raw)]
    elif BACKEND == "jax":

        def loss_of(trained):
            out, _ = layer.stateless_call(
                trained, [v.value for v in layer.non_trainable_variables], ids
            )
            return jnp.sum(out * cotangent)

        values = jax.grad(loss_of)([v.value for v in variables])
    else:
        for v in variables:
            v.value.grad = None
        (layer(ids) * ops.convert_to_tensor(cotangent)).sum().backward()
        values = [v.value.grad for v in variables]
    names = [v.name.split("/")[-1].split(":")[0] for v in variables]
    return {n: to_numpy(g) for n, g in zip(names, values, strict=True)}


def compiled(layer):
    """The layer as the runtime compiles it in `fit`: a graph, a jitted function, or itself."""
    if BACKEND == "tensorflow":
        return tf.function(layer)
    if BACKEND == "jax":

        @jax.jit
        def call(trained, untrained, ids):
            return layer.stateless_call(trained, untrained, ids)[0]

        return lambda ids: call(
            [v.value for v in layer.trainable_variables],
            [v.value for v in layer.non_trainable_variables],
            ids,
        )
    return layer


def ops_reading(layer, tables, ids_shape) -> dict[str, set[str]]:
    """Types of the ops that touch each table in a traced training step of a layer (TensorFlow).

    Args:
        layer: A built layer of ids.
        tables: Variables by name.
        ids_shape: Shape of the ids of a step.
    """
    handles = {(v if LEGACY else v.value).handle.ref(): name for name, v in tables.items()}
    trained = [v if LEGACY else v.value for v in layer.trainable_weights]

    @tf.function
    def step(ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(ids), "float32"))
        return tape.gradient(loss, trained)

    graph = step.get_concrete_function(tf.TensorSpec(ids_shape, "int64")).graph
    captured = {
        inner.name.split(":")[0]: handles[outer.ref()]
        for outer, inner in graph.captures
        if outer.ref() in handles
    }
    found = {name: set() for name in captured.values()}
    for op in graph.get_operations():
        for name in {captured[i.op.name] for i in op.inputs if i.op.name in captured}:
            found[name].add(op.type)
    return found


def types_of_ops(function, *args) -> set[str]:
    """The types of all ops of a traced `tf.function`, those of inner functions included."""
    definition = function.get_concrete_function(*args).graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return {node.op for node in nodes}


def saved_graphs(model, folder) -> bytes:
    """The graphs of a Keras model as a SavedModel, which `folder` then holds."""
    if LEGACY:
        model.save(folder, save_format="tf")
    else:
        model.export(folder, verbose=False)
    return (folder / "saved_model.pb").read_bytes()


def printed_with_threads(count, script) -> str:
    """What a Python script, which may import tests, prints where ops have `count` threads."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            "TF_NUM_INTRAOP_THREADS": str(count),
            "PYTHONPATH": os.pathsep.join(["tests", "."]),
        },
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def traced_gradients(layer, ids, weights=None):
    """Gradients of the sum of a layer's vectors, compiled as in `fit`, of its first variable and of
    the weights of bags: dense arrays, the second flat, or None without weights."""
    variable = layer.trainable_weights[0]
    if BACKEND == "tensorflow":
        raw = variable if LEGACY else variable.value
        flat = getattr(weights, "values", weights)

        @tf.function
        def both(flat):
            given = (
                flat
                if weights is None or isinstance(weights, tf.Tensor)
                else weights.with_values(flat)
            )
            with tf.GradientTape() as tape:
                if flat is not None:
                    tape.watch(flat)
                loss = tf.reduce_sum(tf.cast(layer(ids, weights=given), "float32"))
            found = tape.gradient(loss, [raw] if flat is None else [raw, flat])
            return [tf.convert_to_tensor(g) for g in found]

        found = both(flat)
    elif BACKEND == "jax":

        def loss_of(trained, shares):
            untrained = [v.value for v in layer.non_trainable_variables]
            out, _ = layer.stateless_call(trained, untrained, ids, weights=shares)
            return jnp.sum(out.astype("float32"))

        trained = [v.value for v in layer.trainable_variables]
        arguments = (0,) if weights is None else (0, 1)
        found = jax.jit(jax.grad(loss_of, arguments))(trained, weights)
        found = [found[0][0], *found[1:]]
    else:
        variable.value.grad = None
        shares = None if weights is None else weights.detach().clone().requires_grad_()
        ops.cast(layer(ids, weights=shares), "float32").sum().backward()
        found = [variable.value.grad, *([] if shares is None else [shares.grad])]
    table, *shares = map(to_numpy, found)
    return table, shares[0].ravel() if shares else None
