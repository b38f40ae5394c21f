"""Parameters of a grid's points on given cardinalities, without training, beside the paper's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tf_compemb.experiments.grid import BUDGET, Grid
from tf_compemb.experiments.paper import table_1
from tf_compemb.experiments.plan import points_of
from tf_compemb.training.options import TrainingOptions

COLUMNS = (
    *("cardinalities", "ids", "experiment", "model", "series", "varied", "value"),
    *("parameters", "embedding_parameters", "embedding_bytes"),
    *("paper_parameters", "difference", "relative_difference"),
)


def count_rows(
    grid: Grid, models: Sequence[str], name: str, cardinalities: Sequence[int]
) -> list[dict[str, Any]]:
    """One row for each point of a grid that needs no byte budget.

    Args:
        grid: The experiment.
        models: Networks.
        name: Of the cardinalities, such as "kaggle".
        cardinalities: Ids of each field.

    Returns:
        Values by the names of `COLUMNS`; the paper's columns are None where it gives no number.
        `relative_difference` is ours over the paper's, less 1.
    """
    if any(series.varied == BUDGET for series in grid.series):
        return []
    rows = []
    for point in points_of(grid, models, cardinalities, TrainingOptions(), {}):
        assert point.sizes is not None
        row: dict[str, Any] = {
            **dict.fromkeys(COLUMNS),
            "cardinalities": name,
            "ids": sum(cardinalities),
            "experiment": grid.name,
            "model": point.model,
            "series": point.series.name,
            "varied": point.series.varied,
            "value": None if point.value is None else json.dumps(point.value),
            "parameters": point.sizes.parameters,
            "embedding_parameters": point.sizes.embedding_parameters,
            "embedding_bytes": point.sizes.embedding_bytes,
        }
        stated = table_1(point.model, point.value) if grid.name == "table1" else None
        if stated is not None:
            row["paper_parameters"] = stated[0]
            row["difference"] = row["parameters"] - stated[0]
            row["relative_difference"] = row["difference"] / stated[0]
        rows.append(row)
    return rows
