"""Keras finds this package's classes in saved models, though none of them is imported yet.

Keras looks a class of a file up by its registered name, such as `tf_compemb>QREmbedding`. Until
the class itself is imported, and takes its name, a stand-in has it and imports the class when a
file needs it. Both Kerases get stand-ins: the one that this process does not use for its layers
says so.
"""

from __future__ import annotations

import functools
import importlib.abc
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from tf_compemb._first_use import exported_classes

KERASES = ("keras", "tf_keras")
_OPTIMIZERS = ("SGD", "Adagrad", "RowWiseAdagrad", "Adam", "AMSGrad", "LazyAdam")


def find_in_saved_models() -> None:
    """Has every Keras that is imported, or will be, find the classes."""
    for name in KERASES:
        if keras := sys.modules.get(name):
            _register(keras)
    sys.meta_path.insert(0, _WhenKerasIsImported())


@functools.cache
def modules_of_classes() -> dict[str, str]:
    """The module of each class that can stand in a file, and of the networks' activation."""
    classes = {"collection": ("EmbeddingCollection",), "optimizers": _OPTIMIZERS}
    classes["models.relu"] = ("relu",)
    for package in ("layers", "models"):
        classes[package] = exported_classes(f"tf_compemb.{package}")
    return {name: f"tf_compemb.{home}" for home, names in classes.items() for name in names}


class _WhenKerasIsImported(importlib.abc.MetaPathFinder):
    """Registers the stand-ins at the end of `import keras` and of `import tf_keras`."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """What the other finders find, with the registration at the end of the import."""
        if fullname not in KERASES:
            return None
        finders = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(fullname, path, target) for finder in finders)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register(module)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register(keras: ModuleType) -> None:
    registered = keras.saving.get_custom_objects()
    for name, home in modules_of_classes().items():
        registered.setdefault(f"tf_compemb>{name}", _stand_in(name, home, keras.__name__))


def _stand_in(name: str, home: str, keras: str) -> type:
    """A class that makes objects of the class `name` of the module `home`, or calls a function."""

    def real() -> Any:
        cls = getattr(importlib.import_module(home), name)
        from tf_compemb._keras import OTHER_KERAS

        OTHER_KERAS.check_loading(name, keras)
        return cls

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        return real()(*args, **kwargs)

    def from_config(cls: type, config: dict[str, Any]) -> Any:
        return real().from_config(config)

    return type(name, (), {"__new__": new, "from_config": classmethod(from_config)})
