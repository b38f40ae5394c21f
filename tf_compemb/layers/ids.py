"""Ids on their way into a layer: types, ranges, and what a wrong one does.

The rule, on every runtime: a wrong id raises where the runtime can raise. Eagerly that is a
`TypeError` or `ValueError`; inside a TensorFlow graph an `InvalidArgumentError`, on CPU and GPU
alike. Code compiled by XLA cannot raise: under JAX's `jit` the vector of a wrong id is NaN, so that
it is seen and never mistaken for another id's vector.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from tf_compemb._keras import (
    BACKEND,
    all_below,
    concrete,
    id_dtype,
    is_symbolic,
    is_tensor,
    ops,
    raise_in_graph,
    runs_op_by_op_on_cpu,
    traced_for_lite,
)

# The largest integer up to which every integer is exact in the floating type.
_EXACT_UP_TO = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**24, "float64": 2**53}


def check_id_space(input_dim: int) -> None:
    """Raises if the runtime's integers cannot hold the ids.

    Raises:
        ValueError: There are more than 2**31 ids, and JAX runs without 64-bit integers.
    """
    if input_dim > 2**31 and id_dtype() == "int32":
        raise ValueError(
            f"input_dim={input_dim} needs 64-bit ids, which JAX cuts to 32 bits by default. "
            'Set JAX_ENABLE_X64=1, or jax.config.update("jax_enable_x64", True), before use.'
        )


def type_name(x: Any) -> str:
    """The element type of a tensor, array, placeholder, list or number, as NumPy names it.

    Of Python objects it is what they are: "string", "None", or "Python objects (Decimal)".
    """
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    dtype = x.dtype
    name = str(getattr(dtype, "name", dtype)).split(".")[-1]
    if name == "object":
        return _object_name(np.asarray(x))
    return "string" if name.startswith(("str", "bytes")) else name


def _object_name(array: np.ndarray) -> str:
    kinds = {type(item) for item in array.flat}
    if kinds and all(issubclass(kind, (str, bytes)) for kind in kinds):
        return "string"
    if type(None) in kinds:
        return "None"
    return f"Python objects ({', '.join(sorted(kind.__name__ for kind in kinds)) or 'none'})"


def to_id_tensor(inputs: Any, input_dim: int, layer_name: str) -> Any:
    """NumPy arrays, lists and numbers as an id tensor; tensors and placeholders unchanged.

    Raises:
        TypeError: The ids are not integers.
        ValueError: An id needs more bits than the runtime has, or the ids have no dense form.
    """
    if is_symbolic(inputs):
        return inputs
    if is_tensor(inputs):
        _check_dense(inputs, layer_name)
        return inputs
    array = _as_array(inputs, layer_name)
    if array.size == 0 and not isinstance(inputs, np.ndarray):
        array = array.astype("int64")
    _check_64_bits(array, f"{layer_name}: ids must be in [0, {input_dim}).")
    check_integer_type(type_name(array), layer_name)
    if array.size and id_dtype() == "int32" and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise ValueError(
            f"{layer_name}: id {_first_outside(array, 0, input_dim)} needs 64 bits, which JAX cuts "
            f"to 32 by default, and ids are in [0, {input_dim}). Set JAX_ENABLE_X64=1 for more."
        )
    return ops.convert_to_tensor(array.astype("int64"), dtype=id_dtype())


def _as_array(inputs: Any, layer_name: str) -> np.ndarray:
    try:
        array = np.asarray(inputs)
    except ValueError as error:
        raise ValueError(
            f"{layer_name}: the ids are lists of different lengths. Pad them and use "
            "mask_zero=True, or on TensorFlow make a tf.RaggedTensor (tf.ragged.constant)."
        ) from error
    alone = inputs is None or isinstance(inputs, numbers.Number)
    if array.dtype == object and not alone and type(inputs) in {type(x) for x in array.flat}:
        raise TypeError(
            f"{layer_name}: ids must be a tensor, an array or a list of integers. "
            f"Received: {type(inputs).__name__}"
        )
    return array


def _check_dense(ids: Any, layer_name: str) -> None:
    """Raises if a torch tensor has a form that Keras' operations do not take."""
    if BACKEND == "torch" and (ids.is_nested or str(ids.layout) != "torch.strided"):
        raise ValueError(
            f"{layer_name}: sparse and nested ids need the TensorFlow backend. Pad them and use "
            "mask_zero=True."
        )


