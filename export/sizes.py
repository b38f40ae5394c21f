"""Bytes: what a model should store, by its layers' formulas, and what a SavedModel does store."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_compemb.export.errors import ExportError

_PREFIX = "weights/"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SAVE_COUNTER = "save_counter"


@dataclass(frozen=True)
class ExpectedBytes:
    """What a model should store.

    Attributes:
        embeddings: The embeddings' inference bytes, in the wanted precision.
        network: Every other variable that is read.
        full_tables: The uncompressed float32 tables that the embeddings stand for.
    """

    embeddings: int
    network: int
    full_tables: int

    @property
    def weights(self) -> int:
        """All together."""
        return self.embeddings + self.network


def expected_bytes(
    layers: Iterable[Any], table_numbers: int, number_bytes: int, network: Iterable[tf.Variable]
) -> ExpectedBytes:
    """The bytes by the layers' own formulas.

    Args:
        layers: See `served_form.sized_layers`.
        table_numbers: Numbers in tables, which have `number_bytes` each instead of 4.
        number_bytes: 4 or 2.
        network: The variables that belong to no embedding.
    """
    sizes = [layer.footprint() for layer in layers]
    return ExpectedBytes(
        embeddings=sum(s.inference_bytes for s in sizes) - (4 - number_bytes) * table_numbers,
        network=sum(math.prod(v.shape) * v.dtype.size for v in network),
        full_tables=4 * sum(s.full_parameters for s in sizes),
    )


def stored_bytes(path: Path) -> dict[str, int]:
    """Bytes of each variable in a SavedModel's checkpoint, by the name the exporter gave it.

    Raises:
        ExportError: It holds something else, such as an optimiser's state.
    """
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    types = reader.get_variable_to_dtype_map()
    stored = {}
    for key, shape in reader.get_variable_to_shape_map().items():
        if key == _OBJECT_GRAPH or key.startswith(_SAVE_COUNTER):
            continue
        if not (key.startswith(_PREFIX) and key.endswith(_VALUE)):
            raise ExportError(f"The export stores {key!r}, which no signature reads.")
        name = _unescaped(key.removeprefix(_PREFIX).removesuffix(_VALUE))
        stored[name] = math.prod(shape) * types[key].size
    return stored


def _unescaped(name: str) -> str:
    """A dictionary's key as it was before TensorFlow made it a part of a checkpoint's path."""
    return re.sub(r"\.(.)", lambda found: "/" if found[1] == "S" else found[1], name)


def directory_bytes(path: Path) -> dict[str, int]:
    """Bytes of the files of an export: `vocabulary`, `graph`, `directory` (all files)."""
    files = {p: p.stat().st_size for p in path.rglob("*") if p.is_file()}
    return {
        "vocabulary": sum(size for p, size in files.items() if p.parent.name == "assets"),
        "graph": sum(size for p, size in files.items() if p.name == "saved_model.pb"),
        "directory": sum(files.values()),
    }
