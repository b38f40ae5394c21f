"""TensorFlow Serving's messages, as far as a client needs them, without importing TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb._protobuf import declare, declare_map, message_classes, new_file
from tf_compemb._tensorflow_c import STRING, dtype_number, encoded_strings

# `ModelVersionStatus.State`.
_STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}


def _messages() -> dict[str, Any]:
    file = new_file("client")
    declare(file, "Dim", size=(1, "int64"))
    declare(file, "TensorShapeProto", dim=(2, "*Dim"), unknown_rank=(3, "bool"))
    declare(
        file,
        "TensorProto",
        dtype=(1, "int32"),
        tensor_shape=(2, "TensorShapeProto"),
        tensor_content=(4, "bytes"),
        float_val=(5, "*float"),
        double_val=(6, "*double"),
        int_val=(7, "*int32"),
        string_val=(8, "*bytes"),
        scomplex_val=(9, "*float"),
        int64_val=(10, "*int64"),
        bool_val=(11, "*bool"),
        dcomplex_val=(12, "*double"),
        half_val=(13, "*int32"),
        uint32_val=(16, "*uint32"),
        uint64_val=(17, "*uint64"),
        float8_val=(18, "bytes"),
    )
    declare(file, "Int64Value", value=(1, "int64"))
    declare(
        file,
        "ModelSpec",
        name=(1, "string"),
        version=(2, "Int64Value"),
        signature_name=(3, "string"),
    )
    request = declare(file, "PredictRequest", model_spec=(1, "ModelSpec"))
    declare_map(request, "inputs", 2, "TensorProto")
    declare_map(declare(file, "PredictResponse"), "outputs", 1, "TensorProto")
    declare(file, "GetModelStatusRequest", model_spec=(1, "ModelSpec"))
    declare(file, "ModelVersionStatus", version=(1, "int64"), state=(2, "int32"))
    declare(file, "GetModelStatusResponse", model_version_status=(1, "*ModelVersionStatus"))
    return message_classes(file)


MESSAGES = _messages()


def fill_tensor(proto: Any, value: Any) -> None:
    """Writes what NumPy makes an array of into an empty `TensorProto`.

    Python's own numbers become int64 and float32, the types of ids and features.

    Raises:
        NativeError: INVALID_ARGUMENT: TensorFlow has no such type.
    """
    array = np.asarray(value)
    if array.dtype == np.float64 and not hasattr(value, "dtype"):
        array = array.astype(np.float32)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    proto.dtype = dtype_number(array, STRING)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if proto.dtype == STRING:
        proto.string_val.extend(encoded_strings(array))
    else:
        proto.tensor_content = array.tobytes()


def state_name(number: int) -> str:
    """The name of a `ModelVersionStatus.State`."""
    return _STATES.get(number, "UNKNOWN")
