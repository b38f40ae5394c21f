"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tf_compemb.data.errors import BeingPreparedError, DataError

if sys.platform == "win32":
    fcntl = None  # no locks there: two preparations of one folder are not told apart
else:
    import fcntl


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `target` that becomes `target` when the block succeeds.

    When the block fails the temporary folder is removed. When the process is killed or interrupted
    it stays, as `.NAME.partial`, and the next call for the same target gets it as it was left.
    While it is in use it is locked.

    Raises:
        DataError: `target` exists, its place cannot be written, or another process is making it.
    """
    require_absent(target)
    partial = partial_path(target)
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    lock = _create_locked(partial, target)
    try:
        with _writing(target):
            yield partial
            sync_folder(partial)
            require_absent(target)
            os.rename(partial, target)
            sync_folder(target.parent)
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def partial_path(target: Path) -> Path:
    """Where the unfinished `target` lies."""
    return target.parent / f".{target.name}.partial"


def require_absent(target: Path) -> None:
    """Raises a `DataError` if something is at `target` already."""
    if os.path.lexists(target):
        raise DataError(f"{target}: already exists; choose another output or remove it first.")


def wait_until_free(target: Path) -> None:
    """Returns when no other process makes `target` any more."""
    if fcntl is None:
        return
    try:
        lock = os.open(partial_path(target), os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


def sync_file(path: Path) -> None:
    """Makes a written file outlast a power failure."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Makes the names in a folder outlast a power failure (where the system can)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        hint = "free some space" if error.errno == errno.ENOSPC else "check the folder's rights"
        raise DataError(f"{target}: cannot be written ({cause}); {hint}.") from error


def _create_locked(partial: Path, target: Path) -> int:
    """Makes the temporary folder and returns the open descriptor that holds its lock."""
    with _writing(target):
        partial.mkdir(exist_ok=True)
        lock = os.open(partial, os.O_RDONLY)
        try:
            _lock(lock, partial, target)
            require_absent(target)
        except BaseException:
            os.close(lock)
            raise
        return lock


def _lock(lock: int, partial: Path, target: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.path.samestat(os.fstat(lock), os.stat(partial))
    except (BlockingIOError, FileNotFoundError):
        same = False
    if not same:
        raise BeingPreparedError(
            f"{target}: another process is preparing it now; wait for it, or choose another output."
        )
