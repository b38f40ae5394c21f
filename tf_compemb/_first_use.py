"""Names of a package that are imported on first use, so that importing the package is cheap."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tf_compemb.missing_packages import explained


def names_on_first_use(
    package: str, homes: Mapping[str, str | None], classes: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562).

    A name that cannot be imported here is a missing attribute, so that `hasattr`, `help` and
    `inspect` can look at the package; `from PACKAGE import NAME` raises the reason.

    Args:
        package: The package's `__name__`.
        homes: Each name's module, relative to the package; None for a submodule of that name.
        classes: None, or a submodule whose classes are the package's too. It is imported when one
            of them is asked for.
    """

    @functools.cache
    def classes_of_submodule() -> tuple[str, ...]:
        return exported_classes(f"{package}.{classes}") if classes else ()

    def load(name: str) -> Any:
        if name == "__all__":
            return [n for n in names() if n in classes_of_submodule() or is_there(n)]
        if name in classes_of_submodule():
            home: str | None = classes
        elif name in homes:
            home = homes[name]
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(f"{package}.{home or name}")
            return module if home is None else getattr(module, name)
        except ImportError as error:
            reason = explained(error)
            if home is not None:  # A submodule gives its reason itself.
                _reasons.of[f"{package}.{name}"] = reason
            message = f"{package}.{name} cannot be imported: {reason}"
            # With a name Python looks for no similar one, as after a misspelling.
            raise AttributeError(message, name=name, obj=None) from error

    def is_there(name: str) -> bool:
        return name in homes and hasattr(sys.modules[package], name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, *classes_of_submodule()})

    return load, names


def exported_classes(module: str) -> tuple[str, ...]:
    """The names with a capital that a module re-exports, `X as X`, without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert isinstance(spec.loader, importlib.abc.InspectLoader)
    source = spec.loader.get_source(module)
    assert source is not None
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    names = [alias.asname for node in imports for alias in node.names if alias.asname]
    return tuple(sorted(name for name in names if name[0].isupper()))


class _Reasons(importlib.abc.MetaPathFinder):
    """Raises why a name is missing where `from PACKAGE import NAME` looks for a submodule then.

    Otherwise that statement would say only that it cannot import the name.
    """

    def __init__(self) -> None:
        self.of: dict[str, ImportError] = {}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Raises the reason for a missing name; finds nothing."""
        if fullname in self.of:
            raise self.of.pop(fullname)


_reasons = _Reasons()
sys.meta_path.insert(0, _reasons)
