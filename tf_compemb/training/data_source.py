"""Which data a run reads: given, prepared already, or generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tf_compemb._cache import cache_folder
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions
from tf_compemb.training.run_directory import RunDirectory, check_writable

_DATA_OPTIONS = ("encoder", "min_count", "hash_buckets", "bad_lines")
_GENERATOR_SEED = 0  # Runs of different seeds train on the same generated rows.


def cache_directory(options: TrainingOptions) -> Path:
    """Where prepared data are kept: --cache, $TF_COMPEMB_CACHE, or the user's cache directory."""
    if options.cache is not None:
        return Path(options.cache)
    return cache_folder()


def open_data(options: TrainingOptions) -> Any:
    """The `PreparedDataset` that the options name, prepared first where it has to be.

    Raises:
        UserError: The data cannot be read (the message is the data package's own), or have no row
            to train on.
    """
    data = _open(options)
    if data.split_size("train") < 1:
        raise UserError(
            f"{', '.join(options.data) or 'The generated data'}: none of {data.rows} row is to "
            "train on, which the first six sevenths are, rounded down; give at least 2 rows."
        )
    return data


def _open(options: TrainingOptions) -> Any:
    from tf_compemb.data import DataError, open_or_prepare

    cache = cache_directory(options)
    asked = {name: getattr(options, name) for name in _DATA_OPTIONS}
    settings = {name: value for name, value in asked.items() if value is not None}
    try:
        if not options.data:
            return _generated(options.rows, cache, settings)
        paths = list(options.data)
        return open_or_prepare(paths[0] if len(paths) == 1 else paths, cache, **settings)
    except DataError as error:
        raise UserError(str(error)) from error


def _generated(rows: int, cache: Path, settings: dict[str, Any]) -> Any:
    """Generated rows, made once and kept in the cache."""
    from tf_compemb.data import generate, open_or_prepare
    from tf_compemb.data.generator import GENERATOR_VERSION

    check_writable(cache, "--cache")
    raw = cache / f"generated-v{GENERATOR_VERSION}-{rows}-rows.txt.gz"
    if not raw.exists():
        cache.mkdir(parents=True, exist_ok=True)
        generate(raw, rows, _GENERATOR_SEED)
    return open_or_prepare(raw, cache, **settings)


def best_achievable(data: Any) -> dict[str, float]:
    """What no model can be expected to beat on generated rows; nothing for real ones.

    Args:
        data: `PreparedDataset`.

    Returns:
        `best_achievable_loss` (nats) and `best_achievable_auc` of the true probabilities on the
        test rows; empty unless the rows were generated as one file.
    """
    best = ((data.manifest.get("generator") or {}).get("best") or {}).get("test")
    if best is None:
        return {}
    return {"best_achievable_loss": best["log_loss"], "best_achievable_auc": best["auc"]}


def data_of_run(run: RunDirectory) -> Any:
    """The prepared data set that a run was started with.

    Raises:
        UserError: There is no run, or its data are gone or others.
    """
    from tf_compemb.data import DataError, PreparedDataset

    stored = run.read_single_config()["data"]
    try:
        dataset = PreparedDataset(stored["path"])
    except DataError as error:
        raise UserError(
            f"The prepared data of the run in {run.path}, and its vocabulary with them, cannot be "
            f"opened: {error}"
        ) from error
    if dataset.fingerprint != stored["fingerprint"]:
        raise UserError(
            f"{stored['path']} no longer holds the data that the run in {run.path} was trained on."
        )
    return dataset
