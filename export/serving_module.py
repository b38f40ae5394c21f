"""What is written: traced signatures, the variables that they read, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_compemb.export.errors import ExportError

Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class SignatureSource:
    """A signature to be traced.

    Attributes:
        call: From named tensors to named tensors.
        inputs: Types and shapes by name; None for any size of an axis.
    """

    call: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]
    inputs: Mapping[str, tf.TensorSpec]

    def trace(self) -> Any:
        """The concrete function, whose inputs have the names of `inputs`."""
        named = {
            name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in self.inputs.items()
        }
        return tf.function(
            self.call, input_signature=[named], autograph=False
        ).get_concrete_function()


class ServingModule(tf.Module):
    """Signatures with the variables and tables that they read, ready to be saved.

    A Keras model is never tracked: its own export stores each variable twice (Keras 3), with
    metrics and what else it holds.

    Args:
        sources: The signatures.
        variables: Every variable that they may read, by name.
        resources: What else they read, such as lookup tables.

    Attributes:
        weights: The variables that are read, by name.
        signatures: The traced functions by name.

    Raises:
        ExportError: A signature reads a resource that is not among these.
    """

    def __init__(
        self,
        sources: Mapping[str, SignatureSource],
        variables: Mapping[str, tf.Variable],
        resources: Sequence[Any] = (),
    ) -> None:
        super().__init__(name="serving")
        self._signatures = [(name, source.trace()) for name, source in sources.items()]
        captured = {
            id(external)
            for _, function in self._signatures
            for external, _ in function.graph.captures
            if external.dtype == tf.resource
        }
        self.resources = list(resources)
        self.weights = {name: v for name, v in variables.items() if id(v.handle) in captured}
        known = {id(v.handle) for v in self.weights.values()}
        known |= {id(table.resource_handle) for table in self._all_tables()}
        if captured - known:
            raise ExportError(
                f"The model reads {len(captured - known)} resources that are neither its variables "
                "nor the lookup tables of its layers; keep them as attributes of its layers."
            )

    def _all_tables(self) -> list[Any]:
        parts = [part for r in self.resources for part in (getattr(r, "tables", None) or [r])]
        return [part for part in parts if hasattr(part, "resource_handle")]

    @property
    def signatures(self) -> dict[str, Any]:
        """The traced functions by name."""
        return dict(self._signatures)

    def save(self, path: Path) -> None:
        """Writes a SavedModel."""
        tf.saved_model.save(
            self,
            str(path),
            signatures=self.signatures,
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
        )