def _check_64_bits(array: np.ndarray, message: str) -> None:
    """Raises if an integer, of NumPy or of Python, needs more bits than any runtime has."""
    numbers = [array.min(), array.max()] if array.dtype.kind == "u" and array.size else []
    if array.dtype == object and {type(item) for item in array.flat} == {int}:
        numbers = [min(array.flat), max(array.flat)]
    for number in numbers:
        if not -(2**63) <= int(number) < 2**63:
            raise ValueError(f"{message} Received: {int(number)}")


def check_integer_type(name: str, layer_name: str) -> None:
    """Raises if a type is not one of integers.

    Raises:
        TypeError: The message says what to do instead.
    """
    if name.startswith(("int", "uint")):
        return
    if name == "string":
        raise TypeError(
            f"{layer_name}: ids must be integers, not strings. Map strings to integers first, "
            "with keras.layers.StringLookup or keras.layers.Hashing."
        )
    if name == "None":
        raise TypeError(
            f"{layer_name}: ids must be integers, not None. Give a missing category an id of its "
            "own."
        )
    raise TypeError(
        f"{layer_name}: ids must be integers, not {name}. Cast them, for example with "
        "`ids.astype('int64')`, or declare the input with dtype='int64'."
    )


def check_placeholder(inputs: Any, input_dim: int, layer_name: str) -> bool:
    """Whether a placeholder of the functional API brings integer ids in a floating type.

    `keras.Sequential` without an `Input` gives its first layer a placeholder of the compute type.
    That is harmless while the type counts exactly up to `input_dim`.

    Raises:
        TypeError: The ids would not be exact.
    """
    name = type_name(inputs)
    if name.startswith(("int", "uint")):
        return False
    if input_dim <= _EXACT_UP_TO.get(name, 0):
        return True
    if name not in _EXACT_UP_TO:
        check_integer_type(name, layer_name)
    raise TypeError(
        f"{layer_name}: this model's input has type {name}, which cannot tell ids above "
        f"{_EXACT_UP_TO[name]} apart, and input_dim={input_dim}. Begin the model with "
        "keras.Input(shape=..., dtype='int64')."
    )


def checked_ids(ids: Any, input_dim: Any, message: str) -> tuple[Any, Any]:
    """Ids in the runtime's id type, in range.

    Args:
        ids: Dense tensor of ids.
        input_dim: Number of ids; an array that broadcasts against `ids` gives each its own.
        message: What to say of ids outside the range.

    Returns:
        The ids, and None; under JAX's tracing the ids with wrong ones set to 0, and a mask that is
        True where the id is right.

    Raises:
        ValueError: An id is out of range, and the values are known.
    """
    values = concrete(ids)
    if values is not None:
        _raise_outside(values, input_dim, message)
        return ops.cast(ids, id_dtype()), None
    numbers = ops.cast(ids, id_dtype())
    if BACKEND == "tensorflow" and runs_op_by_op_on_cpu() and not traced_for_lite():
        valid = all_below(numbers, np.asarray(input_dim))
        if "float" in type_name(ids):
            valid = ops.logical_and(valid, ops.all(ops.cast(numbers, ids.dtype) == ids))
        return raise_in_graph(valid, message, numbers), None
    # Not `<`, which torch lacks between a tensor without values and an array.
    below = ops.less(numbers, np.asarray(input_dim, dtype=id_dtype()))
    valid = ops.logical_and(numbers >= 0, below)
    if "float" in type_name(ids):
        valid = ops.logical_and(valid, ops.cast(numbers, ids.dtype) == ids)
    if BACKEND == "tensorflow":
        return raise_in_graph(valid, message, numbers), None
    return ops.where(valid, numbers, 0), valid


def poison(vectors: Any, valid: Any) -> Any:
    """Vectors with NaN in place of those whose id was wrong."""
    if valid is None:
        return vectors
    valid = ops.reshape(valid, (*valid.shape, *([1] * (len(vectors.shape) - len(valid.shape)))))
    return ops.where(valid, vectors, ops.cast(float("nan"), vectors.dtype))


def _raise_outside(values: np.ndarray, input_dim: Any, message: str) -> None:
    if values.size == 0:
        return
    if values.dtype.kind == "f":
        if not np.array_equal(values, np.floor(values)):
            raise ValueError(f"{message} Received a fraction.")
        values = values.astype("int64")
    wrong = (values < 0) | (values >= input_dim)
    if wrong.any():
        raise ValueError(f"{message} Received: {int(values[wrong].flat[0])}")


def _first_outside(array: np.ndarray, low: int, high: int) -> int:
    return int(array[(array < low) | (array >= high)].flat[0])
