"""Tensors in the REST API's JSON: rows (`instances`) or columns (`inputs`), strings also as b64."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np

from tf_compemb._tensorflow_c import STRING
from tf_compemb.native_session import Signature, TensorInfo
from tf_compemb.serving.json_requests import bytes_of_b64, check_size, is_b64, kind_of
from tf_compemb.serving.status_codes import invalid_argument, unimplemented

_LARGEST_RANK = 32


def arrays_of(request: Mapping[str, Any], signature: Signature) -> tuple[dict[str, Any], bool]:
    """The input arrays of a predict request.

    Returns:
        The arrays by name; and whether the request is in row format.

    Raises:
        NativeError: INVALID_ARGUMENT: not exactly one of `instances` and `inputs`, missing or
            (in rows) unknown inputs, ragged lists, or values that are not of an input's dtype.
    """
    if ("instances" in request) == ("inputs" in request):
        fault = "both" if "inputs" in request else "none"
        raise invalid_argument(
            f"Expecting exactly one of 'instances' and 'inputs' in the request. Received: {fault}"
        )
    if "inputs" in request:
        columns = _columns(request["inputs"], signature)
        return {name: _array(name, columns[name], signature) for name in signature.inputs}, False
    rows = request["instances"]
    if not isinstance(rows, list) or not rows:
        raise invalid_argument("Expecting 'instances' to be a list with at least one element")
    columns = _columns_of_rows(rows, signature)
    return {name: _array(name, columns[name], signature) for name in signature.inputs}, True


def _columns(value: Any, signature: Signature) -> dict[str, Any]:
    if not isinstance(value, dict) or (is_b64(value) and "b64" not in signature.inputs):
        return {_sole_input(signature): value}
    for name in signature.inputs:
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return value


def _columns_of_rows(rows: list[Any], signature: Signature) -> dict[str, Any]:
    named = isinstance(rows[0], dict) and not (is_b64(rows[0]) and "b64" not in signature.inputs)
    if not named:
        return {_sole_input(signature): rows}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != signature.inputs.keys():
            keys = sorted(row) if isinstance(row, dict) else kind_of(row)
            raise invalid_argument(
                f"Failed to process element: {number} of 'instances' list. Its keys must be equal: "
                f"{', '.join(signature.inputs)}. Received: {str(keys)[:200]}"
            )
    return {name: [row[name] for row in rows] for name in signature.inputs}


def _sole_input(signature: Signature) -> str:
    if len(signature.inputs) != 1:
        raise invalid_argument(
            f"A signature with {len(signature.inputs)} inputs takes an object with all of them: "
            f"{', '.join(signature.inputs)}"
        )
    return next(iter(signature.inputs))


def _array(name: str, value: Any, signature: Signature) -> np.ndarray:
    info = signature.inputs[name]
    shape, values = _flattened(name, value)
    if info.dtype_number == STRING:
        strings = [_bytes_of(name, element) for element in values]
        return np.array([*strings, None], object)[:-1].reshape(shape)
    allowed = _python_types(info)
    for kind in set(map(type, values)):
        if kind not in allowed:
            wrong = next(element for element in values if type(element) is kind)
            raise invalid_argument(
                f"JSON Value: {str(wrong)[:100]} Type: {kind_of(wrong)} is not of expected type: "
                f"{info.dtype} (input {name})"
            )
    if float in allowed:
        return _floats(values, info.numpy_dtype).reshape(shape)
    try:
        return np.array(values, info.numpy_dtype).reshape(shape)
    except (OverflowError, ValueError):
        held = ml_dtypes.iinfo(info.numpy_dtype)
        wrong = next(number for number in values if not held.min <= number <= held.max)
        raise invalid_argument(
            f"Input {name} is not {info.dtype}: {str(wrong)[:100]} is out of range"
        ) from None


def _floats(values: list[Any], dtype: np.dtype) -> np.ndarray:
    """The nearest numbers of a dtype, which may be infinite ones."""
    try:
        doubles = np.array(values, np.float64)
        infinite = np.flatnonzero(np.isinf(doubles))
    except OverflowError:
        infinite = np.arange(len(values))
    for position in infinite:
        check_size(values[position])
    with np.errstate(over="ignore"):
        return doubles.astype(dtype)


def _flattened(name: str, value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and values of nested lists, level by level."""
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        length = len(level[0])
        if not all(isinstance(part, list) and len(part) == length for part in level):
            raise invalid_argument(
                f"Input {name}: encountered lists of different lengths at level {len(shape)}"
            )
        shape.append(length)
        if len(shape) > _LARGEST_RANK:
            raise invalid_argument(f"Input {name} has more than {_LARGEST_RANK} levels of lists")
        level = list(chain.from_iterable(level))
    if any(isinstance(element, list) for element in level):
        raise invalid_argument(f"Input {name}: encountered list at unexpected level: {len(shape)}")
    return tuple(shape), level


