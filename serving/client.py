"""Clients of TensorFlow Serving's API, over gRPC and over REST, with one interface.

They talk to the local server of `tf_compemb.serving` and to TensorFlow Serving alike.
"""

from __future__ import annotations

import base64
import http.client
import json
import urllib.parse
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from tf_compemb._tensorflow_c import encoded_strings
from tf_compemb.missing_packages import require
from tf_compemb.native_session import NativeError
from tf_compemb.serving.addresses import grpc_target, rest_url
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
_SHOWN_CHARACTERS = 200  # Of an answer that is none of the API's.
# What gRPC says itself, where no server said anything.
_NOT_GRPC = "Failed parsing HTTP/2"
_OWN_DEADLINE = "Deadline Exceeded"
_NO_CONNECTION = ("failed to connect", "errors resolving", "resolution failed")
_LOST_CONNECTION = ("socket closed", "connection reset", "broken pipe")


class ServingError(UserError):
    """A server answered with an error, or did not answer.

    Attributes:
        code: gRPC's name of the status, such as `NOT_FOUND`; `UNREACHABLE` where nothing answers,
            or nothing that speaks the protocol.
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
        inputs: A tensor for each input of the signature, all with the same first dimension; lists
            of Python's numbers go over gRPC as int64 and float32.
        signature: Its name.
        version: A version of the model; None for the newest.

    Returns:
        The outputs by name. REST has no types: numbers come back as float64 or int64.

    Raises:
        ServingError: The server refused, or cannot be reached.
    """
    return client.decode(client.send(client.request(model, inputs, signature, version)))


class GrpcClient:
    """Client of `tensorflow.serving.PredictionService`; TensorFlow is not imported.

    Args:
        address: `host:port`.
        timeout: Seconds that a call may take.

    Raises:
        MissingPackageError: A package of the extra `serving` is not installed.
        ValueError: The address is not of that form.
    """

    def __init__(self, address: str, timeout: float = 30.0):
        target = grpc_target(address)
        require("A client of gRPC", ("grpc",), "serving", instead="use REST")
        import grpc

        from tf_compemb.serving import grpc_messages

        self.address = f"grpc://{target}"
        self._timeout = timeout
        self._error = grpc.RpcError
        self._messages = grpc_messages
        limits = ("grpc.max_send_message_length", "grpc.max_receive_message_length")
        options = [(limit, _LARGEST_MESSAGE) for limit in limits]
        self._channel = grpc.insecure_channel(target, options)
        self._predict = self._method("PredictionService/Predict", "PredictResponse")
        self._status = self._method("ModelService/GetModelStatus", "GetModelStatusResponse")

    def request(self, model: str, inputs: Arrays, signature: str, version: int | None) -> Any:
        """A `PredictRequest`."""
        message = self._messages.MESSAGES["PredictRequest"]()
        message.model_spec.name = model
        message.model_spec.signature_name = signature
        if version is not None:
            message.model_spec.version.value = version
        for name, value in inputs.items():
            try:
                self._messages.fill_tensor(message.inputs[name], _even(name, value))
            except NativeError as error:
                raise ServingError(error.code_name, f"Input {name!r}: {error.message}") from error
        return message

    def send(self, request: Any) -> Any:
        """The `PredictResponse`."""
        return self._call(self._predict, request)

    def decode(self, response: Any) -> Arrays:
        """Tensors with the types that the model gave them."""
        from tf_compemb.serving.tensor_protos import array_of

        try:
            return {
                name: np.array(array_of(value, name, _LARGEST_MESSAGE))
                for name, value in response.outputs.items()
            }
        except NativeError as error:
            message = f"{self.address} answered what cannot be read: {_one_line(error.message)}"
            raise ServingError(error.code_name, message) from error

    def state(self, model: str) -> str:
        """The state of the newest version."""
        message = self._messages.MESSAGES["GetModelStatusRequest"]()
        message.model_spec.name = model
        response = self._call(self._status, message)
        newest = max(response.model_version_status, key=lambda status: status.version)
        return self._messages.state_name(newest.state)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def _method(self, name: str, response: str) -> Callable[..., Any]:
        return self._channel.unary_unary(
            f"/tensorflow.serving.{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._messages.MESSAGES[response].FromString,
        )

    def _call(self, method: Callable[..., Any], message: Any) -> Any:
        try:
            return method(message, timeout=self._timeout)
        except self._error as error:
            raise self._said(error.code().name, error.details() or "") from error

    def _said(self, code: str, details: str) -> ServingError:
        """The error for a call that failed, which gRPC says of its own failures too."""
        if _NOT_GRPC in details:
            rest = self.address.replace("grpc://", "http://")
            return _other_protocol(self.address, "gRPC", f"REST port, use REST: {rest}")
        # A server that is there says UNAVAILABLE in words of its own.
        if code == "UNAVAILABLE" and any(words in details.lower() for words in _LOST_CONNECTION):
            return _closed(self.address, details)
        if code == "UNAVAILABLE" and any(words in details.lower() for words in _NO_CONNECTION):
            return _unreachable(self.address, details)
        if details == _OWN_DEADLINE:
            return _no_answer(self.address, self._timeout)
        message = f"{self.address} answered {code}: {_one_line(details)}"
        if code == "UNIMPLEMENTED":
            message += "; it may be a gRPC server of another kind than TensorFlow Serving."
        return ServingError(code, message)


