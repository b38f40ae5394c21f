"""Warm-up records: requests that TF-Serving replays before it calls a version available."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_compemb._tensorflow_c import varint

FILE = "assets.extra/tf_serving_warmup_requests"


def write_warmup(
    folder: Path, model_name: str, requests: list[tuple[str, Mapping[str, np.ndarray]]]
) -> None:
    """Writes `assets.extra/tf_serving_warmup_requests`.

    Args:
        folder: The version's directory.
        model_name: The name that the model is served under.
        requests: Signature and inputs of each request; at most 1000, as TF-Serving takes.
    """
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            writer.write(prediction_log(model_name, signature, inputs))


def prediction_log(model_name: str, signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """A serialized `tensorflow.serving.PredictionLog` with one predict request.

    Written field by field: the messages' own classes would need the package of the server's API
    for a few nested fields.
    """
    specification = _field(1, model_name.encode()) + _field(3, signature.encode())
    request = _field(1, specification)
    for name, array in inputs.items():
        tensor = tf.make_tensor_proto(array).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(content)) + content
