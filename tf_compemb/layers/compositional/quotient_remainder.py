"""Quotient-remainder embedding: two small tables, one vector an id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tf_compemb.arguments import one_of, positive_integer
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.compositional._partitioned import PartitionedEmbedding
from tf_compemb.layers.registry import method
from tf_compemb.partitions import Quotient, Remainder, smallest_modulus


@method("qr")
class QREmbedding(PartitionedEmbedding):
    """Quotient-remainder embedding: two small tables, one vector an id.

    Formula: `e(i) = R[i mod m] * Q[i // m]`, elementwise; or their sum, or concatenation.
    Parameters: `(m + ceil(n / m)) * d`, `n = input_dim`, `d = output_dim`, `m = modulus`, by
        default `collisions`; half of that for "concat", whose tables are d / 2 wide.
    Served as: the two tables, float32.
    Does not give: independent vectors; ids that share a quotient or a remainder move together in
        training.
    Reference: Shi et al. 2020, https://arxiv.org/abs/1909.02107, algorithm 2 and section 4; the
        layout of `collisions` is that of the authors' DLRM code.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer `c`, how many ids share a quotient row: the remainder table has `c`
            rows, the quotient table `ceil(n / c)`. Above `input_dim` it only leaves rows unused.
        operation: "mult", "add", "concat", or "feature" for two vectors an id, shape (..., 2, d).
        modulus: None, or Integer `m` instead of `collisions`; `m = sqrt(n)` is the smallest. Or
            "large" for `m = ceil(n / collisions)`, which makes the remainder table the large one:
            the same size, but ids `m` apart share its rows instead of neighbours. Where ids are in
            order of frequency or first sight, frequent ids then have rows to themselves.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = QREmbedding(input_dim=1000, output_dim=8, collisions=32)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 8)
    >>> layer.footprint().parameters == (32 + 32) * 8
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        operation: str = "mult",
        modulus: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        self.collisions = positive_integer("collisions", collisions)
        if modulus is None:
            self.modulus = self.collisions
        elif isinstance(modulus, str):
            one_of("modulus", modulus, ("large",))
            self.modulus = -(-positive_integer("input_dim", input_dim) // self.collisions)
        else:
            self.modulus = positive_integer("modulus", modulus)
        super().__init__(
            input_dim,
            output_dim,
            partitions=[Remainder(self.modulus), Quotient(self.modulus)],
            table_names=["remainder", "quotient"],
            operation=operation,
            **kwargs,
        )

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """A remainder table of `sqrt(n)` rows or any more: only a large one comes in any size."""
        smallest = smallest_modulus(input_dim)
        return [Settings(input_dim - smallest + 1, lambda number: {"modulus": smallest + number})]

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "operation": self.operation,
            "modulus": self.modulus,
        }
