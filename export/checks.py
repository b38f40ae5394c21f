"""An export is reopened by TensorFlow's C++ loader and must give what the model gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_compemb.export.errors import ExportError
from tf_compemb.export.serving_module import SignatureSource
from tf_compemb.export.sizes import ExpectedBytes, stored_bytes
from tf_compemb.native_session import NativeError, NativeSession

# Largest difference of an output, relative to its largest value where that is above 1: the same
# float32 operations in another order, or tables (or arithmetic) with 11 or 8 significant bits.
TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}
_BATCHES = (1, 7, None)  # One row, a few, and all that are left.


@dataclass(frozen=True)
class Expectation:
    """What a signature must give.

    Attributes:
        signature: Its name.
        inputs: Arrays by name, equal first axes.
        outputs: The model's own results, by name.
    """

    signature: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


def expect(
    signature: str,
    source: SignatureSource,
    inputs: Mapping[str, np.ndarray],
    exported_inputs: Mapping[str, np.ndarray] | None = None,
) -> Expectation:
    """Runs the model in Python, before anything is exported.

    Args:
        signature: The name that the result belongs to.
        source: Called with `inputs`.
        inputs: Arrays by name.
        exported_inputs: What the signature itself will be given; None for `inputs`.
    """
    tensors = {
        name: tf.constant(array, dtype=source.inputs[name].dtype) for name, array in inputs.items()
    }
    outputs = {name: np.asarray(value) for name, value in source.call(tensors).items()}
    return Expectation(signature, exported_inputs or inputs, outputs)


def check_outputs(
    path: Path, expectations: Iterable[Expectation], tolerance: float
) -> dict[str, float]:
    """Compares a SavedModel with the model it was made from, in batches of several sizes.

    Args:
        path: The SavedModel.
        expectations: What its signatures must give.
        tolerance: Of a difference, relative to the output's largest value where that is above 1.

    Returns:
        For each signature, the largest difference of an output.

    Raises:
        ExportError: The loader refuses the model, or an output differs by more than the tolerance.
    """
    try:
        with NativeSession(path) as session:
            return {e.signature: _compare(session, e, tolerance) for e in expectations}
    except NativeError as error:
        raise ExportError(f"TensorFlow's loader refuses the export: {error}") from error


def _compare(session: NativeSession, expectation: Expectation, tolerance: float) -> float:
    found = _in_batches(session, expectation)
    return largest_difference(expectation.signature, found, expectation.outputs, tolerance)


def largest_difference(
    signature: str,
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    tolerance: float,
) -> float:
    """The largest difference of any output.

    Raises:
        ExportError: It is more than the tolerance, or outputs are missing.
    """
    if found.keys() != expected.keys():
        raise ExportError(
            f"Signature {signature} gives {sorted(found)} and the model {sorted(expected)}."
        )
    largest = 0.0
    for name, value in expected.items():
        if found[name].shape != value.shape:
            raise ExportError(
                f"{signature}: {name} has shape {found[name].shape}, and {value.shape} from the "
                "model."
            )
        exact, got = value.astype(np.float64), found[name].astype(np.float64)
        both_nan = np.isnan(exact) & np.isnan(got)
        scale = np.abs(exact[np.isfinite(exact)]).max(initial=1.0)
        difference = np.where(both_nan, 0.0, np.abs(got - exact) / scale)
        worst = float(difference.max(initial=0.0))
        if not worst <= tolerance:  # Also where it is NaN.
            at = np.unravel_index(np.argmax(np.nan_to_num(difference, nan=np.inf)), exact.shape)
            raise ExportError(
                f"{signature}: {name} is {got[at]:.9g} in row {int(at[0])}, and {exact[at]:.9g} "
                f"from the model: the relative difference {worst:.2g} is more than {tolerance:g}."
            )
        largest = max(largest, worst)
    return largest


def _in_batches(session: NativeSession, expectation: Expectation) -> dict[str, np.ndarray]:
    rows = len(next(iter(expectation.inputs.values())))
    parts: list[dict[str, np.ndarray]] = []
    start = 0
    for size in _BATCHES:
        stop = rows if size is None else min(start + size, rows)
        if start < stop:
            batch = {name: array[start:stop] for name, array in expectation.inputs.items()}
            parts.append(session.run(expectation.signature, batch))
        start = stop
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_bytes(path: Path, expected: ExpectedBytes, embedding_names: set[str]) -> None:
    """Compares the stored bytes with the formulas.

    Raises:
        ExportError: They differ, in which part and by how much.
    """
    stored = stored_bytes(path)
    of_embeddings = sum(size for name, size in stored.items() if name in embedding_names)
    pairs: dict[str, tuple[int, int]] = {
        "embeddings": (of_embeddings, expected.embeddings),
        "network": (sum(stored.values()) - of_embeddings, expected.network),
    }
    for what, (found, wanted) in pairs.items():
        if found != wanted:
            listed = ", ".join(f"{name} {size}" for name, size in _largest(stored))
            raise ExportError(
                f"The export stores {found} bytes of the {what}, and their sizes say {wanted}; "
                f"the largest variables are {listed}."
            )


def _largest(stored: dict[str, Any], count: int = 5) -> list[tuple[str, int]]:
    return sorted(stored.items(), key=lambda item: -item[1])[:count]
