"""A grid file: which models, methods, settings and optimisers an experiment trains."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_compemb.json_text import read_json
from tf_compemb.training.errors import UserError
from tf_compemb.training.option_types import (
    LARGEST_INTEGER,
    LARGEST_NUMBER,
    LEAST_NUMBER,
    MOST_SEEDS,
)

GRIDS = Path(__file__).parent / "grids"
BUDGET = "budget"
PLOTS = ("training", "parameters", "threshold", "sizes", "hidden", "bytes")
MODELS = ("dcn", "dlrm")
DEFAULT_SEEDS = 5
_DEFAULT_OPTIMIZERS = ({"optimizer": "adagrad"},)

_GRID_KEYS = (
    *("title", "source", "about", "plot", "models", "seeds", "optimizers", "settings"),
    *("validations_per_epoch", "baselines", "full_tables_share", "vary", "series", "comparisons"),
)
_SERIES_KEYS = ("name", "label", "embedding", "settings", "vary", "every_method")
_COMPARISON_KEYS = ("title", "this", "with")


@dataclass(frozen=True)
class Series:
    """Points of one method, which differ in one setting.

    Attributes:
        name: Of the series in tables and in `--only`.
        label: In figures.
        embedding: Method.
        settings: Options of the training program, or of the method, for all points.
        varied: The setting that differs, or None for a single point. "budget" is the number that
            the bytes of all full tables are divided by.
        values: Of the varied setting; `(None,)` for a single point.
    """

    name: str
    label: str
    embedding: str
    settings: Mapping[str, Any]
    varied: str | None
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Comparison:
    """Two points that are compared by name: (series, value of its varied setting or None)."""

    title: str
    this: tuple[str, Any]
    other: tuple[str, Any]


@dataclass(frozen=True)
class Grid:
    """An experiment, as its file says it.

    Attributes:
        name: The experiment's.
        title: Of its figure.
        source: What it repeats.
        about: What a reader has to know of it.
        plot: Kind of figure, one of `PLOTS`.
        models: Networks that are trained.
        seeds: Trials of each point.
        optimizers: Settings of each optimiser that is tried; the best by validation loss is kept.
        settings: For all series.
        validations_per_epoch: How often the validation loss is taken.
        baselines: Series that every point is compared with: with the point of the same value, or
            with the only point.
        full_tables_share: Share of a budget for full tables of the smallest fields.
        series: What is compared.
        comparisons: Further pairs of points.
    """

    name: str
    title: str
    source: str
    about: str
    plot: str
    models: tuple[str, ...]
    seeds: int
    optimizers: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    validations_per_epoch: int
    baselines: tuple[str, ...]
    full_tables_share: float
    series: tuple[Series, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def is_trained(self) -> bool:
        """False for a figure of sizes alone."""
        return self.plot != "sizes"

    def has_point(self, series: str, value: Any) -> bool:
        """Whether a series of that name has that value."""
        values = [v for s in self.series if s.name == series for v in s.values]
        return json.dumps(value) in map(json.dumps, values)


def single_value(value: Any) -> Any:
    """The element of a list of one, or the value as it is.

    >>> single_value([16]), single_value([16, 8])
    (16, [16, 8])
    """
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def grid_names() -> list[str]:
    """Names of the grids that come with the package, sorted.

    >>> "figure5" in grid_names()
    True
    """
    return sorted(path.stem for path in GRIDS.glob("*.json"))


def read_grid(path: Path, methods: list[str]) -> Grid:
    """Reads a grid file.

    Args:
        path: JSON.
        methods: Names of all methods, for `"every_method": true`.

    Raises:
        UserError: The file cannot be read, or is no grid; the message says where.
    """
    try:
        content = read_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"The grid {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"The grid {path} is not JSON: {error}.") from error
    try:
        return _grid(path.stem, content, methods)
    except _Fault as fault:
        raise UserError(f"The grid {path}: {fault}.") from None


class _Fault(Exception):  # noqa: N818  Becomes a UserError with the file's name.
    pass


def _grid(name: str, content: Any, methods: list[str]) -> Grid:
    _check_keys("the grid", content, _GRID_KEYS, needed=("title", "plot", "series"))
    series = tuple(
        s for entry in _list(content, "series") for s in _series(entry, content, methods)
    )
    names = [s.name for s in series]
    if len(set(names)) < len(names):
        raise _Fault(f"two series have one name: {', '.join(names)}")
    grid = Grid(
        name=name,
        title=_text(content, "title"),
        source=_text(content, "source"),
        about=_text(content, "about"),
        plot=_one_of(content["plot"], "plot", PLOTS),
        models=tuple(_one_of(m, "models", MODELS) for m in _list(content, "models", MODELS)),
        seeds=_count(content.get("seeds", DEFAULT_SEEDS), "seeds", MOST_SEEDS),
        optimizers=tuple(map(_optimizer, _list(content, "optimizers", _DEFAULT_OPTIMIZERS))),
        settings=_mapping(content.get("settings", {}), "settings"),
        validations_per_epoch=_count(
            content.get("validations_per_epoch", 1), "validations_per_epoch"
        ),
        baselines=tuple(_list(content, "baselines", ())),
        full_tables_share=_share(content.get("full_tables_share", 0.1)),
        series=series,
        comparisons=tuple(map(_comparison, _list(content, "comparisons", ()))),
    )
    _check_references(grid)
    return grid


def _series(entry: Any, grid: Mapping[str, Any], methods: list[str]) -> list[Series]:
    _check_keys("a series", entry, _SERIES_KEYS, needed=())
    settings = _mapping(entry.get("settings", {}), "settings of a series")
    varied, values = _vary(entry["vary"] if "vary" in entry else grid.get("vary"))
    if entry.get("every_method"):
        taken = [other.get("embedding") for other in grid["series"]]
        free = [name for name in methods if name not in taken]
        return [Series(name, name, name, settings, varied, values) for name in free]
    if not isinstance(entry.get("name"), str) or not isinstance(entry.get("embedding"), str):
        raise _Fault(f"a series needs a name and an embedding: {json.dumps(entry)}")
    name = entry["name"]
    return [Series(name, entry.get("label", name), entry["embedding"], settings, varied, values)]


def _vary(entry: Any) -> tuple[str | None, tuple[Any, ...]]:
    if entry is None:
        return None, (None,)
    if not isinstance(entry, dict) or len(entry) != 1:
        raise _Fault('"vary" must name one setting and its values, as {"collisions": [2, 4]}')
    ((varied, values),) = entry.items()
    if not isinstance(values, list) or not values:
        raise _Fault(f'"vary" must give a list of values of {varied}')
    if varied == BUDGET and not all(isinstance(v, (int, float)) and v >= 1 for v in values):
        raise _Fault("a budget must be a number from 1 on, which the full tables are divided by")
    return varied, tuple(values)


def _optimizer(entry: Any) -> dict[str, Any]:
    _check_keys("an optimizer", entry, ("optimizer", "learning_rate"), needed=("optimizer",))
    from tf_compemb.optimizers.names import NAMES

    _one_of(entry["optimizer"], "optimizer", NAMES)
    rate = entry.get("learning_rate", 1.0)
    is_number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
    if not is_number or not LEAST_NUMBER <= rate <= LARGEST_NUMBER:
        raise _Fault(f"'learning_rate' must be a positive number, not {json.dumps(rate)}")
    return dict(entry)


def _comparison(entry: Any) -> Comparison:
    _check_keys("a comparison", entry, _COMPARISON_KEYS, needed=_COMPARISON_KEYS)
    sides = [entry["this"], entry["with"]]
    if not all(isinstance(side, list) and len(side) == 2 for side in sides):
        raise _Fault('a comparison names points as ["mult", 60], series and value')
    this, other = ((side[0], side[1]) for side in sides)
    return Comparison(entry["title"], this, other)


def _check_references(grid: Grid) -> None:
    for name in grid.baselines:
        if name not in [s.name for s in grid.series]:
            raise _Fault(f"the baseline {name!r} is no series")
    for comparison in grid.comparisons:
        for name, value in (comparison.this, comparison.other):
            if not grid.has_point(name, value):
                raise _Fault(f"the comparison {comparison.title!r} has no point {[name, value]}")


def _check_keys(what: str, entry: Any, known: tuple[str, ...], needed: tuple[str, ...]) -> None:
    if not isinstance(entry, dict):
        raise _Fault(f"{what} must be an object in braces, not {json.dumps(entry)}")
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise _Fault(f"{what} has the unknown key {unknown[0]!r}; known: {', '.join(known)}")
    missing = [key for key in needed if key not in entry]
    if missing:
        raise _Fault(f"{what} lacks {missing[0]!r}")


def _list(content: Mapping[str, Any], key: str, default: Sequence[Any] | None = None) -> list[Any]:
    """The entries of a list; without a default there must be some."""
    if key not in content and default is not None:
        return list(default)
    value = content[key]
    if not isinstance(value, list) or not (value or default == ()):
        raise _Fault(f"{key!r} must be a list with entries")
    return value


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Fault(f"{what} must be an object in braces, not {json.dumps(value)}")
    return value


def _text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise _Fault(f"{key!r} must be text, not {json.dumps(value)}")
    return value


def _one_of(value: Any, what: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise _Fault(f"{what!r} must be of {', '.join(choices)}, not {json.dumps(value)}")
    return value


def _share(value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise _Fault(f"'full_tables_share' must be from 0 to 1, not {json.dumps(value)}")
    return float(value)


def _count(value: Any, what: str, most: int = LARGEST_INTEGER) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise _Fault(f"{what!r} must be an integer from 1 to {most}, not {json.dumps(value)}")
    return value
