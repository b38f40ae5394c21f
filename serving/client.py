"""Clients of TensorFlow Serving's API, over gRPC and over REST, with one interface.

They talk to the local server of `tf_compemb.serving` and to TensorFlow Serving alike.
"""

from __future__ import annotations

import base64
import http.client
import json
import urllib.parse
from typing import Any, Protocol

import numpy as np

from tf_compemb._native_log import import_tensorflow_quietly
from tf_compemb.training.errors import UserError

Arrays = dict[str, np.ndarray]

_LARGEST_MESSAGE = 256 << 20  # Bytes of one gRPC message, where gRPC's own default is 4 MiB.
# What REST says for the codes that gRPC has a name for.
_HTTP_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class ServingError(UserError):
    """A server answered with an error, or did not answer.

    Attributes:
        code: gRPC's name of the status, such as `NOT_FOUND`; `UNREACHABLE` where nothing answers.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class Client(Protocol):
    """What both clients do.

    A call is `decode(send(request(...)))`: three steps, so that `compare` can time the middle one.
    """

    address: str

    def request(self, model: str, inputs: Arrays, signature: str, version: int | None) -> Any:
        """A call of `model`'s signature, ready to be sent any number of times."""

    def send(self, request: Any) -> Any:
        """The server's answer, as it came."""

    def decode(self, response: Any) -> Arrays:
        """The answer's tensors by name."""

    def state(self, model: str) -> str:
        """The state of the newest version of `model`, such as `AVAILABLE`."""

    def close(self) -> None:
        """Ends the connection."""


def predict(
    client: Client,
    model: str,
    inputs: Arrays,
    *,
    signature: str = "serving_default",
    version: int | None = None,
) -> Arrays:
    """Calls a signature of a served model once.

    Args:
        client: Where the model is served.
        model: Its name.
        inputs: A tensor for each input of the signature, all with the same first dimension.
        signature: Its name.
        version: A version of the model; None for the newest.

    Returns:
        The outputs by name. REST has no types: numbers come back as float64 or int64.

    Raises:
        ServingError: The server refused, or cannot be reached.
    """
    return client.decode(client.send(client.request(model, inputs, signature, version)))


class GrpcClient:
    """Client of `tensorflow.serving.PredictionService`.

    Args:
        address: `host:port`.
        timeout: Seconds that a call may take.

    Raises:
        UserError: A package is missing.
    """

    def __init__(self, address: str, timeout: float = 30.0):
        try:  # tensorflow-serving-api's messages import TensorFlow.
            self._tf = import_tensorflow_quietly(
                "tensorflow_serving.apis.prediction_service_pb2_grpc",
                "tensorflow_serving.apis.model_service_pb2_grpc",
            )
        except ImportError as error:
            raise UserError(
                f"gRPC needs the package {error.name}: install it with "
                "`pip install tf_compemb[serving]`, or use REST."
            ) from error
        import grpc
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self.address = f"grpc://{address}"
        self._timeout = timeout
        self._error = grpc.RpcError
        limits = ("grpc.max_send_message_length", "grpc.max_receive_message_length")
        options = [(limit, _LARGEST_MESSAGE) for limit in limits]
        self._channel = grpc.insecure_channel(address, options)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def request(self, model: str, inputs: Arrays, signature: str, version: int | None) -> Any:
        """A `PredictRequest`."""
        from tensorflow_serving.apis import predict_pb2

        message = predict_pb2.PredictRequest()
        message.model_spec.name = model
        message.model_spec.signature_name = signature
        if version is not None:
            message.model_spec.version.value = version
        for name, value in inputs.items():
            message.inputs[name].CopyFrom(self._tf.make_tensor_proto(value))
        return message

    def send(self, request: Any) -> Any:
        """The `PredictResponse`."""
        return self._call(self._predictions.Predict, request)

    def decode(self, response: Any) -> Arrays:
        """Tensors with the types that the model gave them."""
        return {name: self._tf.make_ndarray(value) for name, value in response.outputs.items()}

    def state(self, model: str) -> str:
        """The state of the newest version."""
        from tensorflow_serving.apis import get_model_status_pb2

        message = get_model_status_pb2.GetModelStatusRequest()
        message.model_spec.name = model
        response = self._call(self._models.GetModelStatus, message)
        newest = max(response.model_version_status, key=lambda status: status.version)
        return get_model_status_pb2.ModelVersionStatus.State.Name(newest.state)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def _call(self, method: Any, message: Any) -> Any:
        try:
            return method(message, timeout=self._timeout)
        except self._error as error:
            code, details = error.code().name, error.details() or ""
            # A server that is there says UNAVAILABLE in words of its own.
            if code == "UNAVAILABLE" and "connect" in details.lower():
                raise _unreachable(self.address, details) from error
            raise ServingError(code, f"{self.address} answered {code}: {details}") from error


