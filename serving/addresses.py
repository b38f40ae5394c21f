"""Addresses of servers as users write them."""

from __future__ import annotations

import re
import urllib.parse

_LARGEST_PORT = 65535


def grpc_target(address: str) -> str:
    """`HOST:PORT`, also of `grpc://HOST:PORT`.

    Raises:
        ValueError: The address is of another form.

    >>> grpc_target("grpc://localhost:8500")
    'localhost:8500'
    """
    place = address.removeprefix("grpc://").rstrip("/")
    match = re.fullmatch(r"[^/]+:([0-9]{1,5})", place)
    if match is None or not 0 < int(match[1]) <= _LARGEST_PORT:
        raise ValueError(
            f"{address!r} is no gRPC address; give HOST:PORT, with a port up to 65535."
        )
    return place


def rest_url(address: str) -> urllib.parse.SplitResult:
    """The parts of `http://HOST:PORT`, perhaps with a path.

    Raises:
        ValueError: The address is of another form.

    >>> rest_url("http://localhost:8501").port
    8501
    """
    try:
        parts = urllib.parse.urlsplit(address)
        known = parts.scheme in ("http", "https") and parts.hostname and not parts.query
        if known and parts.port != 0 and not re.search(r"[\x00-\x20\x7f]", address):
            return parts
    except ValueError:  # Of a port that is no number or too large, or brackets that do not match.
        pass
    raise ValueError(
        f"{address!r} is no address of a REST API; give http://HOST:PORT, with a port up to 65535."
    )
