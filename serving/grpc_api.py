"""gRPC: `PredictionService` and `ModelService` of TensorFlow Serving."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from tf_compemb.native_session import NativeError
from tf_compemb.serving.service import Service
from tf_compemb.serving.status_codes import Code
from tf_compemb.serving.workers import Workers

_log = logging.getLogger("tf_compemb.serving")

_LONGEST_MESSAGE = 2000  # Characters; gRPC sends details in headers, of 8 KiB in all.
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def add_to_server(server: Any, service: Service, workers: Workers) -> None:
    """Registers both services with a `grpc.aio` server."""
    methods = {
        "tensorflow.serving.PredictionService": {
            "Predict": (predict_pb2.PredictRequest, service.predict),
            "Classify": (classification_pb2.ClassificationRequest, service.classify),
            "Regress": (regression_pb2.RegressionRequest, service.regress),
            "MultiInference": (inference_pb2.MultiInferenceRequest, service.multi_inference),
            "GetModelMetadata": (
                get_model_metadata_pb2.GetModelMetadataRequest,
                service.metadata,
            ),
        },
        "tensorflow.serving.ModelService": {
            "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, service.status),
            "HandleReloadConfigRequest": (model_management_pb2.ReloadConfigRequest, service.reload),
        },
    }
    for name, of_service in methods.items():
        handlers = {
            method: grpc.unary_unary_rpc_method_handler(
                _handler(method, message, answer, service, workers)
            )
            for method, (message, answer) in of_service.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _handler(
    method: str, message: Any, answer: Callable[[Any], Any], service: Service, workers: Workers
) -> Callable[[bytes, Any], Any]:
    """A coroutine from request to response, both serialized: threads do the parsing."""

    def work(request: bytes, started: float) -> bytes:
        parsed = message()

        def parse_and_answer() -> bytes:
            try:
                parsed.ParseFromString(request)
            except DecodeError:
                raise NativeError(
                    Code.INTERNAL, f"The request is not a {message.DESCRIPTOR.full_name}"
                ) from None
            return answer(parsed).SerializeToString()

        def name() -> str:
            spec = getattr(parsed, "model_spec", None)
            return spec.name if spec is not None else ""

        return service.measured(_kind(method), "GRPC", name, parse_and_answer, started)

    async def handle(request: bytes, context: Any) -> bytes:
        try:
            return await workers.run(work, request, time.perf_counter(), size=len(request))
        except NativeError as error:
            code, details = error.code, error.message
        except Exception as error:
            _log.exception("%s failed", method)
            code, details = Code.INTERNAL, f"{type(error).__name__}: {error}"
        return await context.abort(_CODES[code], details[:_LONGEST_MESSAGE])

    return handle


def _kind(method: str) -> str:
    """Method names as TensorFlow Serving's metrics have them: `GetModelStatus` is `status`."""
    return method.removeprefix("GetModel").removeprefix("Handle").lower()
