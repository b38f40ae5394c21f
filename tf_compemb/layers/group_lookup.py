"""What a lookup of several fields together offers, fused or pooled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tf_compemb._keras import Layer


class GroupLookup(Layer):
    """Base of the layers that look up several fields of a collection as one.

    Positions number the fields in the group. Called with ids (batch, fields) that are in range, it
    gives vectors (batch, fields, *vector_shape).
    """

    vector_shape: tuple[int, ...]

    def field_vectors(self, position: int, ids: Any) -> Any:
        """Vectors (m, *vector_shape) of ids (m,) of one field."""
        raise NotImplementedError

    def field_tables(self, position: int) -> Iterator[tuple[str, Any, int, int]]:
        """The variables of one field: name in the field's layer, variable, first row, end."""
        raise NotImplementedError
