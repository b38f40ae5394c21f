"""`tf.Example`s in the REST API's JSON, for classify and regress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tf_compemb.serving.json_requests import bytes_of_b64, check_size, is_b64
from tf_compemb.serving.status_codes import invalid_argument


def fill_input(target: Any, request: Mapping[str, Any]) -> None:
    """Writes the examples of a classify or regress request into an `Input` message.

    A feature is a value or a list of values: integers or booleans, decimals, or strings, also as
    `{"b64": ...}`.

    Raises:
        NativeError: INVALID_ARGUMENT: no examples, or features of no or of mixed type.
    """
    examples = request.get("examples")
    if not isinstance(examples, list) or not examples:
        raise invalid_argument("When method is classify, 'examples' key is expected and not empty")
    if "context" in request:
        _fill(target.example_list_with_context.context, request["context"], "context")
        list_ = target.example_list_with_context.examples
    else:
        list_ = target.example_list.examples
    for number, example in enumerate(examples):
        _fill(list_.add(), example, f"example {number}")


def _fill(example: Any, features: Any, where: str) -> None:
    if not isinstance(features, dict):
        raise invalid_argument(f"{where} must be a JSON object with a value for each feature")
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = example.features.feature[name]
        try:
            _fill_feature(feature, values)
        except (TypeError, ValueError, OverflowError) as error:
            raise invalid_argument(f"Feature {name[:100]!r} of {where}: {error}") from None


def _fill_feature(feature: Any, values: list[Any]) -> None:
    kinds = {type(value) for value in values}
    if kinds <= {str, dict}:
        feature.bytes_list.value.extend(_bytes_of(value) for value in values)
    elif kinds <= {int, bool}:
        feature.int64_list.value.extend(map(int, values))
    elif kinds == {float}:
        for value in values:
            check_size(value)
        feature.float_list.value.extend(values)
    else:
        raise TypeError("its values must all be integers, all be decimals or all be strings")


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not is_b64(value):
        raise TypeError('an object must be {"b64": "..."}')
    return bytes_of_b64(value)
