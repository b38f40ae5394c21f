"""What the QR paper states (Shi et al. 2020, https://arxiv.org/abs/1909.02107), beside ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tf_compemb.experiments.summary import kept_rows

Row = Mapping[str, Any]

# Table 1, by model and hidden units: parameters and test loss.
TABLE_1: dict[tuple[str, int], tuple[int, float]] = {
    ("dcn", 16): (135_464_410, 0.45263),
    ("dcn", 32): (135_519_322, 0.45254),
    ("dcn", 64): (135_629_146, 0.45252),
    ("dcn", 128): (135_848_794, 0.4534),
    ("dlrm", 16): (135_581_537, 0.45349),
    ("dlrm", 32): (135_636_449, 0.45312),
    ("dlrm", 64): (135_746_273, 0.45306),
    ("dlrm", 128): (135_965_921, 0.45651),
}
# Section 5.2: how far above the full tables' loss QR by multiplication is at 4 collisions.
_GAP_AT_4 = {"dcn": "within 0.3 %", "dlrm": "within 0.7 %"}
_BEST_WITH_THRESHOLD = {"dcn": "mult", "dlrm": "concat"}


@dataclass(frozen=True)
class Statement:
    """A statement of the paper and what was found here."""

    model: str
    what: str
    paper: str
    ours: str


def table_1(model: str, value: Any) -> tuple[int, float] | None:
    """The paper's parameters and test loss for `hidden_units`, or None where it has none."""
    if isinstance(value, list) and len(value) == 1:
        return TABLE_1.get((model, value[0]))
    return None


def statements(summary: Iterable[Row]) -> list[Statement]:
    """The paper's statements about figures 4 to 6 that the summary has numbers for."""
    rows = list(summary)
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        for make in (_order, _gap, _sixty_against_four, _amsgrad, _best_with_threshold):
            statement = make(model, [row for row in rows if row["model"] == model])
            if statement is not None:
                found.append(statement)
    return found


class _At(NamedTuple):
    experiment: str
    series: str
    value: str | None


def _kept(rows: Iterable[Row], model: str, at: _At) -> Row | None:
    names = ("experiment", "series", "value")
    return next((r for r in kept_rows(rows, model) if tuple(r[name] for name in names) == at), None)


def _order(model: str, rows: list[Row]) -> Statement | None:
    found = {
        name: _kept(rows, model, _At("figure4", name, None)) for name in ("full", "mult", "hash")
    }
    by_loss = sorted(
        (row["validation_loss"], name)
        for name, row in found.items()
        if row is not None and row["validation_loss"] is not None
    )
    if len(by_loss) < len(found):
        return None
    ours = " < ".join(f"{name} ({loss:.4f})" for loss, name in by_loss)
    what = "figure 4: validation loss at the end, 4 collisions"
    return Statement(model, what, "full < mult < hash", ours)


def _gap(model: str, rows: list[Row]) -> Statement | None:
    full = _kept(rows, model, _At("figure5", "full", None))
    mult = _kept(rows, model, _At("figure5", "mult", "4"))
    if full is None or mult is None:
        return None
    gap = mult["test_loss"] / full["test_loss"] - 1
    return Statement(
        model,
        "test loss of mult at 4 collisions over that of the full tables",
        _GAP_AT_4[model],
        f"{gap:+.2%} ({difference_text(mult, 'full')})",
    )


def _sixty_against_four(model: str, rows: list[Row]) -> Statement | None:
    hashed = _kept(rows, model, _At("figure5", "hash", "4"))
    mult = _kept(rows, model, _At("figure5", "mult", "60"))
    if hashed is None or mult is None:
        return None
    ours = f"{mult['test_loss']:.4f} against {hashed['test_loss']:.4f}"
    what = "figure 5: mult at 60 collisions against hash at 4, test loss"
    return Statement(model, what, "not above, about 15 times smaller", ours)


def _amsgrad(model: str, rows: list[Row]) -> Statement | None:
    at = _At("figure5", "mult", "4")
    losses = {
        row["optimizer"]: row["test_loss"]
        for row in rows
        if (row["experiment"], row["series"], row["value"]) == at and row["seeds"]
    }
    if {"adagrad", "amsgrad"} - losses.keys():
        return None
    ours = f"AMSGrad {losses['amsgrad']:.4f}, Adagrad {losses['adagrad']:.4f}"
    what = "test loss of mult at 4 collisions by optimiser"
    return Statement(model, what, "AMSGrad clearly better", ours)


def _best_with_threshold(model: str, rows: list[Row]) -> Statement | None:
    compressed = [
        row
        for row in kept_rows(rows, model)
        if row["experiment"] == "figure6" and row["value"] is not None
    ]
    if not compressed:
        return None
    best = min(compressed, key=lambda row: row["test_loss"])
    ours = f"{best['series']} at {best['value']}: {best['test_loss']:.4f}"
    what = "figure 6: the best operation with thresholds"
    return Statement(model, what, _BEST_WITH_THRESHOLD[model], ours)


def difference_text(row: Row, baseline: str) -> str:
    """The difference to a baseline with its interval and verdict; "" where there is none.

    >>> difference_text({"loss_minus_hash": -0.0071, "loss_minus_hash_half_width": 0.002,
    ...                  "loss_minus_hash_verdict": "lower"}, "hash")
    '-0.0071 ± 0.0020, lower'
    """
    name = f"loss_minus_{baseline}"
    if row[name] is None:
        return ""
    width = row[f"{name}_half_width"]
    interval = "" if width is None else f" ± {width:.4f}"
    return f"{row[name]:+.4f}{interval}, {row[f'{name}_verdict']}"
