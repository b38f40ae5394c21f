"""Names and arguments of methods and networks, read from their source.

To import them is to import Keras and its backend, which takes seconds: too long to say that a name
is misspelt.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# What a constructor may take of the training data, if the class says `needs_...`. No size depends
# on it, and it is not in the configuration.
STATISTICS = ("frequencies", "sampled_ids")

_FOLDER = Path(__file__).parent


@functools.cache
def method_arguments() -> Mapping[str, frozenset[str]]:
    """Each method's name, with the arguments of its class.

    >>> sorted(method_arguments()["qr"] - {"kwargs"})
    ['collisions', 'input_dim', 'modulus', 'operation', 'output_dim', 'self']
    """
    found = {}
    for path in sorted((_FOLDER / "layers").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "\n@method(" in text:
            for node in _classes(text):
                for name in _registered_names(node):
                    found[name] = _arguments(node)
    return found


def arguments_of_method(name: str) -> frozenset[str]:
    """The arguments of a method's class; those of a method of the user's own too.

    Raises:
        ValueError: No method has that name; the message lists those that exist.
    """
    if "tf_compemb.layers" in sys.modules:
        from tf_compemb.layers.registry import get_method

        return frozenset(inspect.signature(get_method(name)).parameters)
    known = method_arguments()
    if name not in known:
        raise ValueError(unknown_method(name, known))
    return known[name]


def unknown_method(name: str, known: Mapping[str, object]) -> str:
    """What is said of a name that no method has."""
    return f"Unknown embedding method {name!r}. Known methods: {', '.join(sorted(known))}."


@functools.cache
def network_arguments(name: str) -> frozenset[str]:
    """The arguments of a network's class.

    Args:
        name: Of its file in `models`.

    >>> sorted(network_arguments("dlrm") - {"self", "kwargs"})
    ['bottom_units', 'dense_features', 'embeddings', 'top_units']
    """
    text = (_FOLDER / "models" / f"{name}.py").read_text(encoding="utf-8")
    (node,) = (node for node in _classes(text) if node.name.lower() == name)
    return _arguments(node)


def _classes(text: str) -> Iterator[ast.ClassDef]:
    return (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))


def _registered_names(node: ast.ClassDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(func=ast.Name(id="method"), args=[ast.Constant(value=str(name))]):
                yield name


def _arguments(node: ast.ClassDef) -> frozenset[str]:
    (made,) = (f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__")
    given = made.args
    rest = [given.kwarg] if given.kwarg else []
    return frozenset(one.arg for one in (*given.args, *given.kwonlyargs, *rest))
