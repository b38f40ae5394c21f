"""Warm-up records: requests stored with a model, run once before it is available."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorflow_serving.apis import prediction_log_pb2

from tf_compemb._native_log import import_tensorflow_quietly
from tf_compemb.serving.examples import classify, regress
from tf_compemb.serving.prediction import predict
from tf_compemb.serving.servable import Servable
from tf_compemb.serving.status_codes import invalid_argument

RECORDS = Path("assets.extra", "tf_serving_warmup_requests")
MOST_RECORDS = 1000


def warm_up(servable: Servable, largest_bytes: int) -> int:
    """Runs a version's warm-up records, if it has any.

    Args:
        servable: The loaded version.
        largest_bytes: As in `predict`.

    Returns:
        How many there were.

    Raises:
        NativeError: A record fails or is no request, or there are more than 1000.
    """
    path = servable.path / RECORDS
    if not path.is_file():
        return 0
    number = 0
    for number, record in enumerate(_records(path), start=1):
        if number > MOST_RECORDS:
            raise invalid_argument(
                f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {path}"
            )
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except Exception as error:
            raise invalid_argument(f"Failed to parse warmup record {number}: {error}") from None
        _replay(servable, log, largest_bytes)
    return number


def _replay(servable: Servable, log: Any, largest_bytes: int) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        predict(servable, log.predict_log.request, largest_bytes)
    elif kind == "classify_log":
        classify(servable, log.classify_log.request)
    elif kind == "regress_log":
        regress(servable, log.regress_log.request)
    else:
        raise invalid_argument(f"Unsupported log_type for warmup: {kind}")


def _records(path: Path) -> Iterator[bytes]:
    tf = import_tensorflow_quietly()
    try:
        yield from tf.compat.v1.io.tf_record_iterator(str(path))
    except tf.errors.OpError as error:
        raise invalid_argument(f"Warmup records at {path} are damaged: {error.message}") from None
