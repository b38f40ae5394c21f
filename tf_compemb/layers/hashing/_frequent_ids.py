"""Ids that are frequent enough for rows of their own, and the map from them to the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb._keras import id_dtype, ops
from tf_compemb.arguments import natural_number
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.storage.table import Spec, StateSpec


class FrequentIdsEmbedding(CompressedEmbedding):
    """Base of the methods that give the most frequent ids rows of their own.

    The map is `frequent_ids`, the ids in ascending order: the row of an id is its position there.
    It is made from `frequencies` once, saved with the weights, and never a part of the
    configuration. Where every id has a row there is none.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        num_frequent: Integer from 0 to `input_dim`, how many ids have a row of their own.
        frequencies: None where ids are numbered from the most frequent on; or how often training
            has each id, shape (input_dim,).
        **kwargs: Of `CompressedEmbedding`.
    """

    needs_frequencies = True

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        num_frequent: int,
        frequencies: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.num_frequent = natural_number("num_frequent", num_frequent)
        if self.num_frequent > self.input_dim:
            raise ValueError(
                f"`num_frequent` must be from 0 to input_dim={self.input_dim}. "
                f"Received: num_frequent={num_frequent}"
            )
        if frequencies is None:
            self._most_frequent = np.arange(self.num_frequent)
        else:
            self._most_frequent = most_frequent(frequencies, self.num_frequent, self.input_dim)

    @property
    def has_map(self) -> bool:
        """Whether some ids have a row of their own and some have not."""
        return 0 < self.num_frequent < self.input_dim

    def map_specs(self) -> dict[str, Spec]:
        """The map, if there is one."""
        if not self.has_map:
            return {}
        dtype = "int32" if self.input_dim < 2**31 else "int64"
        return {"frequent_ids": StateSpec((self.num_frequent,), dtype, lambda: self._most_frequent)}

    def own_row(self, ids: Any, elsewhere: int) -> tuple[Any, Any]:
        """The own row of each id, and whether it has one; those without get row `elsewhere`."""
        if not self.has_map:
            has_own = ops.full(ops.shape(ids), self.num_frequent > 0)
            return (ids if self.num_frequent else ops.full_like(ids, elsewhere)), has_own
        known = ops.convert_to_tensor(self.frequent_ids)
        wanted = ops.cast(ids, known.dtype)
        position = ops.searchsorted(known, wanted)
        position = ops.minimum(position, self.num_frequent - 1)
        has_own = ops.take(known, position, axis=0) == wanted
        row = ops.cast(position, id_dtype())
        return ops.where(has_own, row, ops.cast(elsewhere, id_dtype())), has_own

    def frequent_and_rare(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids with and those without a row of their own, both ascending."""
        if not self.has_map:
            everything = np.arange(self.input_dim)
            return everything[: self.num_frequent], everything[self.num_frequent :]
        frequent = ops.convert_to_numpy(self.frequent_ids)
        is_rare = np.ones(self.input_dim, dtype=bool)
        is_rare[frequent] = False
        return frequent, np.flatnonzero(is_rare)


def most_frequent(frequencies: Any, count: int, input_dim: int) -> np.ndarray:
    """The `count` most frequent ids in ascending order; of equally frequent ones the lower.

    Args:
        frequencies: How often each id occurs, shape (input_dim,).
        count: How many ids are wanted.
        input_dim: Number of ids.

    Raises:
        ValueError: The frequencies are not one number for each id.

    >>> most_frequent([3, 9, 3, 5], count=3, input_dim=4).tolist()
    [0, 1, 3]
    """
    counts = np.asarray(frequencies)
    if counts.shape != (input_dim,) or counts.dtype.kind not in "iuf":
        raise ValueError(
            f"`frequencies` must hold one number for each of the {input_dim} ids. "
            f"Received: shape {counts.shape}, dtype {counts.dtype}"
        )
    return np.sort(np.argsort(-counts.astype("float64"), kind="stable")[:count])
