"""Names of a package that are imported on first use, so that importing the package is cheap."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def names_on_first_use(
    package: str, homes: Mapping[str, str | None], classes: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: The package's `__name__`.
        homes: Each name's module, relative to the package; None for a submodule of that name.
        classes: None, or a submodule all of whose classes are the package's too. It is imported
            when one of them, or a list of all names, is asked for.
    """

    def load(name: str) -> Any:
        if name == "__all__":
            return [n for n in names() if n in homes or n in classes_of_submodule()]
        if name not in homes:
            if name[0].isupper() and name in classes_of_submodule():
                return classes_of_submodule()[name]
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        if home is None:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(f"{package}.{home}"), name)

    def classes_of_submodule() -> dict[str, type]:
        if classes is None:
            return {}
        found = vars(importlib.import_module(f"{package}.{classes}"))
        return {name: value for name, value in found.items() if isinstance(value, type)}

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, *classes_of_submodule()})

    return load, names
