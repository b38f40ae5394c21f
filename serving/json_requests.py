"""JSON of requests, read as TensorFlow Serving's parser does where that is not strict JSON."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from tf_compemb.serving.status_codes import invalid_argument

_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WHITE_SPACE = re.compile(r"[ \t\r\n]*")
_TOO_BIG = "JSON Parse error: Number too big to be stored in double"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a request's content begins with; what follows it is not looked at.

    Of a repeated key the first value counts. NaN, Infinity and -Infinity are numbers.

    Raises:
        NativeError: INVALID_ARGUMENT: no JSON, no object, or nested too deeply.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    text = _text(body.removeprefix(_BYTE_ORDER_MARK))
    blank = _WHITE_SPACE.match(text)
    assert blank is not None
    try:
        value, _ = _decoder.raw_decode(text, blank.end())
    except RecursionError:
        raise invalid_argument("JSON Parse error: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise invalid_argument(f"JSON Parse error: {str(error)[:200]}") from None
    except ValueError:  # Of an integer with more digits than Python reads.
        raise invalid_argument(_TOO_BIG) from None
    if not isinstance(value, dict):
        raise invalid_argument(f"Request body is not a JSON object but {kind_of(value)}")
    return value


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        # The object may be whole before it.
        return body[: error.start].decode()


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        found = {}
        for key, value in pairs:
            found.setdefault(key, value)
    return found


_decoder = json.JSONDecoder(object_pairs_hook=_first_of_each, parse_constant=_CONSTANTS.__getitem__)


def text_field(request: Mapping[str, Any], name: str) -> str:
    """An optional string of a request; empty where it is not there.

    Raises:
        NativeError: INVALID_ARGUMENT: it is something else.
    """
    value = request.get(name, "")
    if not isinstance(value, str):
        raise invalid_argument(f"'{name}' must be a string value, not {kind_of(value)}")
    return value


def check_size(number: int | float) -> None:
    """Makes sure that a number is one of float64, or was written as infinite.

    Raises:
        NativeError: INVALID_ARGUMENT.
    """
    try:
        infinite = math.isinf(float(number))
    except OverflowError:  # Of an integer.
        infinite = True
    # A number such as 1e400 is another object than the constants are.
    if infinite and all(number is not constant for constant in _CONSTANTS.values()):
        raise invalid_argument(_TOO_BIG)


def is_b64(value: Any) -> bool:
    """Whether this is `{"b64": "..."}`, the form of strings that are bytes."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def bytes_of_b64(value: Mapping[str, str]) -> bytes:
    """The bytes in `{"b64": "..."}`; white space is skipped and padding may be missing.

    Raises:
        ValueError: It is no base64.
    """
    encoded = "".join(value["b64"].split())
    if "=" not in encoded:
        encoded += "=" * (-len(encoded) % 4)
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"Unable to base64 decode: {error}") from None


def kind_of(value: Any) -> str:
    """What JSON calls a value, such as `"Array"`."""
    kinds = {dict: "Object", list: "Array", str: "String", bool: "Bool", type(None): "Null"}
    return kinds.get(type(value), "Number")
