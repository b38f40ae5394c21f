"""The rows that a comparison sends: real lines for the `raw` signature, or drawn ids."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS, DENSE_FIELDS
from tf_compemb.serving.client import Arrays
from tf_compemb.serving.client_rows import raw_inputs, read_rows
from tf_compemb.training.errors import UserError


@dataclass(frozen=True)
class Rows:
    """What every model of a comparison is sent.

    Attributes:
        signature: The signature that takes them.
        inputs: Its inputs, `[rows, ...]` each.
        origin: Where they come from, for the report.
    """

    signature: str
    inputs: Arrays
    origin: str

    def first(self, count: int) -> Arrays:
        """The inputs of the first `count` rows."""
        return {name: value[:count] for name, value in self.inputs.items()}


def real_rows(path: str, count: int) -> Rows:
    """`count` rows of a Criteo file, from its beginning, again from there when it ends.

    Raises:
        DataError: The file cannot be read, or a line is wrong.
    """
    found = list(itertools.islice(read_rows(path), count))
    found = list(itertools.islice(itertools.cycle(found), count))
    return Rows("raw", raw_inputs(found), f"the first rows of {path}")


def drawn_rows(cardinalities: Sequence[Sequence[int]], count: int, seed: int) -> Rows:
    """`count` rows of ids that are equally likely, so that caches help a large table least.

    Args:
        cardinalities: For each model the ids of its 26 fields; ids are drawn that all models have.
        count: Rows.
        seed: Of the draw.

    Raises:
        UserError: A model has another number of fields.
    """
    for sizes in cardinalities:
        if len(sizes) != len(CATEGORICAL_FIELDS):
            raise UserError(
                f"A model has {len(sizes)} categorical fields instead of "
                f"{len(CATEGORICAL_FIELDS)}; only models of Criteo's rows can be compared."
            )
    smallest = np.min(np.asarray(cardinalities, dtype=np.int64), axis=0)
    generator = np.random.default_rng(seed)
    dense = generator.exponential(1.0, (count, len(DENSE_FIELDS))).astype(np.float32)
    ids = generator.integers(0, smallest, size=(count, len(smallest)), dtype=np.int64)
    return Rows("serving_default", {"dense": dense, "categorical": ids}, "equally likely ids")
