"""The registry: a method's short name to its class, filled by the modules themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tf_compemb._keras import register

_METHODS: dict[str, type] = {}
_Class = TypeVar("_Class", bound=type)


def method(name: str) -> Callable[[_Class], _Class]:
    """Class decorator: makes a layer known as ``name`` here and as ``tf_compemb>Class`` to Keras.

    Args:
        name: The name that `--embedding` and `EmbeddingCollection` use, such as ``"qr"``.

    Raises:
        ValueError: The name or the class name is taken.
    """

    def add(cls: _Class) -> _Class:
        taken = _METHODS.get(name)
        if taken is not None or any(c.__name__ == cls.__name__ for c in _METHODS.values()):
            raise ValueError(
                f"An embedding method named {name!r} or a class {cls.__name__} is registered "
                f"already ({taken or cls.__name__}). Choose another name."
            )
        _METHODS[name] = cls
        register(cls)
        cls.method_name = name  # type: ignore[attr-defined]
        return cls

    return add


def get_method(name: str) -> type:
    """The class registered under a method's name.

    Raises:
        ValueError: No method has that name; the message lists those that exist.
    """
    if not isinstance(name, str) or name not in _METHODS:
        raise ValueError(
            f"Unknown embedding method {name!r}. Known methods: {', '.join(method_names())}."
        )
    return _METHODS[name]


def method_names() -> list[str]:
    """Names of all registered methods, sorted."""
    return sorted(_METHODS)
