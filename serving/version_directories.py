"""Which numeric folders of a model's base directory hold a version that can be loaded."""

from __future__ import annotations

import re
import time
from pathlib import Path

_LARGEST_VERSION = 2**63 - 1
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")

Fingerprint = tuple[tuple[str, int, int], ...]


def find_versions(base: Path) -> dict[int, Path]:
    """Folders whose name is a number, whatever they hold; `0007` is version 7.

    Raises:
        OSError: The base directory cannot be read.
    """
    folders = [path for path in base.iterdir() if path.name.isascii() and path.name.isdigit()]
    return {
        int(path.name): path
        for path in sorted(folders)
        if int(path.name) <= _LARGEST_VERSION and path.is_dir()
    }


def fingerprint(version: Path) -> Fingerprint | None:
    """Names, sizes and times of change of a version's files, or None while files are missing.

    Written in full is a version with a `saved_model.pb` and, if it has a folder `variables`, an
    index and all the shards that the shards' names speak of. The times are those that the file
    system sets itself: a copy that keeps the times of the original does not look old.
    """
    try:
        files = {
            path.relative_to(version).as_posix(): path.stat()
            for path in sorted(version.rglob("*"))
            if path.is_file()
        }
    except OSError:
        return None
    if "saved_model.pb" not in files or files["saved_model.pb"].st_size == 0:
        return None
    if (version / "variables").is_dir() and not _has_all_variables(set(files)):
        return None
    return tuple((name, found.st_size, found.st_ctime_ns) for name, found in files.items())


def seconds_at_rest(files: Fingerprint) -> float:
    """How long ago the last of the files was written."""
    return time.time() - max(changed for _, _, changed in files) / 1e9


def _has_all_variables(files: set[str]) -> bool:
    shards = [
        _SHARD.fullmatch(name.removeprefix("variables/"))
        for name in files
        if name.startswith("variables/")
    ]
    counts = {int(shard[2]) for shard in shards if shard}
    found = sum(shard is not None for shard in shards)
    return "variables/variables.index" in files and counts == {found}