class RestClient:
    """Client of the REST API, on one connection that stays open.

    Args:
        url: `http://host:port`, with a path before `/v1/models` where a proxy adds one.
        timeout: Seconds that a call may take.

    Raises:
        ValueError: The URL is not of that form.
    """

    def __init__(self, url: str, timeout: float = 30.0):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ValueError(f"{url!r} is no address of a REST API; give http://HOST:PORT.")
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        self.address = url.rstrip("/")
        self._path = parts.path.rstrip("/")
        self._connection = kind[parts.scheme](parts.hostname, parts.port, timeout=timeout)

    def request(self, model: str, inputs: Arrays, signature: str, version: int | None) -> Any:
        """Path and body of a call in the API's column format."""
        values = {name: _jsonable(value) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": values})
        which = "" if version is None else f"/versions/{version}"
        return f"{self._model_path(model)}{which}:predict", body.encode()

    def send(self, request: Any) -> Any:
        """The answer's body."""
        path, body = request
        return self._exchange("POST", path, body)

    def decode(self, response: Any) -> Arrays:
        """Tensors of float64, int64 or strings."""
        outputs = json.loads(response)["outputs"]
        if not isinstance(outputs, dict):  # The API leaves out the name of a sole output.
            outputs = {"output": outputs}
        return {name: np.asarray(value) for name, value in outputs.items()}

    def state(self, model: str) -> str:
        """The state of the newest version."""
        answer = json.loads(self._exchange("GET", self._model_path(model), None))
        newest = max(answer["model_version_status"], key=lambda status: int(status["version"]))
        return newest["state"]

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _model_path(self, model: str) -> str:
        return f"{self._path}/v1/models/{urllib.parse.quote(model, safe='')}"

    def _exchange(self, method: str, path: str, body: bytes | None) -> bytes:
        try:
            answer, status = self._try(method, path, body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # The server has closed a connection that was idle for long.
            try:
                answer, status = self._try(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                raise _unreachable(self.address, str(error)) from error
        except TimeoutError as error:
            message = f"{self.address} did not answer within {self._connection.timeout:g} s."
            raise ServingError("DEADLINE_EXCEEDED", message) from error
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self.address, str(error)) from error
        if status != 200:
            code = _HTTP_CODES.get(status, str(status))
            raise ServingError(code, f"{self.address} answered {status}: {_error_text(answer)}")
        return answer

    def _try(self, method: str, path: str, body: bytes | None) -> tuple[bytes, int]:
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            return response.read(), response.status
        except BaseException:
            self._connection.close()  # Half a call must not be taken for the next one's answer.
            raise


def _unreachable(address: str, reason: str) -> ServingError:
    return ServingError(
        "UNREACHABLE",
        f"No server answers at {address} ({reason}); check the address, or start one with "
        "`tf-compemb serving serve`.",
    )


def _error_text(body: bytes) -> str:
    """The API's own message, or the beginning of whatever came instead."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def _jsonable(value: np.ndarray) -> Any:
    if value.dtype == object or value.dtype.kind in "SU":
        return [_jsonable(row) if isinstance(row, np.ndarray) else _text(row) for row in value]
    return value.tolist()


def _text(value: str | bytes) -> Any:
    """A string as the API takes it: bytes that are not UTF-8 go as base64."""
    if isinstance(value, str):
        return str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}
