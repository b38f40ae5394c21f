"""Files of generated rows in Criteo's raw format, of any size, with the truth beside them."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from tf_compemb.data.best_achievable import BestAchievable
from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS, COLUMNS, SPLITS, split_rows
from tf_compemb.data.errors import DataError
from tf_compemb.data.manifest import sha256_of, truth_path
from tf_compemb.data.new_folder import require_absent
from tf_compemb.data.progress import Progress
from tf_compemb.data.raw_reader import PathLike
from tf_compemb.data.synthetic_rows import (
    CLICK_RATE,
    ClickModel,
    SyntheticRows,
    category_codes,
    scaled_cardinalities,
)

GENERATOR_VERSION = 1
CHUNK_ROWS = 1 << 15
_WRITE = pa_csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")


def generate(
    path: PathLike,
    rows: int,
    seed: int = 0,
    *,
    cardinalities: Sequence[int] | None = None,
    click_rate: float = CLICK_RATE,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes generated rows in Criteo's raw format, and what is true of them to `PATH.truth.json`.

    `prepare` finds that file and marks the data as synthetic. The categories are long-tailed, the
    click probability is a logistic model of all columns. The first rows of a longer file are those
    of a shorter one with the same arguments.

    Args:
        path: the file to make, gzip if its name ends in `.gz`; it must not exist.
        rows: at least 1.
        seed: a non-negative integer; other seeds have other rows and other effects.
        cardinalities: for C1..C26, how many categories to draw from; by default the Kaggle data's,
            shrunk so that some 100,000 rows are enough to learn from (`KAGGLE_CARDINALITIES` for
            the full ones).
        click_rate: mean click probability, between 0 and 1.
        progress: say on standard error how far it is: a bar on a terminal, lines elsewhere.

    Returns:
        What the truth file holds: the settings, and for `"all"`, `"train"`, `"validation"` and
        `"test"` rows the AUC and log loss of the true probabilities, the best that any model can
        be expected to reach.

    Raises:
        DataError: an argument is out of range, or the file exists or cannot be written.

    >>> import pathlib, tempfile
    >>> raw = pathlib.Path(tempfile.mkdtemp()) / "rows.txt"
    >>> truth = generate(raw, rows=50, seed=1)
    >>> len(raw.read_text().splitlines()), truth["rows"], sorted(truth["best"]["all"])
    (50, 50, ['auc', 'log_loss'])
    """
    target = Path(path)
    sizes = tuple(scaled_cardinalities() if cardinalities is None else cardinalities)
    _check_arguments(rows, seed, sizes, click_rate)
    beside = truth_path(target)
    require_absent(target)
    partial, partial_truth = (_partial(name) for name in (target, beside))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        best = _write_rows(partial, target.suffix == ".gz", rows, sizes, seed, click_rate, progress)
        truth = {
            "generator_version": GENERATOR_VERSION,
            "rows": rows,
            "seed": seed,
            "cardinalities": list(sizes),
            "click_rate": click_rate,
            "best": best,
            "sha256": sha256_of(partial),
        }
        partial_truth.write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
        # The truth first: rows never lie there without the word that they are not real.
        os.replace(partial_truth, beside)
        os.replace(partial, target)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}); check the folder and its "
            "free space."
        ) from error
    finally:
        for leftover in (partial, partial_truth):
            _remove(leftover)
    return truth


def _write_rows(
    path: Path,
    compress: bool,
    rows: int,
    sizes: tuple[int, ...],
    seed: int,
    click_rate: float,
    progress: bool,
) -> dict[str, dict[str, float | None]]:
    model = ClickModel(seed, sizes, click_rate)
    best = {name: BestAchievable() for name in ("all", *SPLITS)}
    splits = {"all": (0, rows), **split_rows(rows)}
    with open(path, "wb") as disk, Progress("generating", None, enabled=progress) as bar:
        # Neither name nor time goes into the gzip header: the same bytes for the same arguments.
        file: Any = gzip.GzipFile("", "wb", 1, disk, mtime=0) if compress else disk
        with file:
            for start in range(0, rows, CHUNK_ROWS):
                # Always a whole chunk is drawn, so that the rows do not depend on their number.
                chunk = model.rows(start // CHUNK_ROWS, CHUNK_ROWS)
                count = min(CHUNK_ROWS, rows - start)
                bar.add_bytes(_write_text(file, chunk, count))
                for name, (first, last) in splits.items():
                    part = slice(max(0, first - start), max(0, min(count, last - start)))
                    best[name].add(chunk.probability[part], chunk.label[part])
                bar.add_rows(count)
    return {name: entry.result() for name, entry in best.items()}


def _write_text(file: BinaryIO, rows: SyntheticRows, count: int) -> int:
    """Writes the first `count` of the rows; returns the bytes of text."""
    columns = [pa.array(rows.label[:count].astype(np.int8))]
    for values, missing in zip(rows.dense.T, rows.dense_missing.T, strict=True):
        columns.append(pa.array(values[:count], mask=missing[:count]))
    for field in range(len(CATEGORICAL_FIELDS)):
        columns.append(_hexadecimal(field, rows.categorical[:count, field]))
    text = io.BytesIO()
    pa_csv.write_csv(pa.table(columns, names=list(COLUMNS)), text, _WRITE)
    return file.write(text.getbuffer())


def _hexadecimal(field: int, ranks: np.ndarray) -> pa.Array:
    """The categories as 8 hexadecimal digits, empty where the rank is -1."""
    present = ranks >= 0
    codes = category_codes(field, ranks[present])
    digits = codes.astype(">u4").tobytes().hex().encode()
    offsets = np.concatenate([[0], np.cumsum(8 * present)]).astype(np.int32)
    return pa.Array.from_buffers(
        pa.string(), len(ranks), [None, pa.py_buffer(offsets), pa.py_buffer(digits)]
    )


def _check_arguments(rows: int, seed: int, sizes: tuple[int, ...], click_rate: float) -> None:
    if rows < 1:
        raise DataError(f"`rows` must be at least 1. Received: rows={rows}")
    if seed < 0:
        raise DataError(f"`seed` must not be negative. Received: seed={seed}")
    if len(sizes) != len(CATEGORICAL_FIELDS) or not all(1 <= size < 2**32 for size in sizes):
        raise DataError(
            f"`cardinalities` must be {len(CATEGORICAL_FIELDS)} numbers from 1 to 2**32 - 1. "
            f"Received: {list(sizes)}"
        )
    if not 0 < click_rate < 1:
        raise DataError(f"`click_rate` must lie between 0 and 1. Received: {click_rate}")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


def _remove(path: Path) -> None:
    # Where the folder is none or cannot be written, the error in flight says so.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
