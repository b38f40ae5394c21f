"""`manifest.json`: what a prepared data set is, in one file that is the same for the same input."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tf_compemb.data.criteo_format import (
    CATEGORICAL_FIELDS,
    DENSE_FIELDS,
    DENSE_TRANSFORM,
    LABEL,
    SPLITS,
)
from tf_compemb.data.errors import DataError
from tf_compemb.data.raw_reader import RawSource

MANIFEST_FILE = "manifest.json"
ROWS_FILE = "rows.bin"
# Working files of a preparation; not there any more in a finished data set.
WORK_FOLDER = "work"
FORMAT = "tf_compemb prepared Criteo data"
FORMAT_VERSION = 1
TRUTH_SUFFIX = ".truth.json"


def frequencies_file(field: str) -> str:
    """The file of a field's training counts, within the data set."""
    return f"frequencies/{field}.npy"


def vocabulary_file(field: str) -> str:
    """The file of a field's categories, within the data set."""
    return f"vocabulary/{field}.arrow"


def truth_path(raw: Path) -> Path:
    """Where `generate` writes what it knows of the raw file it made."""
    return raw.with_name(raw.name + TRUTH_SUFFIX)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def find_truth(paths: list[Path], sources: list[RawSource]) -> dict[str, Any] | None:
    """Returns what is known of generated raw files, or None when all of them are real.

    Raises:
        DataError: a truth file cannot be read, or belongs to another raw file.
    """
    truths = []
    for path, source in zip(paths, sources, strict=True):
        beside = truth_path(path)
        if not beside.exists():
            continue
        try:
            truth = json.loads(beside.read_text(encoding="utf-8"))
            digest = truth["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{beside}: is not a truth file of `generate`; remove it.") from error
        if digest != source.sha256:
            raise DataError(
                f"{beside}: does not belong to {path.name} (the SHA-256 differs); remove it, or "
                "generate the rows again."
            )
        truths.append(truth)
    if not truths:
        return None
    return truths[0] if len(truths) == len(paths) == 1 else {"parts": truths}


def write_manifest(
    folder: Path,
    *,
    rows: int,
    splits: Mapping[str, tuple[int, int]],
    cardinalities: list[int],
    encoder: Mapping[str, object],
    id_type: str,
    sources: list[RawSource],
    bad_lines: int,
    synthetic: Mapping[str, Any] | None,
    digests: Mapping[str, str],
) -> None:
    """Writes the manifest of a complete folder; every other file in it is listed with its hash.

    Working files are left out.

    Args:
        folder: holds all files of the data set except the manifest.
        rows, splits, cardinalities, encoder, id_type, sources: as in the manifest.
        bad_lines: how many lines were left out.
        synthetic: what is known of generated rows; None for real ones.
        digests: SHA-256 of files for which it is known already.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "schema": {
            "label": LABEL,
            "dense": list(DENSE_FIELDS),
            "categorical": list(CATEGORICAL_FIELDS),
        },
        "record": {"label": "float32", "dense": "float32", "categorical": id_type},
        "dense_transform": DENSE_TRANSFORM,
        "encoder": dict(encoder),
        "cardinalities": cardinalities,
        "rows": rows,
        "splits": {name: list(splits[name]) for name in SPLITS},
        "bad_lines": bad_lines,
        "synthetic": synthetic is not None,
        "generator": None if synthetic is None else dict(synthetic),
        "files": _list_files(folder, digests),
    }
    content["fingerprint"] = fingerprint_of(content)
    content["sources"] = [asdict(source) for source in sources]
    with open(folder / MANIFEST_FILE, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a manifest without its sources' names: equal for equal data and settings."""
    kept = {key: content[key] for key in sorted(content) if key not in ("fingerprint", "sources")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of a prepared data set whose files have their right sizes.

    Raises:
        DataError: the folder is missing, is no prepared data set, is of a newer format, or is
            damaged.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        what = "is not a prepared data set" if folder.is_dir() else "there is no such folder"
        raise DataError(
            f"{folder}: {what}; give a folder that `tf-compemb data prepare` has written."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); prepare the data again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{folder}: is not a prepared data set; give one that `prepare` wrote.")
    if content["format_version"] != FORMAT_VERSION:
        raise DataError(
            f"{folder}: has format version {content['format_version']}, this program reads "
            f"{FORMAT_VERSION}; prepare the data again."
        )
    if fingerprint_of(content) != content["fingerprint"]:
        raise DataError(f"{path}: was changed by hand or damaged; prepare the data again.")
    for name, entry in content["files"].items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise DataError(
                f"{file}: {found}, the manifest says {entry['bytes']} bytes; prepare the data "
                "again."
            )
    return content


def _list_files(folder: Path, digests: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and folder / WORK_FOLDER not in path.parents
    )
    return {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": digests.get(name) or sha256_of(folder / name),
        }
        for name in names
    }
