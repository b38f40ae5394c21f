"""Chooses Keras 3 or tf_keras, and owns every difference between the runtimes.

Under ``TF_USE_LEGACY_KERAS=1`` layers are tf_keras layers, which tensorflow-recommenders needs;
otherwise they are Keras 3 layers on the backend of the user's choice. The mathematics is written
once with ``keras.ops``, which also runs on the TensorFlow tensors inside a tf_keras layer.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tf_compemb.keras_choice import choose
from tf_compemb.other_keras import OtherKeras

# Before Keras is imported, which may be the wrong one, or load a backend that nobody asked for.
LEGACY, BACKEND = choose()

import keras as keras3  # noqa: E402
from keras import ops  # noqa: E402

if LEGACY:
    import tf_keras as keras
else:
    keras = keras3

RUNTIME = "tf_keras" if LEGACY else f"keras3-{BACKEND}"
OTHER_KERAS = OtherKeras(LEGACY)

if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax
else:
    import torch

__all__ = [
    "BACKEND",
    "LEGACY",
    "OTHER_KERAS",
    "RUNTIME",
    "Layer",
    "add_rows",
    "add_slices",
    "all_below",
    "concrete",
    "gather_rows",
    "id_dtype",
    "in_training",
    "is_compiled_by_xla",
    "is_symbolic",
    "is_tensor",
    "keras",
    "lite_ops",
    "ops",
    "raise_in_graph",
    "register",
    "reordered",
    "runs_op_by_op_on_cpu",
    "traced_as_written",
    "traced_for_lite",
    "training_phase",
]


def register(cls: type) -> type:
    """Registers a class with Keras as ``tf_compemb>Name``, so that saved models find it.

    Its objects say what to do where a model of the other Keras refuses them.
    """
    cls.__str__ = _described  # type: ignore[assignment, method-assign]
    return keras.saving.register_keras_serializable(package="tf_compemb")(cls)


def _described(thing: Any) -> str:
    return OTHER_KERAS.described(thing)


def traced_as_written(method: Any) -> Any:
    """Decorates a method that needs no AutoGraph, by which tf_keras rewrites all that it traces.

    What also runs on other runtimes has no Python ``if`` or ``for`` over tensors to rewrite, and
    tracing takes less than half the time without.
    """
    return tf.autograph.experimental.do_not_convert(method) if LEGACY else method


_check_call = traced_as_written(OTHER_KERAS.check_call)

# Bits of an id while a graph is traced for TFLite, or None.
_lite_bits: contextvars.ContextVar[int | None] = contextvars.ContextVar("lite_bits", default=None)


@contextlib.contextmanager
def lite_ops(bits: int = 64) -> Iterator[None]:
    """Within, only what TFLite has is traced: no operations on bits, no division of 64 bits.

    Args:
        bits: Of the integers in which ids are computed, 32 or 64.
    """
    token = _lite_bits.set(bits)
    try:
        yield
    finally:
        _lite_bits.reset(token)


def traced_for_lite() -> bool:
    """Whether a graph is traced for TFLite, within `lite_ops`."""
    return _lite_bits.get() is not None


_in_training: contextvars.ContextVar[bool] = contextvars.ContextVar("in_training", default=False)


@contextlib.contextmanager
def training_phase(training: Any) -> Iterator[None]:
    """Within, ``in_training()`` says what a layer's call was told."""
    token = _in_training.set(bool(training))
    try:
        yield
    finally:
        _in_training.reset(token)


def in_training() -> bool:
    """Whether vectors are looked up to train, for methods that do something else then."""
    return _in_training.get()


def id_dtype() -> str:
    """The integer type in which ids are computed: 64 bits wherever the runtime has them."""
    if _lite_bits.get() == 32:
        return "int32"
    if BACKEND == "jax" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        return "int32"
    return "int64"


