"""Category strings to ids: by a vocabulary of the training rows, or by a 64-bit fingerprint.

Both work in the same two steps, so that the text is read once and no step holds all rows. Per block
of rows, `encode_column` gives each row the position of its value among the block's distinct values
(a local code), and `Encoder.keep` says what has to be kept of those values, an entry each. At the
end `numbering` goes through what all blocks kept of one field and gives each entry its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from tf_compemb.data.errors import DataError

DEFAULT_HASH_BUCKETS = 2**20
LARGEST_HASH_BUCKETS = 2**62


class Encoder(Protocol):
    """What `prepare` asks of an encoder."""

    name: str

    @property
    def kept_type(self) -> pa.DataType:
        """Arrow type of what is kept of a block's distinct values."""

    @property
    def id_type(self) -> str:
        """`"int32"` or `"int64"`: how ids are stored."""

    def settings(self) -> dict[str, object]:
        """The encoder's name and options, for the manifest."""

    def keep(self, distinct: pa.StringArray) -> pa.Array:
        """What is kept of a block's distinct values, one entry each."""


@dataclass(frozen=True)
class VocabularyEncoder:
    """Each category its own id, in the order of first sight in the training rows.

    Id 0 is shared by the categories seen in fewer than `min_count` training rows, among them all
    that occur only in validation or test: nothing of those rows leaks. A missing value is a
    category like any other.

    Args:
        min_count: training rows that a category needs for an id of its own; at least 1.
    """

    min_count: int = 1
    name = "vocabulary"
    kept_type = pa.large_string()
    id_type = "int32"

    def __post_init__(self) -> None:
        if self.min_count < 1:
            raise DataError(f"`min_count` must be at least 1. Received: min_count={self.min_count}")

    def settings(self) -> dict[str, object]:
        """The name and the option, for the manifest."""
        return {"name": self.name, "min_count": self.min_count}

    def keep(self, distinct: pa.StringArray) -> pa.Array:
        """The strings themselves; with 64-bit offsets, as a field may have over 2 GB of them."""
        return distinct.cast(pa.large_string())


@dataclass(frozen=True)
class HashEncoder:
    """The FarmHash64 fingerprint of the category modulo `buckets`; no vocabulary.

    Bit-identical to `tf.strings.to_hash_bucket_fast(category, buckets)`, so that a served graph
    computes the same ids from raw strings. A missing value is the empty string.

    Args:
        buckets: number of ids of each field, from 1 to 2^62.
    """

    buckets: int = DEFAULT_HASH_BUCKETS
    name = "hash"
    kept_type = pa.int64()

    def __post_init__(self) -> None:
        if not 1 <= self.buckets <= LARGEST_HASH_BUCKETS:
            raise DataError(
                f"`hash_buckets` must be from 1 to 2**62. Received: hash_buckets={self.buckets}"
            )

    @property
    def id_type(self) -> str:
        """int32 where every id fits."""
        return "int32" if self.buckets <= 2**31 else "int64"

    def settings(self) -> dict[str, object]:
        """The name and the option, for the manifest."""
        return {"name": self.name, "hash_buckets": self.buckets}

    def keep(self, distinct: pa.StringArray) -> pa.Array:
        """The ids."""
        return pa.array(hash_ids(distinct, self.buckets))


def hash_ids(values: pa.StringArray, buckets: int) -> np.ndarray:
    """Returns each string's FarmHash64 fingerprint modulo `buckets`, as int64 `[n]`.

    It is TensorFlow's own function, so that a served graph computes the same ids from raw strings.

    >>> hash_ids(pa.array(["68fd1e64", ""]), 2**20).tolist()
    [576134, 16463]
    """
    # Imported here, because encoding by vocabulary needs no TensorFlow.
    from tf_compemb._native_log import import_tensorflow_quietly

    tf = import_tensorflow_quietly()
    strings = values.cast(pa.binary()).to_numpy(zero_copy_only=False)
    return tf.strings.to_hash_bucket_fast(tf.constant(strings, tf.string), buckets).numpy()


def encode_column(column: pa.StringArray) -> tuple[np.ndarray, pa.StringArray, np.ndarray]:
    """Returns local codes int32 `[rows]`, the distinct values in order of first sight, and counts.

    >>> codes, distinct, counts = encode_column(pa.array(["b", "a", "b"]))
    >>> codes.tolist(), distinct.to_pylist(), counts.tolist()
    ([0, 1, 0], ['b', 'a'], [2, 1])
    """
    encoded = column.dictionary_encode()
    codes = encoded.indices.to_numpy()
    return codes, encoded.dictionary, np.bincount(codes, minlength=len(encoded.dictionary))


def make_encoder(name: str, *, min_count: int = 1, hash_buckets: int | None = None) -> Encoder:
    """Returns the encoder of that name; an option of the other one must keep its default.

    Raises:
        DataError: unknown name, or an option out of range or of the other encoder.
    """
    if name == "vocabulary":
        if hash_buckets not in (None, DEFAULT_HASH_BUCKETS):
            raise DataError("`hash_buckets` belongs to encoder='hash', not to 'vocabulary'.")
        return VocabularyEncoder(min_count)
    if name == "hash":
        if min_count != 1:
            raise DataError("`min_count` belongs to encoder='vocabulary', not to 'hash'.")
        return HashEncoder(DEFAULT_HASH_BUCKETS if hash_buckets is None else hash_buckets)
    raise DataError(f"`encoder` must be 'vocabulary' or 'hash'. Received: encoder={name!r}")
