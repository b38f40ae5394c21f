"""The order in which rows are read: a pure function of seed and epoch that can start anywhere.

A full permutation would read every row from another place of the disk. Here blocks of
`BLOCK_ROWS` consecutive rows are permuted, `WINDOW_BLOCKS` of them at a time form a window, and the
rows of a window are permuted. Reading is in pieces of 40 KB, memory is one window (10 MB), and any
position of the order is found without what comes before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK_ROWS = 256
WINDOW_BLOCKS = 256


@dataclass(frozen=True)
class Window:
    """Rows that are read and shuffled together.

    Attributes:
        ranges: `[start, stop)` rows to read one after another.
        permutation: int64 `[rows]`, the order in which they are handed out; None for as they are.
        skip: how many of them, in that order, are left out because the reading starts later.
    """

    ranges: list[tuple[int, int]]
    permutation: np.ndarray | None
    skip: int

    def rows(self) -> np.ndarray:
        """The row numbers in the order in which they are handed out, int64."""
        rows = np.concatenate([np.arange(start, stop) for start, stop in self.ranges])
        if self.permutation is not None:
            rows = rows[self.permutation]
        return rows[self.skip :]


@dataclass(frozen=True)
class RowOrder:
    """The order of the rows `0 .. rows - 1` in one epoch.

    Args:
        rows: how many there are.
        seed: a non-negative integer, or None for the order of time.
        epoch: a non-negative integer; each epoch has its own order.
        block_rows: consecutive rows that stay in one window.
        window_blocks: blocks in a window.

    >>> RowOrder(rows=5, seed=None).rows_from(2).tolist()
    [2, 3, 4]
    >>> sorted(RowOrder(rows=5, seed=7, epoch=1).rows_from(0).tolist())
    [0, 1, 2, 3, 4]
    """

    rows: int
    seed: int | None
    epoch: int = 0
    block_rows: int = BLOCK_ROWS
    window_blocks: int = WINDOW_BLOCKS

    def __post_init__(self) -> None:
        for name in ("seed", "epoch"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"`{name}` must not be negative. Received: {name}={value}")

    def windows(self, first: int = 0) -> Iterator[Window]:
        """Yields the windows from the one that holds position `first` of the order on."""
        blocks = self._blocks()
        sizes = np.minimum(self.block_rows, self.rows - blocks * self.block_rows)
        stops = np.cumsum(sizes)
        for index, begin in enumerate(range(0, len(blocks), self.window_blocks)):
            end = min(begin + self.window_blocks, len(blocks))
            if stops[end - 1] <= first:
                continue
            start_position = int(stops[begin] - sizes[begin])
            skip = max(0, first - start_position)
            yield self._window(index, blocks[begin:end], skip)

    def rows_from(self, first: int) -> np.ndarray:
        """Returns all row numbers from position `first` of the order on, int64."""
        parts = [window.rows() for window in self.windows(first)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _blocks(self) -> np.ndarray:
        count = -(-self.rows // self.block_rows)
        if self.seed is None:
            return np.arange(count)
        return _permutation(count, self.seed, self.epoch, 0)

    def _window(self, index: int, blocks: np.ndarray, skip: int) -> Window:
        starts = blocks * self.block_rows
        ranges = [(int(start), min(int(start) + self.block_rows, self.rows)) for start in starts]
        if self.seed is None:
            return Window([(ranges[0][0], ranges[-1][1])], None, skip)
        rows = sum(stop - start for start, stop in ranges)
        return Window(ranges, _permutation(rows, self.seed, self.epoch, index + 1), skip)


def _permutation(count: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    """A permutation of `0 .. count - 1`, the same in every version of NumPy.

    By sorting raw 64-bit numbers: NumPy promises the bits of a bit generator for ever, but not what
    `Generator.permutation` makes of them.
    """
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch, stream])).random_raw(count)
    return np.argsort(bits, kind="stable")
