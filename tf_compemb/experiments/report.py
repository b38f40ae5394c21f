"""`report.html`: figures, tables, environment and commands in one file that needs no other."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tf_compemb._program import counted
from tf_compemb.experiments.experiment import Experiment
from tf_compemb.experiments.outputs import Outputs
from tf_compemb.experiments.paper import difference_text, statements, table_1
from tf_compemb.experiments.plan import value_text
from tf_compemb.experiments.progress import duration
from tf_compemb.experiments.results import FINISHED
from tf_compemb.experiments.summary import compared_baselines, shown_rows
from tf_compemb.training.report import UNDEFINED, megabytes
from tf_compemb.training.run_directory import replacing

Row = Mapping[str, Any]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; }
h1, h2, h3 { line-height: 1.2; } h2 { border-top: 1px solid #ccc; padding-top: 1rem; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums;
        font-size: 13px; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4;
         white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
th { border-bottom: 1px solid #888; } .lower { color: #06622c; } .higher { color: #9b1c1c; }
.noise { color: #666; } .banner { background: #fff3c4; padding: .5rem .8rem; }
img { max-width: 100%; } pre { background: #f4f4f4; padding: .6rem; overflow-x: auto; }
.scroll { overflow-x: auto; }
"""
_READING = """Losses are mean cross entropies in nats on the test rows, mean ± standard deviation
over seeds. Of the optimisers, that with the lowest mean <em>validation</em> loss is shown. A
difference is the mean over seeds of the two losses of the same seed, with a 95 % interval of
Student's t; where the interval holds zero it is called within the noise. The interval is about
seeds alone: all runs are tested on the same rows, and each interval is for itself, without
correction for their number."""


