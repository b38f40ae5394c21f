"""What the server answers when it refuses: gRPC's codes and their HTTP equivalents."""

from __future__ import annotations

from enum import IntEnum

from tf_compemb.native_session import NativeError


class Code(IntEnum):
    """gRPC's status codes, which are TensorFlow's too."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# As in TensorFlow Serving's http_server.cc.
HTTP_STATUS = {
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INTERNAL: 500,
    Code.DATA_LOSS: 500,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


def invalid_argument(message: str) -> NativeError:
    """The request itself is wrong."""
    return NativeError(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> NativeError:
    """A model, version or signature that is not here."""
    return NativeError(Code.NOT_FOUND, message)


def failed_precondition(message: str) -> NativeError:
    """The request does not fit the model."""
    return NativeError(Code.FAILED_PRECONDITION, message)


def resource_exhausted(message: str) -> NativeError:
    """More than the server takes on."""
    return NativeError(Code.RESOURCE_EXHAUSTED, message)


def unimplemented(message: str) -> NativeError:
    """What this server does not do."""
    return NativeError(Code.UNIMPLEMENTED, message)