class RestClient:
    """Client of the REST API, on one connection that stays open.

    Args:
        url: `http://host:port`, with a path before `/v1/models` where a proxy adds one.
        timeout: Seconds that a call may take.

    Raises:
        ValueError: The URL is not of that form.
    """

    def __init__(self, url: str, timeout: float = 30.0):
        parts = rest_url(url)
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        self.address = url.rstrip("/")
        self._path = parts.path.rstrip("/")
        self._connection = kind[parts.scheme](str(parts.hostname), parts.port, timeout=timeout)

    def request(self, model: str, inputs: Arrays, signature: str, version: int | None) -> Any:
        """Path and body of a call in the API's column format."""
        values = {name: _jsonable(name, value) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": values})
        which = "" if version is None else f"/versions/{version}"
        return f"{self._model_path(model)}{which}:predict", body.encode()

    def send(self, request: Any) -> Any:
        """The answer's body."""
        path, body = request
        return self._exchange("POST", path, body)

    def decode(self, response: Any) -> Arrays:
        """Tensors of float64, int64 or strings."""
        outputs = self._field(response, "outputs")
        if not isinstance(outputs, dict):  # The API leaves out the name of a sole output.
            outputs = {"output": outputs}
        return {name: np.asarray(value) for name, value in outputs.items()}

    def state(self, model: str) -> str:
        """The state of the newest version."""
        answer = self._exchange("GET", self._model_path(model), None)
        states = self._field(answer, "model_version_status")
        return max(states, key=lambda status: int(status["version"]))["state"]

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _model_path(self, model: str) -> str:
        return f"{self._path}/v1/models/{urllib.parse.quote(model, safe='')}"

    def _field(self, body: bytes, name: str) -> Any:
        """What an answer holds under a name."""
        try:
            return json.loads(body)[name]
        except (ValueError, KeyError, TypeError) as error:
            raise ServingError(
                "UNKNOWN",
                f"{self.address} answered otherwise than TensorFlow Serving's REST API does: "
                f"{_beginning(body)}",
            ) from error

    def _exchange(self, method: str, path: str, body: bytes | None) -> bytes:
        try:
            try:
                answer, status = self._try(method, path, body)
            except _CLOSED:  # A server closes a connection that was idle for long.
                answer, status = self._try(method, path, body)
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            raise self._said(error) from error
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

    def _said(self, error: Exception) -> ServingError:
        """The error for a call that got no answer."""
        if isinstance(error, TimeoutError):
            return _no_answer(self.address, self._connection.timeout)
        if isinstance(error, (*_CLOSED, http.client.IncompleteRead)):
            return _closed(self.address, str(error))
        if isinstance(error, http.client.HTTPException):
            place = f"{self._connection.host}:{self._connection.port}"
            return _other_protocol(self.address, "HTTP", f"gRPC port, use gRPC: {place}")
        return _unreachable(self.address, str(error))


_CLOSED = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)


def _unreachable(address: str, reason: str) -> ServingError:
    return ServingError(
        "UNREACHABLE",
        f"No server answers at {address} ({reason}); check the address, or start one with "
        "`tf-compemb serving serve`.",
    )


def _other_protocol(address: str, protocol: str, perhaps: str) -> ServingError:
    return ServingError(
        "UNREACHABLE",
        f"What answers at {address} does not speak {protocol}; if it is a server's {perhaps}.",
    )


def _closed(address: str, reason: str) -> ServingError:
    return ServingError(
        "UNAVAILABLE", f"{address} closed the connection ({reason}); check the address."
    )


def _no_answer(address: str, seconds: float | None) -> ServingError:
    return ServingError("DEADLINE_EXCEEDED", f"{address} did not answer within {seconds:g} s.")


def _error_text(body: bytes) -> str:
    """The API's own message, or the beginning of whatever came instead."""
    try:
        return _one_line(str(json.loads(body)["error"]))
    except (ValueError, KeyError, TypeError):
        return _beginning(body)


def _beginning(body: bytes) -> str:
    return _one_line(body.decode("utf-8", "replace"))[:_SHOWN_CHARACTERS]


def _one_line(text: str) -> str:
    """The text without line ends, and without what a terminal would take for commands."""
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split())
    )


def _even(name: str, value: Any) -> Any:
    """An input as it was given, if it can be an array."""
    try:
        np.asarray(value)
    except ValueError:
        message = f"Input {name!r}: lists at one level must have one length."
        raise ServingError("INVALID_ARGUMENT", message) from None
    return value


def _jsonable(name: str, value: Any) -> Any:
    array = np.asarray(_even(name, value))
    if array.dtype.kind in "cmM":
        message = f"Input {name!r}: {array.dtype} has no form in JSON; use gRPC or another type."
        raise ServingError("INVALID_ARGUMENT", message)
    if array.dtype.kind not in "OSU":
        return array.tolist()
    try:
        texts = [_text(encoded) for encoded in encoded_strings(array)]
    except NativeError as error:
        raise ServingError(error.code_name, f"Input {name!r}: {error.message}") from error
    shaped = np.empty(len(texts), object)
    shaped[:] = texts
    return shaped.reshape(array.shape).tolist()


def _text(value: bytes) -> Any:
    """A string as the API takes it: bytes that are not UTF-8 go as base64."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}
