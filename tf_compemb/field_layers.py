"""Which layer a field of a collection gets, by the specification, overrides and threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tf_compemb._signatures import STATISTICS
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.registry import get_method
from tf_compemb.partitions import Partition

_SPEC_KEYS = ("embedding", "options", "threshold")


@dataclass(frozen=True)
class FieldLayers:
    """What an `EmbeddingCollection` was told of its fields.

    Attributes:
        output_dim: Length of every vector.
        embedding: Name of the method.
        threshold: As of `EmbeddingCollection`.
        options: Arguments of the method.
        overrides: By field.
        statistics: By the argument that takes them, functions of a field's name, or None.
    """

    output_dim: int
    embedding: str
    threshold: int | None
    options: Mapping[str, Any]
    overrides: Mapping[str, Mapping[str, Any]]
    statistics: Mapping[str, Callable[[str], Any] | None]

    def of(self, name: str, rows: int, **kwargs: Any) -> CompressedEmbedding:
        """The layer of the field `name` with `rows` ids; `kwargs` are Keras' own.

        Raises:
            ValueError: An unknown method, or options that it refuses.
        """
        spec = self.overrides.get(name, {})
        embedding = spec.get("embedding", self.embedding)
        inherited = self.options if embedding == self.embedding else {}
        threshold = spec.get("threshold", self.threshold)
        full = get_method("full")(rows, self.output_dim, name=name, **kwargs)
        if threshold is not None and rows <= threshold:
            return full
        method = get_method(embedding)
        arguments = {**inherited, **spec.get("options", {}), **self._statistics_for(method, name)}
        try:
            layer = method(rows, self.output_dim, name=name, **arguments, **kwargs)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Field {name!r}, method {embedding!r}: {error}") from error
        smaller = layer.footprint().inference_bytes < full.footprint().inference_bytes
        return layer if smaller or threshold is not None or not layer.compresses else full

    def _statistics_for(self, method: type, name: str) -> dict[str, Any]:
        """What the method takes of the training data, as far as it is given."""
        wanted = [s for s in STATISTICS if getattr(method, f"needs_{s}")]
        given = {s: self.statistics.get(s) for s in wanted}
        return {s: function(name) for s, function in given.items() if function is not None}


def check_overrides(overrides: Mapping[str, Mapping], cardinalities: Mapping[str, int]) -> None:
    """Whether overrides are of fields that exist, and say what can be said.

    Raises:
        ValueError: They are not.
    """
    for name, spec in overrides.items():
        if name not in cardinalities:
            raise ValueError(
                f"`overrides` names the field {name!r}, which does not exist. "
                f"Fields: {', '.join(cardinalities)}."
            )
        unknown = sorted(set(spec) - set(_SPEC_KEYS))
        if unknown:
            raise ValueError(
                f"`overrides[{name!r}]` has unknown keys {unknown}. Known: {', '.join(_SPEC_KEYS)}."
            )


def as_json(value: Any) -> Any:
    """Options with partitions replaced by their configurations."""
    if isinstance(value, Partition):
        return value.get_config()
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value
