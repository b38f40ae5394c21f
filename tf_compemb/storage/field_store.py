"""Variables of fields in a file: one entry a field and variable, however the fields are kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tf_compemb._keras import ops

# The key in the file, a variable, and which of its rows the key stands for.
Entry = tuple[str, Any, slice]


def write_entries(entries: Iterable[Entry], store: Any) -> None:
    """Writes rows of variables into a Keras weight store, each under its key."""
    values: dict[int, np.ndarray] = {}
    for key, variable, rows in entries:
        if id(variable) not in values:
            values[id(variable)] = ops.convert_to_numpy(variable)
        store[key] = values[id(variable)][rows]


def read_entries(entries: Iterable[Entry], store: Any, owner: str) -> None:
    """Assigns variables from a Keras weight store; `entries` cover every row of each.

    Raises:
        ValueError: A key is missing, or holds another shape. The message begins with `owner`.
    """
    found: dict[int, tuple[Any, np.ndarray]] = {}
    for key, variable, rows in entries:
        if id(variable) not in found:
            found[id(variable)] = (variable, np.empty_like(ops.convert_to_numpy(variable)))
        target = found[id(variable)][1][rows]
        try:
            stored = np.asarray(store[key])
        except KeyError as error:
            raise ValueError(
                f"{owner}: the file holds no {key!r}. It is of other fields or another method."
            ) from error
        if target.shape != stored.shape:
            raise ValueError(
                f"{owner}: {key!r} has shape {target.shape} here and {stored.shape} in the file. "
                "The file is of other cardinalities or options."
            )
        target[...] = stored
    for variable, array in found.values():
        variable.assign(array)
