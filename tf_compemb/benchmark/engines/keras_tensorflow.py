"""Our layers and the stock ones on TensorFlow, in Keras 3 or tf_keras; keras-rs in Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from tf_compemb.benchmark import inputs
from tf_compemb.benchmark.methods import METHODS

PACKAGES = ("tensorflow", "keras", "tf_keras", "tensorflow-recommenders", "keras-rs", "numpy")

NATIVE_KERNELS = "native kernels"


def details() -> dict[str, str]:
    """What is reported beside the versions: whether the compiled kernels are used."""
    from tf_compemb import native_kernels

    return {NATIVE_KERNELS: "used" if native_kernels.available() else "not used"}


def prepare(task: str, settings: dict[str, Any]) -> Callable[[], Any]:
    """A compiled "lookup", embedding "step" or whole DLRM "train" step of one batch.

    The settings' `method` is one of `METHODS`, "stock" (a Keras embedding for each field),
    "stock one table", "keras-rs" or "none"; `optimizer` is one of ours by name, or Keras' own
    where `stock_optimizer` is true.
    """
    from tf_compemb._keras import keras

    keras.utils.set_random_seed(0)
    layer, ids = layer_and_ids(settings)
    return {"lookup": _lookup, "step": embedding_step, "train": _train}[task](layer, ids, settings)


def _lookup(layer: Any, ids: Iterator[Any], settings: dict[str, Any]) -> Callable[[], Any]:
    import tensorflow as tf

    from tf_compemb import native_kernels

    del settings
    lookup = tf.function(layer)
    with native_kernels.in_inference():  # While it is traced.
        lookup(next(ids))
    return lambda: lookup(next(ids))


def embedding_step(layer: Any, ids: Iterator[Any], settings: dict[str, Any]) -> Callable[[], Any]:
    """Forward, gradient of the tables from a given gradient of the vectors, and update."""
    import tensorflow as tf

    vectors = layer(next(ids))
    cotangent = tf.constant(inputs.cotangent(*vectors.shape))
    optimizer = make_optimizer(settings)
    variables = layer.trainable_variables
    optimizer.build(variables)
    raw = [tensorflow_variable(v) for v in variables]

    @tf.function
    def step(ids: Any) -> None:
        with tf.GradientTape() as tape:
            vectors = layer(ids, training=True)
        gradients = tape.gradient(vectors, raw, output_gradients=cotangent)
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))

    return lambda: step(next(ids))


def _train(layer: Any, ids: Iterator[Any], settings: dict[str, Any]) -> Callable[[], Any]:
    import tensorflow as tf

    dense = cycle([tf.constant(x) for x in inputs.dense_batches(settings["batch"])])
    labels = cycle([tf.constant(x) for x in inputs.label_batches(settings["batch"])])
    model, loss_of = _model_and_loss(layer)
    loss_of(next(dense), next(ids), next(labels))
    optimizer = make_optimizer(settings)
    variables = model.trainable_variables
    optimizer.build(variables)
    raw = [tensorflow_variable(v) for v in variables]

    @tf.function
    def step(dense: Any, ids: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(dense, ids, labels)
        gradients = tape.gradient(loss, raw)
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
        return loss

    return lambda: step(next(dense), next(ids), next(labels))


def _model_and_loss(layer: Any) -> tuple[Any, Callable[[Any, Any, Any], Any]]:
    """DLRM, and its loss of a batch: in tf_keras the package's own, in Keras 3 a plain one."""
    import tensorflow as tf

    from tf_compemb._keras import LEGACY, keras

    if LEGACY:
        from tf_compemb.models import DLRM

        model = DLRM(layer)

        def loss_of(dense: Any, ids: Any, labels: Any) -> Any:
            return model.compute_loss(({"dense": dense, "categorical": ids}, labels), True)

        return model, loss_of
    from tf_compemb.benchmark.engines.plain_dlrm import plain_dlrm

    model = plain_dlrm(layer)
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    return model, lambda dense, ids, labels: tf.cast(
        cross_entropy(labels, model([dense, ids], training=True)), "float32"
    )


def layer_and_ids(settings: dict[str, Any]) -> tuple[Any, Iterator[Any]]:
    """A layer, built, and its batches of ids, one after the other without end."""
    import tensorflow as tf

    sizes = inputs.scaled_cardinalities(settings["rows"])
    layer = make_layer(settings, sizes)
    ids = cycle([tf.constant(x) for x in inputs.id_batches(sizes, settings["batch"])])
    layer(next(ids))
    return layer, ids


def make_layer(settings: dict[str, Any], sizes: list[int]) -> Any:
    """A layer from ids (batch, fields) to vectors (batch, fields, dim)."""
    method, dim = settings["method"], settings["dim"]
    if "divisor" in settings:
        from tf_compemb.benchmark.engines.budgeted_layer import budgeted_layer

        return budgeted_layer(method, sizes, dim, settings["divisor"])
    if method in METHODS:
        from tf_compemb import EmbeddingCollection

        name, options = METHODS[method]
        return EmbeddingCollection(sizes, dim, name, options=options)
    from tf_compemb.benchmark.engines import bare_path, other_layers
    from tf_compemb.benchmark.engines.bare_quotient_remainder import bare_quotient_remainder

    makers = {
        "stock": other_layers.stock_tables,
        "stock one table": other_layers.stock_one_table,
        "keras-rs": other_layers.keras_rs_tables,
        "none": other_layers.no_tables,
        "bare quotient-remainder": bare_quotient_remainder,
        "bare path, fused": bare_path.fused_path,
        "bare path, partitioned": bare_path.partitioned_path,
    }
    return makers[method](sizes, dim, settings["batch"])


def make_optimizer(settings: dict[str, Any]) -> Any:
    """One of our optimisers by name, or Keras' own of the same rule."""
    name = settings["optimizer"]
    if not settings.get("stock_optimizer"):
        from tf_compemb import optimizers

        return optimizers.get(name)
    from tf_compemb._keras import keras

    rules = {
        "sgd": lambda: keras.optimizers.SGD(0.1),
        "adagrad": lambda: keras.optimizers.Adagrad(0.02),
        "amsgrad": lambda: keras.optimizers.Adam(amsgrad=True),
    }
    return rules[name]()


def tensorflow_variable(variable: Any) -> Any:
    """The `tf.Variable` of a Keras variable, whose gradient may be sparse."""
    from tf_compemb._keras import LEGACY

    return variable if LEGACY else variable.value
