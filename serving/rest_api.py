"""REST: TensorFlow Serving's paths, JSON and status codes, and the metrics page."""

from __future__ import annotations

import json
import logging
import re
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from tf_compemb.native_session import NativeError
from tf_compemb.serving.http_server import Answer, Request
from tf_compemb.serving.json_examples import fill_input
from tf_compemb.serving.json_requests import parse_object, text_field
from tf_compemb.serving.json_tensors import arrays_of, response_body
from tf_compemb.serving.prediction import run
from tf_compemb.serving.service import Service, signature_map
from tf_compemb.serving.status_codes import HTTP_STATUS, Code, invalid_argument

_log = logging.getLogger("tf_compemb.serving")

_METRICS = "/monitoring/prometheus/metrics"
_NAME = "/(?P<name>[^/:]+)"
_VERSION = "(/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_INFERENCE = re.compile(f"/v1/models{_NAME}{_VERSION}:(?P<method>predict|classify|regress)")
_STATUS = re.compile(f"/v1/models({_NAME})?{_VERSION}(?P<metadata>/metadata)?")
_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_LARGEST_VERSION = 2**63 - 1


class RestApi:
    """Answers HTTP requests.

    Args:
        service: What answers them in the end.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def answer(self, request: Request) -> Answer:
        """Answers one request; never raises."""
        try:
            return self._route(request)
        except NativeError as error:
            return refusal(error)
        except Exception as error:
            _log.exception("%s failed", request.method)
            return refusal(NativeError(Code.INTERNAL, f"{type(error).__name__}: {error}"))

    def _route(self, request: Request) -> Answer:
        # A query belongs to the path: there is none that TensorFlow Serving takes.
        path = _ORIGIN.sub("", request.target, count=1)
        if path.partition("?")[0] == _METRICS:
            return self._metrics(path)
        if not path.lower().startswith("/v1/"):
            return plain_refusal(404, "Not found")
        inference = _INFERENCE.fullmatch(path)
        status = _STATUS.fullmatch(path)
        if inference and request.method == "POST":
            kind = inference["method"]
            spec = _model_spec(inference)
            return self._service.measured(
                *(kind, "REST", lambda: spec.name),
                lambda: self._infer(kind, spec, request.content()),
                request.started,
            )
        if status and request.method == "GET":
            spec = _model_spec(status)
            return self._metadata(spec) if status["metadata"] else self._status(spec)
        raise invalid_argument(f"Malformed request: {request.method} {path[:200]}")

    def _metrics(self, path: str) -> Answer:
        if path != _METRICS:
            message = f"Unexpected path: {path[:200]}. Should be {_METRICS}"
            return Answer(400, message.encode(), "text/plain")
        return Answer(200, self._service.metrics.text().encode(), "text/plain; version=0.0.4")

    def _infer(self, kind: str, spec: Any, body: bytes) -> Answer:
        request = parse_object(body)
        spec.signature_name = text_field(request, "signature_name")
        if kind == "predict":
            return Answer(200, self._predict(spec, request))
        classifies = kind == "classify"
        message = (
            classification_pb2.ClassificationRequest(model_spec=spec)
            if classifies
            else regression_pb2.RegressionRequest(model_spec=spec)
        )
        fill_input(message.input, request)
        if classifies:
            rows = self._service.classify(message).result.classifications
            result: list[Any] = [[[it.label, it.score] for it in row.classes] for row in rows]
        else:
            result = [it.value for it in self._service.regress(message).result.regressions]
        return Answer(200, json.dumps({"results": result}).encode())

    def _predict(self, spec: Any, request: dict[str, Any]) -> bytes:
        with self._service.manager.use(spec) as servable:
            try:
                name, signature = servable.signature(spec.signature_name)
            except NativeError:
                wanted = spec.signature_name or "serving_default"
                raise invalid_argument(
                    f'Serving signature name: "{wanted[:100]}" not found in signature def'
                ) from None
            arrays, in_rows = arrays_of(request, signature)
            return response_body(run(servable, name, signature, arrays), in_rows)

    def _status(self, spec: Any) -> Answer:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        response = self._service.status(request)
        rows = [
            {
                "version": str(one.version),
                "state": get_model_status_pb2.ModelVersionStatus.State.Name(one.state),
                "status": {
                    "error_code": Code(one.status.error_code).name,
                    "error_message": one.status.error_message,
                },
            }
            for one in response.model_version_status
        ]
        return _json({"model_version_status": rows})

    def _metadata(self, spec: Any) -> Answer:
        with self._service.manager.use(spec) as servable:
            signatures = json_format.MessageToDict(
                signature_map(servable),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            found = {
                "name": servable.name,
                "signature_name": "",
                "version": str(servable.version),
            }
        return _json({"model_spec": found, "metadata": {"signature_def": signatures}})


def refusal(error: NativeError) -> Answer:
    """The response that says why a request was refused."""
    return plain_refusal(HTTP_STATUS.get(Code(error.code), 500), error.message)


def plain_refusal(status: int, message: str) -> Answer:
    """A response with a status and a message."""
    return Answer(status, json.dumps({"error": message}).encode())


def _model_spec(match: re.Match[str]) -> Any:
    if not match["name"]:
        raise invalid_argument("Missing model name in request.")
    spec = model_pb2.ModelSpec(name=unquote(match["name"]))
    if match["version"]:
        digits = match["version"].lstrip("0")
        version = int(digits[:20] or 0)
        if version > _LARGEST_VERSION:
            raise invalid_argument(
                f"Failed to convert version: {match['version'][:50]} to numeric."
            )
        spec.version.value = version
    if match["label"]:
        spec.version_label = unquote(match["label"])
    return spec


def _json(value: Any) -> Answer:
    return Answer(200, (json.dumps(value, indent=1) + "\n").encode())
