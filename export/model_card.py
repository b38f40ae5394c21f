"""`model_card.json`: what an exported model is, what it weighs, and how it was checked."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_compemb.collection import EmbeddingCollection
from tf_compemb.export.served_form import sized_layers
from tf_compemb.export.serving_module import SignatureSource
from tf_compemb.export.sizes import ExpectedBytes, directory_bytes
from tf_compemb.training.environment import versions

FILE = "model_card.json"


def write_card(
    folder: Path,
    model: Any,
    expected: ExpectedBytes,
    details: Mapping[str, Any],
    about: Mapping[str, Any],
) -> None:
    """Writes `model_card.json` into a version's directory.

    Args:
        folder: The directory, with all other files.
        model: The model.
        expected: Its bytes, which were compared with the stored ones.
        details: Of this export: format, precision, signatures, check.
        about: Of where the model comes from: run, metrics, data.
    """
    card = {
        "model": type(model).__name__,
        **about,
        **details,
        "bytes": {
            **dataclasses.asdict(expected),
            "weights": expected.weights,
            **directory_bytes(folder),
        },
        "embeddings": [_describe(layer) for layer in sized_layers(model)],
        "exported": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    (folder / FILE).write_text(json.dumps(card, indent=2, default=str) + "\n")


def describe_signatures(sources: Mapping[str, SignatureSource]) -> dict[str, Any]:
    """Types and shapes of the inputs of each signature."""
    return {
        name: {
            key: {"dtype": spec.dtype.name, "shape": list(spec.shape)}
            for key, spec in source.inputs.items()
        }
        for name, source in sources.items()
    }


def _describe(layer: Any) -> dict[str, Any]:
    if not isinstance(layer, EmbeddingCollection):
        return {
            "name": layer.name,
            "method": layer.method_name or type(layer).__name__,
            "rows": layer.input_dim,
            "dim": layer.output_dim,
            "parameters": layer.footprint().parameters,
        }
    return {
        "name": layer.name,
        "method": layer.embedding,
        "options": layer.get_config()["options"],
        "threshold": layer.threshold,
        "dim": layer.output_dim,
        "rows": sum(layer.cardinalities.values()),
        "parameters": layer.footprint().parameters,
        "fields": [
            {
                "name": name,
                "rows": layer.cardinalities[name],
                "method": method,
                "parameters": size.parameters,
            }
            for name, (method, size) in layer.field_footprints().items()
        ],
    }
