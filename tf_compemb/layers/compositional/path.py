"""Path-based compositional embedding: a base row, then functions chosen by the id."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_compemb._keras import keras, ops
from tf_compemb.arguments import positive_integer, positive_integers, shown
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.compositional._chosen_functions import apply_chosen
from tf_compemb.layers.compositional._partitioned import classes_of
from tf_compemb.layers.registry import method
from tf_compemb.partitions import (
    Codes,
    Partition,
    Quotient,
    Remainder,
    check_complementary,
    partition_list,
)
from tf_compemb.storage.table import CodeSpec, Spec, TableSpec

# Hidden units that a budget may choose.
_HIDDEN_UNITS: list[tuple[int, ...]] = [(64,), (32,), (16,), (8,), (4,), (2,), (1,)]


@method("path")
class PathEmbedding(CompressedEmbedding):
    """Path-based embedding: a row of a base table, sent through functions that the id chooses.

    Formula: `z_1 = W[p_1(i)]`, `z_j = M_{j, p_j(i)}(z_{j-1})`, `e(i) = z_k`;
        `M(z) = A_2 s(A_1 z + b_1) + b_2` for one hidden layer, `M(z) = A z + b` for none.
    Parameters: `m_1 * d + sum_{j>1} m_j * (parameters of one function)`, `m_j` classes in partition
        j, `d = output_dim`; one hidden layer of h units has `2 * d * h + h + d`.
    Served as: the base table and the functions, float32.
    Does not give: cheap lookups; below 1024 ids (a static batch, on TensorFlow; else always) every
        id runs through every function of a set, of which one is kept. From there on ids are
        grouped by function, which XLA cannot compile. The paper calls its results preliminary.
    Reference: Shi et al. 2020, https://arxiv.org/abs/1909.02107, sections 4.1 and 5.4, table 1.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer `c`: the base table has `ceil(n / c)` rows, by quotient; the remainder
            chooses one of `c` functions. Above `input_dim` it only leaves functions unused.
        hidden_units: Integers, units of each hidden layer of a function; one number is one layer,
            `()` is linear.
        activation: Name of the Keras activation after each hidden layer.
        partitions: None for the quotient and the remainder, or at least two partitions: the first
            for the base table, each other for a set of functions.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    Raises:
        ValueError: Fewer than two partitions, or partitions that are not complementary.

    >>> layer = PathEmbedding(input_dim=1000, output_dim=16, collisions=4, hidden_units=(64,))
    >>> layer.footprint().parameters == 250 * 16 + 4 * (33 * 64 + 16)
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        hidden_units: int | Sequence[int] = (64,),
        activation: str = "relu",
        partitions: Sequence[Partition | dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.collisions = positive_integer("collisions", collisions)
        self.hidden_units = positive_integers("hidden_units", hidden_units)
        self.activation = _activation(activation)
        if partitions is None:
            chosen: list[Partition] = [Quotient(self.collisions), Remainder(self.collisions)]
        else:
            chosen = partition_list("partitions", partitions)
        if len(chosen) < 2:
            raise ValueError(
                "`partitions` must hold a base partition and at least one that chooses functions. "
                f"Received: partitions={chosen}"
            )
        check_complementary(chosen, self.input_dim)
        self.partitions = tuple(chosen)

    @property
    def _layer_widths(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer of a function."""
        widths = (self.output_dim, *self.hidden_units, self.output_dim)
        return list(itertools.pairwise(widths))

    def table_specs(self) -> dict[str, Spec]:
        """The base table, and the codes of partitions that are stored."""
        rows = self.partitions[0].num_classes(self.input_dim)
        specs: dict[str, Spec] = {"base": TableSpec(rows, self.output_dim, self.limit)}
        for j, partition in enumerate(self.partitions):
            if isinstance(partition, Codes):
                classes = partition.num_classes(self.input_dim)
                specs[f"codes_{j}"] = CodeSpec(partition.codes, classes)
        return specs

    def weight_shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Kernels and biases of the functions, stacked by class."""
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {}
        for j, partition in enumerate(self.partitions[1:], start=1):
            classes = partition.num_classes(self.input_dim)
            for i, (inputs, outputs) in enumerate(self._layer_widths):
                kernel = (classes, inputs, outputs)
                shapes[f"kernel_{j}_{i}"] = (kernel, self._kernel_initializer(i, inputs))
                shapes[f"bias_{j}_{i}"] = ((classes, outputs), "zeros")
        return shapes

    def _kernel_initializer(self, i: int, inputs: int) -> Any:
        """Keeps the second moment of the base row: He's for hidden layers, Glorot's way after."""
        if not self.hidden_units:
            return _near_identity
        gain = 2 if i < len(self.hidden_units) else 1
        return keras.initializers.RandomNormal(0.0, math.sqrt(gain / inputs))

    def lookup(self, ids: Any) -> Any:
        """Reads the base row and follows the path."""
        vectors = self.rows("base", self._classes(0, ids))
        for j in range(1, len(self.partitions)):
            vectors = self._apply_functions(j, self._classes(j, ids), vectors)
        return vectors

    def _classes(self, j: int, ids: Any) -> Any:
        return classes_of(self, self.partitions[j], f"codes_{j}", ids)

    def _apply_functions(self, j: int, classes: Any, vectors: Any) -> Any:
        """Function `classes[m]` of set j on vector m."""
        kernels, biases = (
            [
                ops.cast(
                    ops.convert_to_tensor(getattr(self, f"{kind}_{j}_{i}")), self.compute_dtype
                )
                for i in range(len(self._layer_widths))
            ]
            for kind in ("kernel", "bias")
        )
        vectors = apply_chosen(vectors, classes, kernels, biases, self.activation)
        # Keras' operations on the torch backend bring float64 back as float32.
        return ops.cast(vectors, self.compute_dtype)

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """As few functions as fit, of 64 hidden units, or of fewer where those are too large."""
        widths = _HIDDEN_UNITS
        if "hidden_units" in options:
            widths = [positive_integers("hidden_units", options["hidden_units"])]
        for hidden_units in widths:
            sizes = (output_dim, *hidden_units, output_dim)
            function = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
            # From here on a function more costs more than the rows that it saves.
            most = max(1, math.isqrt(input_dim * output_dim // function))
            yield Settings(most, functools.partial(_functions, most, hidden_units))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "hidden_units": list(self.hidden_units),
            "activation": keras.activations.serialize(self.activation),
            "partitions": [p.get_config() for p in self.partitions],
        }


def _functions(most: int, hidden_units: Sequence[int], fewer: int) -> dict[str, Any]:
    """So many functions fewer than the most that save anything; each leaves more rows."""
    return {"collisions": most - fewer, "hidden_units": list(hidden_units)}


def _activation(value: Any) -> Any:
    """The Keras activation of a name, a function or None.

    Raises:
        ValueError: There is none; the message names the argument.
    """
    try:
        return keras.activations.get(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`activation` must be the name of a Keras activation, such as 'relu'. "
            f"Received: activation={shown(value)}"
        ) from error


def _near_identity(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Identity maps with a little noise, so that the linear functions differ from the start."""
    noise = keras.initializers.RandomNormal(0.0, 0.01)(shape, dtype=dtype)
    return noise + ops.cast(ops.eye(shape[1]), noise.dtype)
