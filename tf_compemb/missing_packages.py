"""Packages that only some parts of this one need: in which extra each is, how it is installed."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ParamSpec

USER_ERROR = 2  # Exit status of argparse too.

# What is imported from the packages of each extra of setup.cfg.
MODULES = {
    "train": (
        *("tensorflow", "tf_keras", "tensorflow_recommenders"),
        *("pyarrow", "rich", "matplotlib"),
    ),
    "serving": ("tensorflow", "tensorflow_serving", "grpc", "h11"),
    "beam": ("apache_beam",),
    "jax": ("jax",),
    "torch": ("torch",),
    "tensorboard": ("tensorboard",),
    "benchmark": ("fbgemm_gpu", "torchrec", "keras_rs"),
}

_Arguments = ParamSpec("_Arguments")


class MissingPackageError(ModuleNotFoundError):
    """A package of an extra is not installed; the message says how to install it."""


def require(what: str, modules: Iterable[str], extra: str, instead: str | None = None) -> None:
    """Checks that packages are installed, without importing them.

    Args:
        what: Subject of the message, such as "Training".
        modules: Names of modules in `MODULES`.
        extra: The extras to install, separated by commas.
        instead: What else one may do.

    Raises:
        MissingPackageError: One of them is not installed.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise missing(module, what, extra, instead)


def missing(
    module: str, what: str = "This", extra: str | None = None, instead: str | None = None
) -> MissingPackageError:
    """An error that says how to install a package.

    Args:
        module: Name of a module in `MODULES`.
        what: Subject of the message: what needs the package.
        extra: The extras to install; None for the first that has the package.
        instead: What else one may do.
    """
    extra = extra or next(name for name, modules in MODULES.items() if module in modules)
    return MissingPackageError(
        f"{what} needs the package {module}, which is not installed: install it with "
        f"`{install_command(extra)}`{f', or {instead}' if instead else ''}.",
        name=module,
    )


def explained(error: ImportError, extra: str | None = None, what: str = "This") -> ImportError:
    """An error that says how to install what an import lacked, or else the error itself.

    Args:
        error: Of an import statement.
        extra: The extra to install if it has the package; None for the first that has it.
        what: Subject of the message.
    """
    module = (error.name or "").split(".")[0]
    known = isinstance(error, ModuleNotFoundError) and any(module in m for m in MODULES.values())
    if isinstance(error, MissingPackageError) or not known:
        return error
    return missing(module, what, extra if extra and module in MODULES[extra] else None)


def reports_missing_packages(
    extra: str,
) -> Callable[[Callable[_Arguments, int]], Callable[_Arguments, int]]:
    """Decorates a program's `main`: a missing package becomes a sentence and the exit status 2.

    Args:
        extra: The extra that the program is meant to be used with.
    """

    def decorate(main: Callable[_Arguments, int]) -> Callable[_Arguments, int]:
        @functools.wraps(main)
        def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> int:
            try:
                return main(*args, **kwargs)
            except ModuleNotFoundError as error:
                found = explained(error, extra, "This program")
                if not isinstance(found, MissingPackageError):
                    raise
                print(f"error: {found}", file=sys.stderr)
                return USER_ERROR

        return run

    return decorate


def install_command(extra: str, python: str | None = None) -> str:
    """A command that installs an extra of this package from where the package itself came.

    Args:
        extra: The extras, separated by commas.
        python: The interpreter to install for; None for this one.
    """
    python = python or _shown(Path(sys.executable))
    source = _source()
    editable = "-e " if source.is_dir() else ""
    return f'{python} -m pip install {editable}"{_shown(source)}[{extra}]"'


def _source() -> Path:
    """The clone or the wheel that the package was installed from, as far as that is known."""
    clone = Path(__file__).parent.parent
    if (clone / "setup.cfg").exists():
        return clone
    import json
    from importlib import metadata
    from urllib.parse import unquote, urlsplit
    from urllib.request import url2pathname

    from tf_compemb import __version__

    wheel = Path(f"tf_compemb-{__version__}-py3-none-any.whl")
    try:  # PEP 610.
        origin = metadata.distribution("tf_compemb").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return wheel
    url = urlsplit(json.loads(origin)["url"]) if origin else None
    return Path(url2pathname(unquote(url.path))) if url and url.scheme == "file" else wheel


def _shown(path: Path) -> str:
    """A path as one would type it in the current folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