def _python_types(info: TensorInfo) -> set[type]:
    kind = info.numpy_dtype.kind
    if kind == "b":
        return {bool}
    if kind in "iu" or info.dtype in ("int4", "uint4"):
        return {int}
    if kind == "c":
        raise unimplemented(f"{info.dtype} inputs have no JSON form")
    return {int, float}


def _bytes_of(name: str, element: Any) -> bytes:
    if isinstance(element, str):
        try:
            return element.encode()
        except UnicodeEncodeError as error:
            raise invalid_argument(f"Input {name} has text that is no Unicode: {error}") from None
    if is_b64(element):
        try:
            return bytes_of_b64(element)
        except ValueError as error:
            raise invalid_argument(f"Input {name}: {error}") from None
    raise invalid_argument(
        f"JSON Value: {str(element)[:100]} Type: {kind_of(element)} is not of expected type: "
        f"string (input {name})"
    )


def response_body(outputs: Mapping[str, np.ndarray], in_rows: bool) -> bytes:
    """The JSON of a predict response.

    Args:
        outputs: The arrays by name. Strings are b64 where the name ends in `_bytes` or the bytes
            are no text; a sole output stands without its name.
        in_rows: Whether the request was in row format.

    Raises:
        NativeError: INVALID_ARGUMENT: in row format, an output without rows or with another number
            of them than the first output.
    """
    values = {name: _json_values(name, array) for name, array in outputs.items()}
    sole = next(iter(values.values())) if len(values) == 1 else None
    if not in_rows:
        return _dump({"outputs": values if sole is None else sole})
    _check_rows(outputs)
    if sole is not None:
        return _dump({"predictions": sole})
    return _dump(
        {
            "predictions": [
                dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)
            ]
        }
    )


def _check_rows(outputs: Mapping[str, np.ndarray]) -> None:
    rows = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information")
        if not len(array):
            raise invalid_argument(f"Tensor name: {name} has invalid batch size: 0")
        if rows not in (None, len(array)):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}"
            )
        rows = len(array)


def _json_values(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        as_b64 = name.endswith("_bytes")
        flat = np.empty(array.size, object)
        flat[:] = [_text_or_b64(value, as_b64) for value in array.ravel().tolist()]
        return flat.reshape(array.shape).tolist()
    if array.dtype.kind == "c":
        raise unimplemented(f"Output {name} is {array.dtype.name}, which has no JSON form")
    if array.dtype.kind == "V":  # The types that are not NumPy's own, such as bfloat16.
        array = array.astype(np.int8 if "int" in array.dtype.name else np.float32)
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        # By way of the shortest text: 0.2, and not 0.20000000298023224.
        array = array.astype("U").astype(np.float64)
    return array.tolist()


def _text_or_b64(value: bytes, as_b64: bool) -> Any:
    if not as_b64:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(value).decode()}


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()
