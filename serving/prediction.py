"""Predict: a signature run on the tensors of a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow_serving.apis import predict_pb2

from tf_compemb.native_session import NativeError, Signature
from tf_compemb.serving.servable import Servable
from tf_compemb.serving.status_codes import invalid_argument
from tf_compemb.serving.tensor_protos import array_of, fill_proto


def predict(servable: Servable, request: Any, largest_bytes: int) -> Any:
    """Answers a `PredictRequest`.

    Args:
        servable: The version to run.
        request: The message.
        largest_bytes: Bytes that an input may take.

    Returns:
        A `PredictResponse`.

    Raises:
        NativeError: What TensorFlow Serving would say.
    """
    name, signature = servable.signature(request.model_spec.signature_name)
    outputs = _wanted_outputs(signature, request.output_filter)
    check_inputs(signature, request.inputs)
    arrays = {
        key: array_of(request.inputs[key], key, largest_bytes) for key in sorted(request.inputs)
    }
    response = predict_pb2.PredictResponse()
    fill_model_spec(response.model_spec, servable, name)
    for key, array in run(servable, name, signature, arrays, outputs).items():
        fill_proto(response.outputs[key], array, signature.outputs[key].dtype_number)
    return response


def run(
    servable: Servable,
    name: str,
    signature: Signature,
    arrays: Mapping[str, np.ndarray],
    outputs: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Runs a signature on arrays.

    Raises:
        NativeError: INVALID_ARGUMENT: an array has another shape than the signature says; otherwise
            what TensorFlow says.
    """
    for key, array in arrays.items():
        _check_shape(name, key, array.shape, signature.inputs[key].shape)
    try:
        return servable.run(name, arrays, list(signature.outputs) if outputs is None else outputs)
    except NativeError as error:
        if error.code_name == "INVALID_ARGUMENT":
            _check_rows(name, signature, arrays)
        raise


def fill_model_spec(spec: Any, servable: Servable, signature_name: str) -> None:
    """Says in a response which version answered."""
    spec.name = servable.name
    spec.signature_name = signature_name
    spec.version.value = servable.version


def check_inputs(signature: Signature, given: Iterable[str]) -> None:
    """Makes sure that a request has exactly the inputs of the signature.

    Raises:
        NativeError: INVALID_ARGUMENT.
    """
    sent, known = set(given), set(signature.inputs)
    if len(sent) != len(known):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(known)} "
            f"len({_set(sent)}) != len({_set(known)}). Sent extra: {_set(sent - known)}. "
            f"Missing but required: {_set(known - sent)}."
        )
    for name in sorted(known - sent):
        raise invalid_argument(
            f"Signature input alias: {name}(feed name: {signature.inputs[name].name}) not found in "
            f"request and no default value provided. Inputs sent: {_set(sent)}."
        )


def _check_shape(
    signature_name: str,
    name: str,
    given: tuple[int, ...],
    declared: tuple[int | None, ...] | None,
) -> None:
    if declared is None:
        return
    fits = len(given) == len(declared) and all(
        size in (None, length) for length, size in zip(given, declared, strict=True)
    )
    if not fits:
        takes = ", ".join("?" if size is None else str(size) for size in declared)
        free = ", where ? is any size" if None in declared else ""
        scalar = "" if given else " (a single value)"
        raise invalid_argument(
            f"Input {name} of signature {signature_name} takes shape [{takes}]{free}; received "
            f"{list(given)}{scalar}"
        )


def _check_rows(
    signature_name: str, signature: Signature, arrays: Mapping[str, np.ndarray]
) -> None:
    """Says of a run that failed that its inputs are of different numbers of rows, if they are.

    Only then, because a signature may take inputs of different sizes.
    """
    free = [key for key, info in signature.inputs.items() if info.shape and info.shape[0] is None]
    rows = {key: len(arrays[key]) for key in sorted(free) if key in arrays}
    if len(set(rows.values())) > 1:
        received = ", ".join(f"{key} {number}" for key, number in rows.items())
        raise invalid_argument(
            f"The inputs of signature {signature_name} have different numbers of rows: {received}"
        )


def _wanted_outputs(signature: Signature, chosen: Sequence[str]) -> list[str]:
    for name in chosen:
        if name not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the "
                f"set {_set(signature.outputs)}."
            )
        if list(chosen).count(name) > 1:
            raise invalid_argument(f"duplicate output tensor alias: {name}")
    return list(chosen) or list(signature.outputs)


def _set(names: Iterable[str]) -> str:
    shown = sorted(names)
    more = ",..." if len(shown) > 20 else ""
    return "{" + ",".join(name[:100] for name in shown[:20]) + more + "}"
