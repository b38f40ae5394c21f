"""Raw Criteo values to a model's features, inside the graph that is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS
from tf_compemb.data.line_grammar import INTEGER
from tf_compemb.export.refusals import check_all

if TYPE_CHECKING:
    import pyarrow as pa

_LINES_AT_ONCE = 1 << 18
# TensorFlow refuses a vocabulary with an empty line. No value of a tab-separated file has a tab, so
# the first stands for the missing category, and the second, for a tab that is sent, for none.
_EMPTY_LINE = "\t"
_NO_LINE = "\t\t"


class RawEncoder(tf.Module):
    """The data pipeline's encoding as TensorFlow operations, bit for bit.

    Integers are text, as in Criteo's files, because a missing one is then the empty string: every
    integer is a possible value, JSON has no NaN, and TF-Serving takes no null. The same spelling is
    accepted as in the files; anything else is an error of the request, with its row and column.

    Categories are looked up in a vocabulary (an unknown one has id 0), or hashed by FarmHash64
    modulo the field's number of ids. A missing category is the empty string. Any bytes may be sent.

    Args:
        cardinalities: Ids of each field.
        vocabulary_files: A text file for each field, the category of id i in line i, counted from
            1; None hashes.

    Call arguments:
        integers: String tensor (B, dense features).
        categories: String tensor (B, fields).

    Returns:
        `{"dense": float32 (B, dense features), "categorical": int64 (B, fields)}`.
    """

    def __init__(
        self, cardinalities: Sequence[int], vocabulary_files: Sequence[Path] | None = None
    ) -> None:
        super().__init__(name="encoder")
        self._cardinalities = tuple(cardinalities)
        self.tables = [_vocabulary_table(file) for file in vocabulary_files or ()]

    def __call__(self, integers: tf.Tensor, categories: tf.Tensor) -> dict[str, tf.Tensor]:
        """Features of raw values. See the class."""
        return {"dense": _dense(integers), "categorical": self._ids(categories)}

    def _ids(self, categories: tf.Tensor) -> tf.Tensor:
        if self.tables:
            lines = tf.where(tf.equal(categories, _EMPTY_LINE), _NO_LINE, categories)
            lines = tf.where(tf.equal(categories, ""), _EMPTY_LINE, lines)
            pairs = zip(self.tables, tf.unstack(lines, axis=1), strict=True)
            return tf.stack([table.lookup(column) + 1 for table, column in pairs], axis=1)
        if len(set(self._cardinalities)) == 1:
            return tf.strings.to_hash_bucket_fast(categories, self._cardinalities[0])
        pairs = zip(tf.unstack(categories, axis=1), self._cardinalities, strict=True)
        return tf.stack([tf.strings.to_hash_bucket_fast(c, n) for c, n in pairs], axis=1)


def encoder_module(numbering: Any, folder: Path) -> RawEncoder:
    """The encoder in the graph of a run's encoder, or of a prepared data set.

    Args:
        numbering: Has `manifest`, with the encoder's name and the cardinalities, and
            `vocabulary(field)`.
        folder: Where vocabularies are written as text; must stay until the model is saved.
    """
    cardinalities = numbering.manifest["cardinalities"]
    if numbering.manifest["encoder"]["name"] != "vocabulary":
        return RawEncoder(cardinalities)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for field in CATEGORICAL_FIELDS:
        files.append(folder / f"vocabulary_{field}.txt")
        with files[-1].open("wb") as file:
            file.writelines(_lines(numbering.vocabulary(field)))
    return RawEncoder(cardinalities, files)


def _dense(integers: tf.Tensor) -> tf.Tensor:
    # As `tf_compemb.data.transform_dense`: in float64, so that the rounded result is the same.
    valid = tf.strings.regex_full_match(integers, f"(?:{INTEGER})?")
    rule = "integers must be 64-bit integers as text, or empty"
    with tf.control_dependencies([check_all(valid, integers, rule)]):
        given = tf.where(tf.equal(integers, ""), "0", integers)
    numbers = tf.strings.to_number(given, tf.int64)
    return tf.cast(tf.math.log1p(tf.cast(tf.maximum(numbers, 0), tf.float64)), tf.float32)


def _vocabulary_table(file: Path) -> tf.lookup.StaticHashTable:
    lines = tf.lookup.TextFileInitializer(
        str(file),
        key_dtype=tf.string,
        key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    return tf.lookup.StaticHashTable(lines, default_value=-1)


def _lines(vocabulary: pa.Array) -> Iterator[bytes]:
    for start in range(0, len(vocabulary), _LINES_AT_ONCE):
        for category in vocabulary.slice(start, _LINES_AT_ONCE).to_pylist():
            yield (category or _EMPTY_LINE).encode() + b"\n"
