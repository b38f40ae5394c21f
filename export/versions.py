"""Version directories, `BASE/3/`, that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tf_compemb.export.errors import ExportError

# No integer, so that TF-Serving never takes it for a version.
_PARTIAL = re.compile(r"\.partial-(?P<host>.+)-(?P<process>\d+)")


def next_version(base: Path) -> int:
    """One more than the highest version in a directory; 1 where there is none."""
    names = [entry.name for entry in base.iterdir()] if base.is_dir() else []
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


@contextlib.contextmanager
def partial_version(base: Path) -> Iterator[tuple[Path, Callable[[int | None], Path]]]:
    """A temporary directory, and a function that publishes it as a version.

    What a killed export has left is removed first. Where the block ends without publishing, the
    temporary directory is removed and nothing else has changed.

    Args:
        base: The model's directory, whose versions are its numbered sub-directories.

    Yields:
        The directory to write to, and `publish(version)`: it renames that directory to the
        version, or to the next free one for None, and returns its path.

    Raises:
        ExportError: `publish` was given a version that exists.
    """
    base.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(base)
    partial = base / f".partial-{socket.gethostname()}-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial, lambda version: _publish(partial, base, version)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            base.rmdir()  # Only where it is empty: nothing was published.


def check_version(base: Path, version: int | None) -> None:
    """Raises if a version cannot be published.

    Raises:
        ExportError: It is no positive integer, or exists.
    """
    if version is None:
        return
    if version < 1:
        raise ExportError(f"A version is a positive integer, not {version}.")
    taken = [n.name for n in base.glob("*") if n.name.isdecimal() and int(n.name) == version]
    if taken:
        raise ExportError(
            f"{base / taken[0]} exists, and a version never changes: leave the version out to get "
            f"{next_version(base)}."
        )


def _publish(partial: Path, base: Path, version: int | None) -> Path:
    _sync(partial)
    while True:
        target = base / str(next_version(base) if version is None else version)
        try:
            # Fails where the target exists: a version is never empty.
            os.rename(partial, target)
        except OSError as error:
            if not target.exists():
                raise
            if version is not None:
                raise ExportError(f"{target} exists, and a version never changes.") from error
        else:
            return target


def _sync(folder: Path) -> None:
    """Makes written files outlast a power failure."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _remove_leftovers(base: Path) -> None:
    for entry in base.iterdir():
        found = _PARTIAL.fullmatch(entry.name)
        if found and found["host"] == socket.gethostname() and _is_dead(int(found["process"])):
            print(f"{entry}: removed, left by an export that was killed.", file=sys.stderr)
            shutil.rmtree(entry, ignore_errors=True)


def _is_dead(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return process == os.getpid()