def write_report(
    path: Path,
    experiments: Sequence[Experiment],
    found: Outputs,
    environment: Mapping[str, Any],
    command: str,
) -> None:
    """Writes the report.

    Args:
        path: The file.
        experiments: What was run.
        found: Tables and figures.
        environment: Of `outputs.describe_environment`.
        command: That made it.
    """
    parts = [
        "<h1>Compositional embeddings: experiments</h1>",
        *_data(experiments),
        f"<p>{' '.join(_READING.split())}</p>",
        _contents(experiments),
    ]
    for one in experiments:
        parts += _experiment(one, found)
    parts += [*_paper(found), *_counts(found), *_unfinished(found)]
    parts += _environment(experiments, found, environment, command)
    body = "\n".join(parts)
    text = (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>tf_compemb experiments</title>\n<style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _data(experiments: Sequence[Experiment]) -> list[str]:
    parts = []
    for data in {one.data.fingerprint: one.data for one in experiments}.values():
        sizes = ", ".join(f"{data.split_size(name):,} {name}" for name in data.splits)
        kind = (
            "<strong>Synthetic data.</strong> The rows were generated; nothing here says how a "
            "method does on real ones."
            if data.synthetic
            else "Real data."
        )
        parts.append(
            f'<p class="banner">{kind} {data.rows:,} rows ({sizes}), {sum(data.cardinalities):,} '
            f"ids in 26 fields, fingerprint {data.fingerprint[:16]}.</p>"
        )
    return parts


def _contents(experiments: Sequence[Experiment]) -> str:
    links = [
        f'<a href="#{escape(one.grid.name)}">{escape(one.grid.name)}</a>' for one in experiments
    ]
    return f"<p>{' · '.join(links)}</p>"


def _experiment(one: Experiment, found: Outputs) -> list[str]:
    grid = one.grid
    parts = [f'<h2 id="{escape(grid.name)}">{escape(grid.name)}: {escape(grid.title)}</h2>']
    source = f"Source: {grid.source}." if grid.source else ""
    if about := " ".join(filter(None, (grid.about, source))):
        parts.append(f"<p>{escape(about)}</p>")
    for model in one.models:
        parts.append(f"<h3>{model.upper()}</h3>")
        for stem in found.figures.get((grid.name, model), ()):
            parts.append(_image(stem.with_suffix(".svg"), f"{grid.title}, {model.upper()}"))
        if rows := shown_rows(found.summary, grid, model):
            parts.append(_summary_table(one, rows))
        parts += _comparisons([r for r in found.comparisons if r["experiment"] == grid.name], model)
    return parts


def _image(path: Path, alt: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{escape(alt)}" src="data:image/svg+xml;base64,{content}"></p>'


def _summary_table(one: Experiment, rows: Sequence[Row]) -> str:
    labels = {series.name: series.label for series in one.grid.series}
    stated = {id(row): _stated_loss(one, row) for row in rows}
    heads = ["method", "", "optimiser", "seeds", "parameters", "of them embeddings"]
    baselines = compared_baselines(one.grid)
    heads += [
        "served bytes",
        "test loss",
        "test AUC",
        *(f"loss minus {name}".replace("_", " ") for name in baselines),
    ]
    heads += ["paper's loss"] if any(stated.values()) else []
    lines = []
    for row in rows:
        cells = [
            escape(labels[row["series"]]),
            _point_text(row),
            row["optimizer"],
            str(row["seeds"]),
            f"{row['parameters']:,}",
            f"{row['embedding_parameters']:,}",
            megabytes(row["embedding_bytes"]),
            _spread(row, "test_loss"),
            _spread(row, "test_auc"),
            *(_difference(row, name) for name in baselines),
        ]
        cells += [stated[id(row)]] if any(stated.values()) else []
        lines.append(cells)
    return _table(heads, lines)


def _stated_loss(one: Experiment, row: Row) -> str:
    value = None if row["value"] is None else json.loads(row["value"])
    stated = table_1(row["model"], value) if one.grid.name == "table1" else None
    return "" if stated is None else f"{stated[1]:g}"


def _point_text(row: Row) -> str:
    if row["value"] is None:
        return ""
    return escape(value_text(row["varied"], json.loads(row["value"])))


def _spread(row: Row, name: str) -> str:
    if row[name] is None:
        return UNDEFINED
    deviation = row[f"{name}_sd"]
    return f"{row[name]:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _difference(row: Row, baseline: str) -> str:
    text = difference_text(row, baseline)
    verdict = row[f"loss_minus_{baseline}_verdict"]
    kind = verdict if verdict in ("lower", "higher") else "noise"
    return f'<span class="{kind}">{text}</span>' if text else ""


def _comparisons(rows: Iterable[Row], model: str) -> list[str]:
    parts = []
    for row in rows:
        if row["model"] != model or row["difference"] is None:
            continue
        width = "" if row["half_width"] is None else f" ± {row['half_width']:.4f}"
        parts.append(
            f"<p><strong>{escape(row['this'])}</strong> ({megabytes(row['this_bytes'])}) against "
            f"<strong>{escape(row['with'])}</strong> ({megabytes(row['with_bytes'])}), "
            f"{escape(row['title'])}: test loss {row['difference']:+.4f}{width}, "
            f"{row['verdict']} ({counted(row['pairs'], 'seed')}).</p>"
        )
    return parts


def _paper(found: Outputs) -> list[str]:
    lines = [
        [s.model.upper(), f'<span class="text">{escape(s.what)}</span>', escape(s.paper), s.ours]
        for s in statements(found.summary)
    ]
    if not lines:
        return []
    return [
        "<h2>The paper's statements and ours</h2>",
        "<p>The paper trained on the whole of Criteo Kaggle, 45.8 million rows.</p>",
        _table(["model", "what", "paper", "here"], lines),
    ]


def _counts(found: Outputs) -> list[str]:
    rows = [row for row in found.counts if row["cardinalities"] == "kaggle"]
    if not rows:
        return []
    stated = any(row["paper_parameters"] is not None for row in rows)
    heads = ["experiment", "model", "method", "", "parameters", "of them embeddings"]
    heads += ["paper", "difference"] if stated else []
    lines = []
    for row in rows:
        cells = [row["experiment"], row["model"].upper(), escape(row["series"]), _point_text(row)]
        cells += [f"{row['parameters']:,}", f"{row['embedding_parameters']:,}"]
        if stated and row["paper_parameters"] is not None:
            share = f"{row['relative_difference']:+.4%}"
            cells += [f"{row['paper_parameters']:,}", f"{row['difference']:+,} ({share})"]
        elif stated:
            cells += ["", ""]
        lines.append(cells)
    return [
        "<h2>Parameters on the public cardinalities of Criteo Kaggle</h2>",
        f"<p>{rows[0]['ids']:,} ids in 26 fields, by formula; nothing was trained for this.</p>",
        _table(heads, lines),
    ]


def _unfinished(found: Outputs) -> list[str]:
    rows = [row for row in found.results if row["status"] != FINISHED]
    if not rows:
        return []
    lines = []
    for row in rows:
        seed = "" if row["seed"] is None else str(row["seed"])
        what = [row["experiment"], row["model"].upper(), row["series"], _point_text(row)]
        lines.append(
            [*what, row["optimizer"] or "", seed, row["status"], escape(row["note"] or "")]
        )
    heads = ["experiment", "model", "method", "", "optimiser", "seed", "status", "why"]
    return [f"<h2>Not measured: {counted(len(rows), 'row')}</h2>", _table(heads, lines)]


def _environment(
    experiments: Sequence[Experiment],
    found: Outputs,
    environment: Mapping[str, Any],
    command: str,
) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    seconds = sum(row["wall_seconds"] for row in {r["run"]: r for r in found.timings}.values())
    peak = max((row["peak_rss_bytes"] for row in found.timings), default=0)
    parts = ["<h2>Environment and command</h2>", f"<pre>{escape(command)}</pre>"]
    parts.append(
        f"<p>{escape(environment['machine'])}; {escape(versions)}. The finished runs took "
        f"{duration(seconds)} of their processes' time together, without their starts; the largest "
        f"took {megabytes(peak)} of memory.</p>"
    )
    optimizers = {
        one.grid.name: ", ".join(
            " ".join(f"{value}" for value in entry.values()) for entry in one.grid.optimizers
        )
        for one in experiments
        if one.grid.is_trained
    }
    for name, tried in optimizers.items():
        parts.append(f"<p>{escape(name)}: optimisers {escape(tried)}.</p>")
    return parts


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose cells are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )
