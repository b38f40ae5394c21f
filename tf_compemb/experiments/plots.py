"""A figure for each experiment and model, as PNG and SVG."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_compemb.experiments.grid import Grid
from tf_compemb.training.run_directory import replacing

Row = Mapping[str, Any]

_MEASURES = {"test_loss": "test cross entropy (nats)", "test_auc": "test AUC"}
_COLORS = {"full": "black", "hash": "tab:gray", "frequency_threshold": "tab:olive"}
MARKERS = "osD^vPX*"
# More series than this are told apart by panels and not by colours.
_MOST_LINES = 9
_PANEL_COLUMNS = 4


@dataclass(frozen=True)
class FigureData:
    """What a figure shows.

    Attributes:
        grid: The experiment.
        model: Network.
        rows: Of the summary, the kept optimiser's.
        courses: For "training": by series, steps and validation losses of each seed.
        sizes: For "sizes": by caption, rows (series, value, parameters of the embeddings).
        synthetic: Whether the data were generated.
        measure: What is drawn upwards, `test_loss` or `test_auc`.
    """

    grid: Grid
    model: str
    rows: Sequence[Row]
    courses: Mapping[str, Sequence[tuple[Sequence[int], Sequence[float]]]]
    sizes: Mapping[str, Sequence[tuple[str, Any, int]]]
    synthetic: bool
    measure: str = "test_loss"

    @property
    def measure_label(self) -> str:
        """What is drawn upwards, for an axis."""
        return _MEASURES[self.measure]

    @property
    def labels(self) -> dict[str, str]:
        """Series to what figures call them."""
        return {series.name: series.label for series in self.grid.series}

    @property
    def title(self) -> str:
        """With the model, the number of seeds, and whether the data are real."""
        seeds = max((row["seeds"] for row in self.rows), default=0)
        what = f"{self.grid.title}, {self.model.upper()}"
        if seeds and self.grid.is_trained:
            spread = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ", one seed"
        else:
            spread = ""
        return f"{what}{spread}" + ("\n(synthetic data)" if self.synthetic else "")


def plot(figure: FigureData, stem: Path) -> list[Path]:
    """Draws a figure to `stem`.png and `stem`.svg.

    Returns:
        The two files.
    """
    draw = {
        "training": _training,
        "parameters": _against_size,
        "bytes": _against_size,
        "threshold": _threshold,
        "sizes": _sizes,
        "hidden": _hidden,
    }[figure.grid.plot]
    with empty_canvas() as canvas:
        draw(canvas, figure)
        canvas.suptitle(figure.title, fontsize="medium")
        return save_canvas(canvas, stem)


@contextmanager
def empty_canvas() -> Iterator[Any]:
    """An empty Matplotlib figure of this package's size."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The same file for the same numbers.
    with matplotlib.rc_context({"svg.hashsalt": "tf_compemb"}):
        figure = Figure(figsize=(8.5, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def save_canvas(canvas: Any, stem: Path) -> list[Path]:
    """Writes a figure to `stem`.png and `stem`.svg, the same bytes for the same figure."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    for path in paths:
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        with replacing(path) as temporary:
            canvas.savefig(temporary, dpi=130, metadata=metadata)
    return paths


def _training(canvas: Any, figure: FigureData) -> None:
    """Validation loss over steps, with a band of one standard deviation."""
    import numpy as np

    axes = canvas.subplots()
    shown = []
    for i, (name, label) in enumerate(figure.labels.items()):
        courses = figure.courses.get(name, ())
        if not courses:
            continue
        steps = courses[0][0]
        values = np.asarray([losses for _, losses in courses])
        mean = values.mean(axis=0)
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else 0 * mean
        axes.plot(steps, mean, "o-", color=_color(name, i), markersize=3, label=label)
        axes.fill_between(steps, mean - spread, mean + spread, color=_color(name, i), alpha=0.2)
        # The first points may lie far above all others, and would flatten them.
        settled = slice(len(mean) // 5, None)
        shown += [*(mean - spread)[settled], *(mean + spread)[settled]]
    _finish(axes, "training step", "validation cross entropy (nats)")
    if shown:
        margin = 0.08 * (max(shown) - min(shown)) or 0.01
        axes.set_ylim(min(shown) - margin, max(shown) + margin)


def _against_size(canvas: Any, figure: FigureData) -> None:
    """Test loss against parameters or bytes; one panel a method where there are many."""
    drawn = [name for name in figure.labels if any(row["series"] == name for row in figure.rows)]
    if len(drawn) > _MOST_LINES:
        _panels(canvas, figure, [name for name in drawn if name not in figure.grid.baselines])
        return
    axes = canvas.subplots()
    for i, name in enumerate(drawn):
        _size_line(axes, figure, name, i)
    _finish_size(axes, figure)


def _panels(canvas: Any, figure: FigureData, names: Sequence[str]) -> None:
    """A panel for each method, with the baselines in each."""
    rows = math.ceil(len(names) / _PANEL_COLUMNS)
    canvas.set_size_inches(3.3 * _PANEL_COLUMNS, 2.5 * rows + 0.6)
    panels = canvas.subplots(rows, _PANEL_COLUMNS, sharex=True, sharey=True, squeeze=False)
    for panel, name in zip(panels.flatten(), names, strict=False):
        for i, drawn in enumerate((*figure.grid.baselines, name)):
            _size_line(panel, figure, drawn, i)
        panel.set_title(figure.labels[name], fontsize="medium")
        _log_sizes(panel.xaxis, panel.set_xscale, subs=(1,))
        panel.grid(alpha=0.3)
    for panel in panels.flatten()[len(names) :]:
        panel.set_visible(False)
    for panel in panels.flatten()[max(0, len(names) - _PANEL_COLUMNS) : len(names)]:
        panel.tick_params(labelbottom=True)  # The lowest of a column, though one is hidden below.
    handles, labels = panels[0, 0].get_legend_handles_labels()
    named = [*labels[:-1], "the method"]
    canvas.legend(handles, named, loc="outside right center", fontsize="small")
    canvas.supxlabel(_size_label(figure))
    canvas.supylabel(figure.measure_label)


def _size_line(axes: Any, figure: FigureData, name: str, i: int) -> None:
    rows = [row for row in figure.rows if row["series"] == name]
    if not rows:
        return
    key = "embedding_bytes" if figure.grid.plot == "bytes" else "embedding_parameters"
    rows = sorted(rows, key=lambda row: row[key])
    _errors(axes, [row[key] for row in rows], rows, figure, name, i)
    if len(rows) == 1 and name == "full":
        height = rows[0][figure.measure]
        axes.axhline(height, color=_color(name, i), linewidth=0.8, linestyle=":")


def _size_label(figure: FigureData) -> str:
    if figure.grid.plot == "bytes":
        return "bytes of the embeddings as served (logarithmic)"
    return "parameters of the embeddings (logarithmic)"


def _finish_size(axes: Any, figure: FigureData) -> None:
    _log_sizes(axes.xaxis, axes.set_xscale)
    _finish(axes, _size_label(figure), figure.measure_label)


def _log_sizes(axis: Any, set_scale: Any, subs: Sequence[int] = (1, 2, 5)) -> None:
    """A logarithmic axis with ticks such as 200k and 5M."""
    from matplotlib.ticker import EngFormatter, LogLocator

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_minor_formatter("")


def _threshold(canvas: Any, figure: FigureData) -> None:
    """Test loss against the threshold, baselines without one as horizontal lines."""
    axes = canvas.subplots()
    _lines_over_values(axes, figure)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    _finish(axes, "threshold (ids of the largest full table, logarithmic)", figure.measure_label)


def _hidden(canvas: Any, figure: FigureData) -> None:
    """Test loss against the units of the hidden layer."""
    axes = canvas.subplots()
    _lines_over_values(axes, figure)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    _finish(axes, "units of the hidden layer (logarithmic)", figure.measure_label)


def _lines_over_values(axes: Any, figure: FigureData) -> None:
    for i, (name, label) in enumerate(figure.labels.items()):
        rows = [row for row in figure.rows if row["series"] == name]
        if not rows:
            continue
        if rows[0]["value"] is None:
            height = rows[0][figure.measure]
            deviation = rows[0][f"{figure.measure}_sd"] or 0
            axes.axhline(height, color=_color(name, i), label=label, linestyle="--")
            axes.axhspan(height - deviation, height + deviation, color=_color(name, i), alpha=0.12)
        else:
            _errors(axes, [_number(row["value"]) for row in rows], rows, figure, name, i)


def _sizes(canvas: Any, figure: FigureData) -> None:
    """Parameters against the threshold, a panel for each set of cardinalities."""
    canvas.set_size_inches(6.2 * len(figure.sizes), 4.6)
    panels = canvas.subplots(1, len(figure.sizes), squeeze=False)[0]
    for panel, (caption, rows) in zip(panels, figure.sizes.items(), strict=True):
        for i, (name, label) in enumerate(figure.labels.items()):
            own = [(value, parameters) for series, value, parameters in rows if series == name]
            if own and own[0][0] is None:
                panel.axhline(own[0][1], color=_color(name, i), label=label, linestyle="--")
            elif own:
                style = f"{MARKERS[i % len(MARKERS)]}-"
                panel.plot(
                    *zip(*own, strict=True),
                    style,
                    color=_color(name, i),
                    label=label,
                    markersize=9 - i,
                    linewidth=1,
                )
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:g}")
        _log_sizes(panel.yaxis, panel.set_yscale)
        panel.set_title(caption, fontsize="medium")
        panel.set_xlabel("threshold (logarithmic)")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("parameters of the model (logarithmic)")
    panels[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def _errors(
    axes: Any, x: Sequence[float], rows: Sequence[Row], figure: FigureData, name: str, i: int
) -> None:
    axes.errorbar(
        x,
        [row[figure.measure] for row in rows],
        yerr=[row[f"{figure.measure}_sd"] or 0 for row in rows],
        fmt=f"{MARKERS[i % len(MARKERS)]}-",
        color=_color(name, i),
        linewidth=1,
        markersize=5,
        capsize=3,
        label=figure.labels[name],
    )


def _color(name: str, i: int) -> str:
    return _COLORS.get(name, f"C{i % 10}")


def _number(text: str) -> float:
    """A varied value as a coordinate: 16 of `[16]`."""
    value = json.loads(text)
    return value[0] if isinstance(value, list) else value


def _finish(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        # Beside the axes, where it hides no point.
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