class Layer(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """A Keras layer whose weights are never autocast: rows are cast after they are read.

    Keras would cast a whole table to the compute type at every step under mixed precision.
    """

    built: bool

    def __init__(self, **kwargs: Any) -> None:
        if LEGACY:
            kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        if not LEGACY:
            self.autocast = False
            # Keras 3 on a GPU would choose XLA, in which out-of-range ids cannot raise.
            self.supports_jit = BACKEND == "jax"

    def add_exact_weight(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: Any,
        dtype: str,
        trainable: bool,
        averaged: bool = False,
    ) -> Any:
        """``add_weight`` under the policy that the stored numbers are what is read.

        With ``averaged`` each replica writes its own, and what is read or saved is their mean.
        """
        special: dict[str, Any] = (
            {"experimental_autocast": False} if LEGACY else {"autocast": False}
        )
        if averaged and LEGACY:
            special["synchronization"] = tf.VariableSynchronization.ON_READ
            special["aggregation"] = tf.VariableAggregation.MEAN
        elif averaged:
            special["aggregation"] = "mean"
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype=dtype,
            trainable=trainable,
            **special,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer, in a model of its own Keras only."""
        _check_call(self, args, kwargs)
        return super().__call__(*args, **kwargs)

    def build_under_its_name(self) -> None:
        """Builds the layer for one that never calls it, with its name before its variables'.

        Keras 3 does that by itself; tf_keras does only where a layer is called.
        """
        with tf.name_scope(self.name) if LEGACY else contextlib.nullcontext():
            self.build(None)

    # Whether another layer writes this one's variables into files.
    saved_by_owner = False

    def save_own_variables(self, store: Any) -> None:
        """Writes the variables into a file."""
        if not self.saved_by_owner:
            super().save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Reads the variables from a file."""
        if not self.saved_by_owner:
            super().load_own_variables(store)


def gather_rows(variable: Any, ids: Any) -> Any:
    """Reads the rows ``ids`` of a variable without reading the whole variable.

    Under TensorFlow the kernel is ResourceGather and the gradient is IndexedSlices.
    """
    if BACKEND == "tensorflow":
        return tf.gather(variable if LEGACY else variable.value, ids)
    return ops.take(variable, ids, axis=0)


def add_slices(slices: Any, rows: Any, num_rows: Any) -> Any:
    """Sums (num_rows, width) of the TensorFlow slices (n, width) that belong to the same row.

    Computed on a CPU as the product with a sparse matrix of ones, which takes an eighth of the
    time of `tf.scatter_nd`, and that half of `tf.math.unsorted_segment_sum`'s.
    """
    if not runs_op_by_op_on_cpu():
        shape = [tf.cast(size, rows.dtype) for size in (num_rows, tf.shape(slices)[1])]
        return tf.scatter_nd(rows[:, None], slices, shape)
    return add_rows(slices, tf.range(tf.size(rows, rows.dtype)), rows, num_rows)


def add_rows(matrix: Any, sources: Any, targets: Any, num_rows: Any) -> Any:
    """Sums (num_rows, width): row `sources[k]` of a TensorFlow matrix is added to `targets[k]`.

    The product of a sparse matrix of ones with the matrix; see `runs_op_by_op_on_cpu`.
    """
    return tf.raw_ops.SparseTensorDenseMatMul(
        a_indices=tf.stack([targets, sources], axis=1),
        a_values=tf.ones(tf.shape(sources), matrix.dtype),
        a_shape=[tf.cast(size, tf.int64) for size in (num_rows, tf.shape(matrix)[0])],
        b=matrix,
    )


def runs_op_by_op_on_cpu() -> bool:
    """Whether TensorFlow computes on a CPU and without XLA, which lacks some quick ops."""
    return not (is_compiled_by_xla() or _has_gpu())


def is_compiled_by_xla() -> bool:
    """Whether TensorFlow traces a function with `jit_compile=True`."""
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False


@functools.cache
def _has_gpu() -> bool:
    return bool(tf.config.list_logical_devices("GPU"))


def reordered(x: Any, order: Sequence[int]) -> Any:
    """`x[:, order]` for a permutation, which is undone at once for the gradient."""
    if BACKEND != "tensorflow":
        return ops.take(x, np.asarray(order), axis=1)

    @tf.custom_gradient
    def reorder(values: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            return tf.gather(upstream, np.argsort(order), axis=1)

        return tf.gather(values, order, axis=1), gradient

    return reorder(x)


def is_symbolic(x: Any) -> bool:
    """Whether ``x`` is a placeholder of the functional API, with a type but no values."""
    return "KerasTensor" in type(x).__name__


def is_tensor(x: Any) -> bool:
    """Whether ``x`` is a tensor of the runtime (ragged and sparse ones included)."""
    if BACKEND == "tensorflow":
        return tf.is_tensor(x) or isinstance(x, (tf.Variable, tf.RaggedTensor, tf.SparseTensor))
    if BACKEND == "jax":
        return isinstance(x, jax.Array)
    return torch.is_tensor(x)


def concrete(x: Any) -> np.ndarray | None:
    """The values of a tensor as a NumPy array, or None while a graph is being traced."""
    if BACKEND == "tensorflow":
        return x.numpy() if tf.executing_eagerly() and hasattr(x, "numpy") else None
    if BACKEND == "jax":
        return None if isinstance(x, jax.core.Tracer) else np.asarray(x)
    if x.device.type == "meta" or torch.compiler.is_compiling():
        return None
    return x.detach().cpu().numpy()


def all_below(ids: Any, sizes: np.ndarray) -> Any:
    """Whether a TensorFlow graph's ids are in [0, size), with a size for each last index, or one.

    Without a sign a negative id is larger than any size; the largest id is found sooner than all
    are compared, and of 32 bits three times as soon as of 64.
    """
    axes = list(range(len(ids.shape) - sizes.ndim))
    if ids.dtype == tf.int64 and sizes.max() < 2**32:
        unsigned = tf.bitcast(ids, tf.uint32)  # (..., 2), in the machine's order
        low_and_high = [sizes, np.ones_like(sizes)]
        sizes = np.stack(low_and_high[:: 1 if sys.byteorder == "little" else -1], axis=-1)
    else:
        unsigned = tf.bitcast(ids, tf.uint64 if ids.dtype == tf.int64 else tf.uint32)
    largest = tf.reduce_max(unsigned, axis=axes)
    return tf.reduce_all(largest < tf.constant(sizes, unsigned.dtype))


def raise_in_graph(valid: Any, message: str, ids: Any) -> Any:
    """``ids``, with the graph made to raise ``message`` where not all of ``valid`` holds.

    Only TensorFlow's graphs can raise; under JAX the ids come back unchanged.
    """
    if BACKEND != "tensorflow":
        return ids
    check = tf.debugging.Assert(tf.reduce_all(valid), [message])
    with tf.control_dependencies([check]):
        return tf.identity(ids)
