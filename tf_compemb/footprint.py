"""Sizes: parameters and true bytes of an embedding, in training and in service."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Footprint:
    """What an embedding weighs. Known from the hyper-parameters, before a weight exists.

    Attributes:
        parameters: Trained numbers.
        weight_bytes: Bytes of the trained numbers, as they are kept in training.
        index_bytes: Bytes of what is not trained: codes, index maps, signatures.
        inference_bytes: Bytes of everything the served form keeps.
        full_parameters: Parameters of the uncompressed table that this replaces.

    >>> table = Footprint(parameters=160, weight_bytes=640, inference_bytes=640,
    ...                   full_parameters=1600)
    >>> (table + table).parameters, table.ratio
    (320, 10.0)
    """

    parameters: int
    weight_bytes: int
    index_bytes: int = 0
    inference_bytes: int = 0
    full_parameters: int = 0

    @property
    def training_bytes(self) -> int:
        """Bytes of all variables while training, without the optimiser's."""
        return self.weight_bytes + self.index_bytes

    @property
    def ratio(self) -> float:
        """How many times smaller the served form is than the full float32 table."""
        return 4 * self.full_parameters / self.inference_bytes

    def optimizer_bytes(self, slots_per_parameter: float) -> int:
        """Bytes of an optimiser's float32 state.

        Args:
            slots_per_parameter: Floats the optimiser keeps for each parameter: 0 for SGD, 1 for
                Adagrad, 2 for Adam, 3 for AMSGrad, 1 / output_dim for row-wise Adagrad.
        """
        return round(4 * slots_per_parameter * self.parameters)

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(
            self.parameters + other.parameters,
            self.weight_bytes + other.weight_bytes,
            self.index_bytes + other.index_bytes,
            self.inference_bytes + other.inference_bytes,
            self.full_parameters + other.full_parameters,
        )
