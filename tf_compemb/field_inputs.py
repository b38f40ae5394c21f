"""What a collection is called with: ids and weights in the order of its fields, and their forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tf_compemb.layers.bag_forms import check_forms, is_ragged, is_sparse, to_weight_tensor


def ids_in_order(inputs: Any, fields: Sequence[str], owner: str) -> Any:
    """Ids by field as a list in the order of the fields; a matrix of ids unchanged.

    Args:
        inputs: As of the collection's call.
        fields: Names of the fields.
        owner: Name of the collection, for messages.

    Raises:
        TypeError: It is a list of lists.
        ValueError: Fields are missing, or there are more or fewer.
    """
    if isinstance(inputs, Mapping):
        missing = [name for name in fields if name not in inputs]
        if missing:
            raise ValueError(f"{owner}: ids of the fields {missing} are missing.")
        return [inputs[name] for name in fields]
    if isinstance(inputs, (list, tuple)):
        if not all(hasattr(x, "shape") for x in inputs):
            raise TypeError(
                f"{owner}: lists of ids could be rows or fields. Pass an array of shape (batch, "
                f"{len(fields)}), or a mapping from names of fields to ids."
            )
        if len(inputs) != len(fields):
            raise ValueError(
                f"{owner}: expected ids of {len(fields)} fields. Received: {len(inputs)}"
            )
        return list(inputs)
    return inputs


def weights_by_field(weights: Any, ids: Any, fields: Sequence[str], owner: str) -> dict[str, Any]:
    """The weights of those fields that have some, as tensors.

    Args:
        weights: As of the collection's call.
        ids: What `ids_in_order` gave.
        fields: Names of the fields.
        owner: Name of the collection, for messages.

    Raises:
        TypeError: `weights` is no mapping, or does not hold numbers.
        ValueError: It names fields that do not exist, or the ids are no bags.
    """
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"{owner}: `weights` must be a mapping from names of fields to weights. "
            f"Received: {type(weights).__name__}"
        )
    unknown = [name for name in weights if name not in fields]
    if unknown:
        raise ValueError(
            f"{owner}: `weights` has fields {unknown} that do not exist. "
            f"Fields: {', '.join(fields)}."
        )
    found = {
        name: to_weight_tensor(value, _field(owner, name))
        for name, value in weights.items()
        if value is not None
    }
    if found and not isinstance(ids, list):
        raise ValueError(
            f"{owner}: `weights` go with bags of ids. Pass the ids as a mapping from names of "
            "fields, with a bag a row for those that have weights."
        )
    return found


def is_single(ids: Any) -> bool:
    """Whether a field has one id a row and no bag."""
    return not is_ragged(ids) and not is_sparse(ids) and len(ids.shape) == 1


def check_matrix(ids: Any, count: int, owner: str) -> None:
    """Raises if ids of all fields are not of shape (batch, fields).

    Raises:
        ValueError: They are not.
    """
    if len(ids.shape) != 2 or ids.shape[1] != count:
        raise ValueError(
            f"{owner}: expected ids of shape (batch, {count}). Received: {tuple(ids.shape)}"
        )


def check_fields(collection: Any, inputs: Sequence[Any], weights: Mapping[str, Any]) -> list[str]:
    """How messages call the fields, whose ids and weights have forms that go together.

    Args:
        collection: For its names and its combiner.
        inputs: Ids of each field.
        weights: What `weights_by_field` gave.

    Raises:
        TypeError: Weights are not numbers.
        ValueError: The forms of a field do not go together.
    """
    fields = {name: _field(collection.name, name) for name in collection.cardinalities}
    for (name, field), ids in zip(fields.items(), inputs, strict=True):
        _check_field(field, ids, weights.get(name), collection.combiner)
    return list(fields.values())


def _check_field(field: str, ids: Any, weights: Any, combiner: str) -> None:
    if len(ids.shape) not in (1, 2):
        raise ValueError(
            f"{field} needs ids of shape (batch,), or bags of shape (batch, length). "
            f"Received: shape {tuple(ids.shape)}"
        )
    if not is_single(ids):
        check_forms(field, ids, weights, combiner)
    elif weights is not None:
        raise ValueError(
            f"{field} has one id a row, and `weights` go with bags of shape (batch, length)."
        )


def _field(owner: str, name: str) -> str:
    return f"{owner}: field {name!r}"
