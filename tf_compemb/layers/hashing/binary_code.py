"""Binary code hash: blocks of the id's bits are row numbers, and the rows are added."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from tf_compemb.arguments import flag, one_of, positive_integer
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.registry import method
from tf_compemb.storage.table import Spec, TableSpec

LAYOUTS = ("succession", "skip")


@method("binary_code")
class BinaryCodeHashEmbedding(CompressedEmbedding):
    """Binary code hash (BCH): the id's bits in blocks, one row for each block, added up.

    Formula: `e(i) = sum_j T_j[b_j(i)]`; "succession": `b_j(i) = (i >> t j) mod 2^t`; "skip": block
        j has the bits `j, j + s, j + 2 s, ...`. L bits, `t = block_bits`, `s = ceil(L / t)` blocks.
    Parameters: `s * 2^t * d`, less what the highest block of "succession" does not reach;
        `2^t * d` with `shared`. `d = output_dim`.
    Served as: the tables, float32.
    Does not give: sizes between powers of two; with `shared`, a vector of its own to every id:
        the order of the blocks is lost (of 8 bits in blocks of 4, 136 of 256 ids stay distinct).
    Reference: Yan et al. 2021, https://arxiv.org/abs/2109.02471. The code is the id itself, which
        is below `input_dim` already: a hash could only make codes collide.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`; L bits write `input_dim - 1`.
        output_dim: Integer, length of a vector.
        block_bits: Integer `t`, or None for two blocks.
        layout: "succession" of bits, or "skip", which spreads neighbouring bits over the blocks.
        shared: Whether all blocks read one table.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = BinaryCodeHashEmbedding(input_dim=2**24, output_dim=8, block_bits=7)
    >>> [int(block) for block in layer.blocks(9999)]  # 15 + 78 * 2^7
    [15, 78, 0, 0]
    >>> layer.footprint().parameters == (128 + 128 + 128 + 8) * 8
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        block_bits: int | None = None,
        layout: str = "succession",
        shared: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.code_bits = _code_bits(self.input_dim)
        if block_bits is None:
            block_bits = -(-self.code_bits // 2)
        self.block_bits = min(positive_integer("block_bits", block_bits), self.code_bits)
        self.layout = one_of("layout", layout, LAYOUTS)
        self.shared = flag("shared", shared)

    @property
    def num_blocks(self) -> int:
        """Blocks of an id."""
        return -(-self.code_bits // self.block_bits)

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any number of bits in a block."""
        return [Settings(_code_bits(input_dim), lambda number: {"block_bits": number + 1})]

    def table_specs(self) -> dict[str, Spec]:
        """A table for each block, or one for all."""
        limit = self.limit / math.sqrt(self.num_blocks)
        if self.shared:
            return {"blocks_table": TableSpec(2**self.block_bits, self.output_dim, limit)}
        return {
            f"block_{j}": TableSpec(self._block_rows(j), self.output_dim, limit)
            for j in range(self.num_blocks)
        }

    def _block_rows(self, j: int) -> int:
        if self.layout == "skip":
            return 2 ** len(range(j, self.code_bits, self.num_blocks))
        return min(2**self.block_bits, -(-self.input_dim // 2 ** (self.block_bits * j)))

    def blocks(self, ids: Any) -> list[Any]:
        """The number that each block of bits is, one for each id."""
        t, s = self.block_bits, self.num_blocks
        if self.layout == "succession":
            return [ids // 2 ** (t * j) % 2**t for j in range(s)]
        bits = [ids // 2**position % 2 for position in range(self.code_bits)]
        return [
            functools.reduce(operator.add, (bit * 2**k for k, bit in enumerate(bits[j::s])))
            for j in range(s)
        ]

    def lookup(self, ids: Any) -> Any:
        """The rows of all blocks, added up."""
        names = ["blocks_table"] * self.num_blocks if self.shared else list(self.table_specs())
        rows = [self.rows(*named) for named in zip(names, self.blocks(ids), strict=True)]
        return functools.reduce(operator.add, rows)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "block_bits": self.block_bits,
            "layout": self.layout,
            "shared": self.shared,
        }


def _code_bits(input_dim: int) -> int:
    """Bits that write the largest id."""
    return max(1, (input_dim - 1).bit_length())
