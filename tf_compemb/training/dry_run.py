"""Sizes of a model without data and without tables."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from tf_compemb.training.command_options import single_method
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions


def read_cardinalities(what: str) -> list[int]:
    """Ids of each field from `kaggle`, from `n1,n2,...`, or from a file with such numbers.

    Raises:
        UserError: Neither.

    >>> read_cardinalities("10,20")
    [10, 20]
    """
    if what == "kaggle":
        from tf_compemb.data import KAGGLE_CARDINALITIES

        return list(KAGGLE_CARDINALITIES)
    path = Path(what)
    try:
        text = path.read_text() if path.is_file() else what
        numbers = [int(word) for word in text.replace(",", " ").split()]
    except (OSError, ValueError) as error:
        raise UserError(
            "--cardinalities must be kaggle, numbers n1,n2,..., or a file with such numbers; "
            f"{reprlib.repr(what)} is none of these."
        ) from error
    if not numbers or min(numbers) < 1:
        raise UserError(
            f"--cardinalities must be positive numbers, not {reprlib.repr(text.strip())}."
        )
    return numbers


def dry_run(options: TrainingOptions) -> list[dict[str, Any]]:
    """Sizes of the models that the options ask for, one for each method.

    Returns:
        For each: `model`, `embedding`, `parameters`, `embedding_parameters`, `network_parameters`,
        `embedding_bytes` (served), `embedding_training_bytes`, and `summary`, the collection's
        table as text.

    Raises:
        UserError: Options that a method refuses, or unreadable cardinalities.
    """
    cardinalities = read_cardinalities(options.cardinalities or "")
    return [
        _sizes(method, single_method(options, method), cardinalities)
        for method in options.embedding
    ]


def _sizes(method: str, options: TrainingOptions, cardinalities: list[int]) -> dict[str, Any]:
    from tf_compemb.training import build

    collection = build.build_collection(options, cardinalities)
    footprint = collection.footprint()
    network = build.network_parameters(options, collection)
    return {
        "model": options.model,
        "embedding": method,
        "cardinalities": cardinalities,
        "parameters": network + footprint.parameters,
        "embedding_parameters": footprint.parameters,
        "network_parameters": network,
        "embedding_bytes": footprint.inference_bytes,
        "embedding_training_bytes": footprint.training_bytes,
        "summary": collection.summary(),
    }
