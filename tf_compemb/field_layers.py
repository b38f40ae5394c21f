"""Which layer a field of a collection gets, by the specification, overrides and threshold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_compemb._signatures import STATISTICS
from tf_compemb.arguments import mapping, natural_number, positive_integer, shown
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

    def of(self, field: str, rows: int, **kwargs: Any) -> CompressedEmbedding:
        """The layer of `field` with `rows` ids; `kwargs` are Keras' own.

        Raises:
            ValueError: An unknown method, or options that it refuses.
        """
        spec = self.overrides.get(field, {})
        embedding = spec.get("embedding", self.embedding)
        inherited = self.options if embedding == self.embedding else {}
        threshold = spec.get("threshold", self.threshold)
        full = get_method("full")(rows, self.output_dim, **kwargs)
        if threshold is not None and rows <= threshold:
            return full
        method = get_method(embedding)
        arguments = {**inherited, **spec.get("options", {}), **self._statistics_for(method, field)}
        try:
            layer = method(rows, self.output_dim, **arguments, **kwargs)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Field {field!r}, method {embedding!r}: {error}") from error
        smaller = layer.footprint().inference_bytes < full.footprint().inference_bytes
        return layer if smaller or threshold is not None or not layer.compresses else full

    def _statistics_for(self, method: type, field: str) -> dict[str, Any]:
        """What the method takes of the training data, as far as it is given."""
        wanted = [s for s in STATISTICS if getattr(method, f"needs_{s}")]
        given = {s: self.statistics.get(s) for s in wanted}
        for argument, function in given.items():
            if function is not None and not callable(function):
                raise ValueError(
                    f"`{argument}` must be a function of a field's name. "
                    f"Received: {argument}={shown(function)}"
                )
        return {s: function(field) for s, function in given.items() if function is not None}


def checked_cardinalities(cardinalities: Any) -> dict[str, int]:
    """Number of ids by the name of the field.

    Raises:
        ValueError: There is no field, a name cannot be kept in a file, or a number is none.
    """
    if isinstance(cardinalities, (str, bytes)) or not isinstance(
        cardinalities, (Mapping, Sequence, np.ndarray)
    ):
        raise ValueError(
            "`cardinalities` must be a mapping from names of fields to numbers of ids, or a "
            f"sequence of these. Received: cardinalities={shown(cardinalities)}"
        )
    if not isinstance(cardinalities, Mapping):
        cardinalities = {f"field_{i}": n for i, n in enumerate(cardinalities)}
    if not cardinalities:
        raise ValueError("`cardinalities` must hold at least one field. Received: none")
    for name in cardinalities:
        _check_field_name(name)
    return {
        str(name): positive_integer(f"cardinalities[{name!r}]", n)
        for name, n in cardinalities.items()
    }


def _check_field_name(name: Any) -> None:
    """Raises if a name is none that every file format keeps apart from all others."""
    if not isinstance(name, str):
        raise ValueError(
            f"Names of fields must be strings. Received: {shown(name)} of type "
            f"{type(name).__name__}"
        )
    surrogates = any("\ud800" <= letter <= "\udfff" for letter in name)
    if name in ("", ".") or "/" in name or "\0" in name or surrogates:
        raise ValueError(
            "Names of fields must not be empty or a single dot, and must not hold a slash, a zero "
            f"byte or half a surrogate pair, which files cannot keep. Received: {name!r}"
        )


def scope_names(fields: Iterable[str]) -> list[str]:
    """Names of the fields' layers: the fields', or others like them that every runtime allows.

    >>> scope_names(["city", "ad group", "ad_group"])
    ['city', 'ad_group_', 'ad_group']
    """
    fields = list(fields)
    taken = set(fields)
    names = []
    for field in fields:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", field)
        if name[0] in "_-":
            name = f"field{name}"
        while name != field and name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names


def checked_overrides(overrides: Any, cardinalities: Mapping[str, int]) -> dict[str, Any]:
    """Overrides of fields that exist, which say what can be said.

    Raises:
        ValueError: They are not.
    """
    found = {} if overrides is None else mapping("overrides", overrides)
    for name, given in found.items():
        if name not in cardinalities:
            raise ValueError(
                f"`overrides` names the field {name!r}, which does not exist. "
                f"Fields: {', '.join(cardinalities)}."
            )
        argument = f"overrides[{name!r}]"
        spec = found[name] = mapping(argument, given)
        unknown = sorted(set(map(str, spec)) - set(_SPEC_KEYS))
        if unknown:
            raise ValueError(
                f"`{argument}` has unknown keys {unknown}. Known: {', '.join(_SPEC_KEYS)}."
            )
        if "options" in spec:
            spec["options"] = mapping(f"{argument}['options']", spec["options"])
        if spec.get("threshold") is not None:
            natural_number(f"{argument}['threshold']", spec["threshold"])
    return found


def as_json(value: Any) -> Any:
    """Options with partitions replaced by their configurations."""
    if isinstance(value, Partition):
        return value.get_config()
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value
