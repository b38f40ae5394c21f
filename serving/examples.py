"""Classify and Regress: signatures that take serialized `tf.Example`s."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow_serving.apis import classification_pb2, regression_pb2

from tf_compemb._tensorflow_c import STRING
from tf_compemb.native_session import NativeError, Signature
from tf_compemb.serving.prediction import fill_model_spec, run
from tf_compemb.serving.servable import Servable
from tf_compemb.serving.status_codes import failed_precondition, invalid_argument

_INPUTS = "inputs"


def classify(servable: Servable, request: Any) -> Any:
    """Answers a `ClassificationRequest`.

    Returns:
        A `ClassificationResponse`: for each example its classes with their scores.

    Raises:
        NativeError: No examples, no such signature, or one without a sole input `inputs` and
            outputs `classes` [rows, classes] (string) or `scores` [rows, classes] (float32).
    """
    name, signature = _signature(servable, request, "classification")
    if len(signature.outputs) > 2:
        raise invalid_argument(
            f"Expected one or two output Tensors, found {len(signature.outputs)}. {_has(signature)}"
        )
    found = sorted({"classes", "scores"} & set(signature.outputs))
    if not found:
        raise failed_precondition(
            "Expected classification signature outputs to contain classes or scores. "
            + _has(signature)
        )
    examples = _serialized(request.input)
    results = run(servable, name, signature, {_INPUTS: examples}, found)
    for key, array in results.items():
        _check_output(key, array, len(examples), np.object_ if key == "classes" else np.float32)
    response = classification_pb2.ClassificationResponse()
    fill_model_spec(response.model_spec, servable, name)
    some = next(iter(results.values()))
    classes = results.get("classes", np.full(some.shape, b"", object))
    scores = results.get("scores", np.zeros(some.shape, np.float32))
    if classes.shape != scores.shape:
        raise invalid_argument(
            f"Tensors class and score should match in shape. Received: {classes.shape}, "
            f"{scores.shape}"
        )
    for labels, values in zip(classes.tolist(), scores.tolist(), strict=True):
        row = response.result.classifications.add()
        for label, value in zip(labels, values, strict=True):
            row.classes.add(label=label.decode("utf-8", "replace"), score=value)
    return response


def regress(servable: Servable, request: Any) -> Any:
    """Answers a `RegressionRequest`.

    Returns:
        A `RegressionResponse`: a value for each example.

    Raises:
        NativeError: No examples, no such signature, or one without a sole input `inputs` and a sole
            output `outputs` [rows] or [rows, 1] (float32).
    """
    name, signature = _signature(servable, request, "regression")
    if len(signature.outputs) != 1:
        raise invalid_argument(f"Expected one output Tensor. {_has(signature)}")
    if "outputs" not in signature.outputs:
        raise failed_precondition(
            f"No regression outputs found in SignatureDef: expected outputs. {_has(signature)}"
        )
    examples = _serialized(request.input)
    (values,) = run(servable, name, signature, {_INPUTS: examples}).values()
    if values.ndim == 1:
        values = values[:, None]
    _check_output("outputs", values, len(examples), np.float32)
    if values.shape[1] != 1:
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{list(values.shape)}"
        )
    response = regression_pb2.RegressionResponse()
    fill_model_spec(response.model_spec, servable, name)
    for value in values[:, 0].tolist():
        response.result.regressions.add(value=value)
    return response


def _signature(servable: Servable, request: Any, kind: str) -> tuple[str, Signature]:
    name = request.model_spec.signature_name or "serving_default"
    try:
        _, signature = servable.signature(name)
    except NativeError:
        raise invalid_argument(f"No signature was found with the name: {name}") from None
    if len(signature.inputs) != 1:
        raise invalid_argument(f"Expected one input Tensor. {_has(signature)}")
    if _INPUTS not in signature.inputs:
        raise failed_precondition(
            f"No {kind} inputs found in SignatureDef: expected one input, {_INPUTS}, of serialized "
            f"tf.Examples. {_has(signature)}"
        )
    info = signature.inputs[_INPUTS]
    if info.dtype_number != STRING:
        raise invalid_argument(
            f"Input {_INPUTS} is {info.dtype}; serialized tf.Examples are strings"
        )
    return name, signature


def _has(signature: Signature) -> str:
    return (
        f"The signature has inputs: {', '.join(signature.inputs)}; outputs: "
        f"{', '.join(signature.outputs)}"
    )


def _check_output(name: str, array: np.ndarray, rows: int, dtype: Any) -> None:
    if array.dtype != dtype:
        wanted = "DT_STRING" if dtype is np.object_ else "DT_FLOAT"
        raise invalid_argument(f"Expected {name} Tensor of {wanted}. Got: {array.dtype.name}")
    if array.ndim != 2 or len(array) != rows:
        raise invalid_argument(
            f"Expected {name} Tensor shape [{rows}, n]. Got: {list(array.shape)}"
        )


def _serialized(given: Any) -> np.ndarray:
    kind = given.WhichOneof("kind")
    if kind == "example_list_with_context":
        rows = []
        for example in given.example_list_with_context.examples:
            row = type(example)()
            row.CopyFrom(given.example_list_with_context.context)
            row.MergeFrom(example)
            rows.append(row.SerializeToString())
    else:
        rows = [example.SerializeToString() for example in given.example_list.examples]
    if not rows:
        raise invalid_argument("Input is empty")
    return np.array([*rows, None], object)[:-1]
