"""Prepared data by whatever name the user gives it: opened, or prepared once and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_compemb.data.encoders import DEFAULT_HASH_BUCKETS
from tf_compemb.data.errors import BeingPreparedError, DataError
from tf_compemb.data.manifest import FORMAT_VERSION, MANIFEST_FILE, TRUTH_SUFFIX
from tf_compemb.data.new_folder import wait_until_free
from tf_compemb.data.preparation import prepare
from tf_compemb.data.prepared_dataset import PreparedDataset
from tf_compemb.data.raw_reader import PathLike, find_raw_files

# The options of `prepare` that change what is written, with their defaults.
_SETTINGS: dict[str, Any] = {
    "encoder": "vocabulary",
    "min_count": 1,
    "hash_buckets": DEFAULT_HASH_BUCKETS,
    "bad_lines": "error",
    "max_bad_share": 0.01,
}


def open_or_prepare(
    data: PathLike | Sequence[PathLike], cache: PathLike, **options: Any
) -> PreparedDataset:
    """Opens a prepared data set, or prepares raw files once and opens the result from then on.

    Args:
        data: the folder of a prepared data set; or raw files as for `prepare`.
        cache: the folder in which prepared data are kept, one folder for each combination of raw
            files (by path, size and time of change) and options. When another process is preparing
            the same, its result is waited for.
        **options: as for `prepare`. With a prepared data set, `encoder`, `min_count` and
            `hash_buckets` are compared with it if they are given.

    Raises:
        DataError: as for `prepare`, or the options contradict the prepared data set.
    """
    unknown = set(options) - set(_SETTINGS) - {"progress"}
    if unknown:
        raise TypeError(f"open_or_prepare got unexpected options: {', '.join(sorted(unknown))}")
    if isinstance(data, str | os.PathLike) and (Path(data) / MANIFEST_FILE).is_file():
        dataset = PreparedDataset(data)
        _check_options(dataset, options)
        return dataset
    files = find_raw_files(data)
    target = Path(cache) / f"criteo-{_identity(files, options)}"
    while not target.exists():
        try:
            return prepare(files, target, **options)
        except BeingPreparedError:
            wait_until_free(target)
        except DataError:
            if not target.exists():
                raise
    return PreparedDataset(target)


def _check_options(dataset: PreparedDataset, options: dict[str, Any]) -> None:
    stored = dataset.manifest["encoder"]
    for option in ("encoder", "min_count", "hash_buckets"):
        has = stored.get("name" if option == "encoder" else option)
        wanted = options.get(option, has)
        if has is not None and wanted != has:
            raise DataError(
                f"{dataset.path}: was prepared with {option}={has!r}, but {option}={wanted!r} is "
                "asked for; leave the option out, or give the raw files."
            )


def _identity(files: list[Path], options: dict[str, Any]) -> str:
    """A short name for what `prepare` would make of these files as they are now."""
    # A truth file counts, because it decides whether the data are called synthetic.
    present = [
        path
        for file in files
        for path in (file, file.with_name(file.name + TRUTH_SUFFIX))
        if path.exists()
    ]
    stamps = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in present
    ]
    settings = {name: options.get(name, default) for name, default in _SETTINGS.items()}
    text = json.dumps([FORMAT_VERSION, stamps, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
