"""Gzip content of requests: the size that it declares is checked before it is decompressed."""

from __future__ import annotations

import zlib

from tf_compemb.serving.status_codes import invalid_argument

_MAGIC = b"\x1f\x8b"


def declared_size(content: bytes) -> int:
    """Bytes that gzip content says it has when decompressed; 0 for what is no gzip."""
    return int.from_bytes(content[-4:], "little") if content.startswith(_MAGIC) else 0


def decompressed(content: bytes) -> bytes:
    """What gzip content holds: one member, of the size that it declares and never more.

    Raises:
        NativeError: INVALID_ARGUMENT: it is no gzip or damaged.
    """
    size = declared_size(content)
    member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        found = member.decompress(content, size + 1)
    except zlib.error as error:
        raise invalid_argument(f"The content cannot be read as gzip: {error}") from None
    if not member.eof or member.unused_data or len(found) != size:
        raise invalid_argument(
            "The content cannot be read as gzip: it is cut, or not one member of the size that it "
            "declares"
        )
    return found
