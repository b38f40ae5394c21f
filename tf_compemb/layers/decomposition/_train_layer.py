"""What the layers over tensor trains share: a table for each core, and their contraction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_compemb._keras import id_dtype, ops
from tf_compemb.arguments import positive_integer, positive_integers
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.decomposition._folded import FoldedEmbedding
from tf_compemb.layers.decomposition._tensor_train import (
    CoreNumbers,
    TrainShape,
    column_factors,
    contract,
    merged,
    row_factors,
    useful_ranks,
)
from tf_compemb.storage import small_table
from tf_compemb.storage.table import Spec, TableSpec

# A train step of 2,048 ids is twice as fast with 2,209 merged rows, and no faster with 10,000; one
# of 128 ids is as fast either way.
_MERGED_ROWS_PER_ID = 2


class TensorTrainEmbedding(FoldedEmbedding):
    """Base of the methods whose vectors are a product of one row of each of several cores.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        rank: Integer, or one for each neighbouring pair of cores.
        num_cores: Integer, ignored where factors are given.
        row_factors: None, or rows of each core; their product is at least `input_dim`.
        column_factors: None, or columns of each core; their product is `output_dim`.
        step: Integer `t` of the semi-tensor product, 1 for the plain train.
        **kwargs: Of `CompressedEmbedding`.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        rank: int | Sequence[int],
        num_cores: int,
        row_factors: Sequence[int] | None,
        column_factors: Sequence[int] | None,
        step: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.shape_of_train = _train_shape(
            (self.input_dim, self.output_dim),
            (row_factors, column_factors),
            rank,
            positive_integer("num_cores", num_cores, most=64),
            positive_integer("semi_tensor", step),
        )

    @property
    def num_cores(self) -> int:
        """How many cores the train has."""
        return len(self.shape_of_train.row_factors)

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any rank, up to the largest that adds anything."""
        largest = cls(input_dim, output_dim, **{**options, "rank": input_dim * output_dim})
        step = largest.shape_of_train.step
        count = max((0, *largest.shape_of_train.ranks)) // step
        return [Settings(max(1, count), lambda number: {"rank": step * (number + 1)})]

    def table_specs(self) -> dict[str, Spec]:
        """One table a core."""
        shape = self.shape_of_train
        law = CoreNumbers(self.input_dim, shape)
        return {
            f"core_{k}": TableSpec(rows, math.prod(shape.core(k)), limit=0.0, initializer=law)
            for k, rows in enumerate(shape.row_factors)
        }

    def lookup(self, ids: Any) -> Any:
        """Reads a row of each core and multiplies them."""
        shape = self.shape_of_train
        digits = shape.digits()
        first, start = self._first_product(ids), self._merged_cores(ids)
        rows = [
            self.rows(f"core_{k}", digits[k].classes(ids, self.input_dim))
            for k in range(start, self.num_cores)
        ]
        # Keras' operations on the torch backend bring float64 back as float32.
        return ops.cast(contract(first, rows, shape), self.compute_dtype)

    def _first_product(self, ids: Any) -> Any:
        """The row of the first core, or the product of those merged: (m, columns, rank)."""
        shape, count = self.shape_of_train, self._merged_cores(ids)
        if count == 1:
            first = self.rows("core_0", shape.digits()[0].classes(ids, self.input_dim))
        else:
            sizes = shape.row_factors
            whole = [
                self.rows(f"core_{k}", ops.arange(sizes[k], dtype=id_dtype())) for k in range(count)
            ]
            row = ids // math.prod(sizes[count:])
            first = small_table.gather_with_dense_gradient(merged(whole, shape), row)
        return ops.reshape(
            first, (-1, math.prod(shape.column_factors[:count]), shape.rank_after(count))
        )

    def _merged_cores(self, ids: Any) -> int:
        """How many of the first cores are multiplied whole: few rows for so many ids.

        More than one only where the number of ids is known while a graph is made.
        """
        number = ids.shape[0]
        if number is None:
            return 1
        rows, count = 1, 0
        for size in self.shape_of_train.row_factors:
            rows *= size
            if size > small_table.SMALL_TABLE or rows > _MERGED_ROWS_PER_ID * number:
                break
            count += 1
        return max(1, count)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        shape = self.shape_of_train
        return {
            **super().get_config(),
            "rank": list(shape.ranks),
            "num_cores": self.num_cores,
            "row_factors": list(shape.row_factors),
            "column_factors": list(shape.column_factors),
        }


def _train_shape(
    dims: tuple[int, int],
    factors: tuple[Sequence[int] | None, Sequence[int] | None],
    rank: int | Sequence[int],
    num_cores: int,
    step: int,
) -> TrainShape:
    given_rows, given_columns = (
        value if value is None else positive_integers(name, value, least=1)
        for name, value in zip(("row_factors", "column_factors"), factors, strict=True)
    )
    lengths = [len(given) for given in (given_rows, given_columns) if given is not None]
    count = lengths[0] if lengths else num_cores
    rows = row_factors(dims[0], count) if given_rows is None else given_rows
    columns = column_factors(dims[1], count, step) if given_columns is None else given_columns
    _check_factors(dims, rows, columns, step)
    ranks = positive_integers("rank", rank)
    if isinstance(rank, (int, np.integer)):
        ranks = useful_ranks(int(rank), rows, columns, step)
    if len(ranks) != count - 1 or any(r % step for r in ranks):
        multiples = f", all multiples of {step}" if step > 1 else ""
        raise ValueError(
            f"`rank` must be an integer or one for each of {count - 1} pairs of cores{multiples}. "
            f"Received: rank={rank!r}"
        )
    return TrainShape(rows, columns, ranks, step)


def _check_factors(
    dims: tuple[int, int], rows: tuple[int, ...], columns: tuple[int, ...], step: int
) -> None:
    if len(rows) != len(columns):
        raise ValueError(
            "`row_factors` and `column_factors` must have one factor a core each. "
            f"Received: row_factors={list(rows)}, column_factors={list(columns)}"
        )
    if math.prod(rows) < dims[0]:
        raise ValueError(
            f"The product of `row_factors` must be at least input_dim={dims[0]}. "
            f"Received: row_factors={list(rows)}, product {math.prod(rows)}"
        )
    if math.prod(columns) != dims[1] or any(c % step for c in columns[1:]):
        multiples = f", all but the first multiples of {step}" if step > 1 else ""
        raise ValueError(
            f"The product of `column_factors` must be output_dim={dims[1]}{multiples}. "
            f"Received: column_factors={list(columns)}"
        )
