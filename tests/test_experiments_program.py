"""`tf-compemb experiments` from its arguments to its files."""

import csv
import io
import json
import os
import random
import re
import signal
import time
from argparse import Namespace

import pytest
from experiment_runs import GRID, pretend, program, write_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from training_program import needs_tf_keras

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

from click_rows import write_rows

from tf_compemb.data import open_or_prepare
from tf_compemb.experiments import estimate
from tf_compemb.experiments.__main__ import main
from tf_compemb.experiments.budgets import BudgetError, overrides_within
from tf_compemb.experiments.command_line import parse
from tf_compemb.experiments.console import print_whole
from tf_compemb.experiments.experiment import grids_of, prepare_experiment
from tf_compemb.experiments.plan import sizes_of
from tf_compemb.experiments.run_store import RunStore
from tf_compemb.layers import method_names
from tf_compemb.training.environment import versions
from tf_compemb.training.options import TrainingOptions

FILES = ["results.csv", "timings.csv", "summary.csv", "comparisons.csv", "parameter_counts.csv"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    os.environ["TF_COMPEMB_CACHE"] = str(folder / "cache")
    yield write_rows(folder / "train.txt", 400)
    del os.environ["TF_COMPEMB_CACHE"]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def pretend_all(arguments, data, out, loss):
    """Finishes the runs of a command without training; `loss` is of a run."""
    options = parse(arguments)
    prepared = open_or_prepare(data, os.environ["TF_COMPEMB_CACHE"])
    for grid in grids_of(options, method_names()):
        one = prepare_experiment(grid, options, prepared, versions())
        for run in one.runs:
            pretend(RunStore(out / "runs"), run, loss(run))


@pytest.fixture(scope="module")
def reported(data, tmp_path_factory):
    """A finished command over runs that nobody trained; its arguments and its folder."""
    folder = tmp_path_factory.mktemp("reported")
    out = folder / "out"
    unreachable = {"name": "low", "embedding": "low_rank", "vary": {"budget": [1000]}}
    grid = write_grid(folder, series=[*GRID["series"], unreachable])
    arguments = ["figure4", "table1", "figure7", "--grid", str(grid), "--data", str(data)]
    arguments += ["--model", "dlrm", "--seeds", "2", "--out", str(out)]
    pretend_all(
        arguments, data, out, lambda run: 0.5 + 0.01 * run.seed + 0.1 * (run.point.name == "full")
    )
    assert main(arguments) == 0
    return arguments, out


def test_all_files_are_there(reported):
    _, out = reported
    figures = [
        f"{n}-dlrm.{k}" for n in ("figure4", "figure7", "table1", "small") for k in ("png", "svg")
    ]
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [*FILES, *figures, "report.html", "runs"]
    )


def test_results_have_a_row_for_each_run_and_each_point_out_of_reach(reported):
    _, out = reported
    rows = table(out / "results.csv")
    count = {name: sum(r["experiment"] == name for r in rows) for name in ("figure4", "small")}
    assert count == {"figure4": 3 * 2 * 2, "small": 3 * 2 * 2 + 1}
    (refused,) = [row for row in rows if row["status"] != "finished"]
    assert (refused["series"], refused["status"], refused["seed"]) == ("low", "not run", "")
    assert re.fullmatch(r"needs [\d,]+ bytes, the budget is \d+", refused["note"])


def test_the_report_needs_no_other_file(reported):
    arguments, out = reported
    text = (out / "report.html").read_text()
    assert not re.search(r"<script|<link|@import|url\(", text)
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sum(s.startswith("data:image/svg+xml;base64,") for s in sources) == 4
    assert all(s.startswith(("data:", "#")) for s in sources)
    assert "<strong>Synthetic data.</strong>" not in text  # The rows have no truth beside them.
    assert "QR &lt;mult&gt;" in text
    assert "135,746,273" in text  # The paper's Table 1.
    assert f"--data {arguments[arguments.index('--data') + 1]}" in text
    for machine_read in ("nan", "None"):
        assert f">{machine_read}<" not in text


def test_the_report_of_a_grid_of_ones_own_with_one_seed(data, tmp_path, capsys):
    out = tmp_path / "out"
    grid = write_grid(tmp_path, seeds=1, source="", about="")
    arguments = ["--grid", str(grid), "--data", str(data), "--out", str(out)]
    pretend_all(arguments, data, out, lambda run: 0.5)
    assert main(arguments) == 0
    text = (out / "report.html").read_text()
    assert "Source" not in text
    assert "<p></p>" not in text
    assert "1 seeds" not in text + capsys.readouterr().out
    assert "(1 seed)" in text
    # Beside the model's parameters those of the embeddings, which the figure has.
    head, *lines = re.findall(r"<tr>(.*?)</tr>", text.partition("<h3>DLRM</h3>")[2])
    heads = re.findall(r"<th>(.*?)</th>", head)
    rows = {row["series"]: row for row in table(out / "summary.csv")}
    labels = {"full table": "full", "hash": "hash", "QR &lt;mult&gt;": "mult"}
    for line in lines[:3]:
        cells = dict(zip(heads, re.findall(r"<td>(.*?)</td>", line), strict=True))
        row = rows[labels[cells["method"]]]
        assert cells["parameters"] == f"{int(row['parameters']):,}"
        assert cells["of them embeddings"] == f"{int(row['embedding_parameters']):,}"


def test_the_same_command_writes_the_same_tables_and_figures(reported, capsys):
    arguments, out = reported
    names = [*FILES, "figure4-dlrm.svg", "small-dlrm.svg", "small-dlrm.png", "figure7-dlrm.svg"]
    before = {name: (out / name).read_bytes() for name in names}
    capsys.readouterr()
    assert main(arguments) == 0
    assert {name: (out / name).read_bytes() for name in names} == before
    shown = capsys.readouterr()
    assert "DLRM: mult 3 against hash 3, test loss +0.0000 ± 0.0000: within the noise" in shown.out
    assert "not run: small, low budget=1/1000 (DLRM): needs " in shown.out
    assert shown.out.strip().endswith(f"report: {out / 'report.html'}")


def test_what_no_row_defines_is_undefined(data, tmp_path, capsys):
    """As on data without a validation row, and with test rows of one kind."""
    out = tmp_path / "out"
    grid = write_grid(tmp_path, plot="bytes")
    arguments = ["figure4", "--grid", str(grid), "--data", str(data), "--model", "dlrm"]
    arguments += ["--seeds", "2", "--out", str(out)]
    pretend_all(arguments, data, out, lambda run: 0.5)
    for file in (out / "runs").glob("*/metrics.json"):
        found = json.loads(file.read_text())
        names = [n for n in found if n.startswith("validation_")] + ["test_auc"]
        file.write_text(json.dumps({**found, **dict.fromkeys(names)}))
        lines = ["step,epoch,train_loss,validation_loss,auc,accuracy", "10,1,0.6,,,"]
        file.with_name("history.csv").write_text("\n".join(lines))
    assert main(arguments) == 0
    kept = [row for row in table(out / "summary.csv") if row["kept"] == "1"]
    assert {row["test_loss"] for row in kept} == {"0.5"}
    assert {row["test_auc"] for row in kept} == {row["validation_loss"] for row in kept} == {""}
    # Nothing tells the optimisers apart: the grid's first.
    assert {row["optimizer"] for row in kept} == {"adagrad"}
    report = (out / "report.html").read_text()
    assert report.count("<td>undefined</td>") == len(kept)
    assert "<td>None" not in report
    assert "<td>nan" not in report
    assert not (out / "small-dlrm-auc.svg").exists()
    assert (out / "figure4-dlrm.svg").exists()
    assert "0.5000" in capsys.readouterr().out


def test_sizes_alone_train_nothing(data, tmp_path):
    out = tmp_path / "out"
    assert main(["figure7", "--data", str(data), "--model", "dcn", "--out", str(out)]) == 0
    rows = table(out / "parameter_counts.csv")
    assert len(rows) == 2 * 26  # Points, on the data's cardinalities and on the public ones.
    assert {row["ids"] for row in rows if row["cardinalities"] == "kaggle"} == {"33762577"}
    assert table(out / "results.csv") == []
    assert not (out / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["figure5", "--only", "full,none"], "the grid figure5 has full, hash, feature"),
        (["figure5", "--values", "60,61"], "--values 61: the grid figure5 has 2, 3, 4"),
        (["figure5", "--optimizer", "sgd"], "has adagrad, amsgrad and no other"),
        (["fullscale", "--model", "dcn"], "The grid fullscale has no model dcn; it has dlrm."),
        (["--grid", "missing.json"], "missing.json cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, data, tmp_path, capsys):
    assert main([*arguments, "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (tmp_path / "out").exists()


def test_data_that_are_not_there(tmp_path, capsys):
    assert (
        main(["figure7", "--data", str(tmp_path / "none.txt"), "--out", str(tmp_path / "o")]) == 2
    )
    assert "none.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"dim": 0}}, "The grid small, series full: dim: must be at least 1, not 0."),
        ({"settings": {"batch_size": "many"}}, "The grid small, series full: batch_size: "),
        ({"vary": {"collisions": [-3]}, "comparisons": []}, "series hash: collisions: must be at"),
        ({"seeds": 10**6}, "'seeds' must be an integer from 1 to 10000, not 1000000"),
        (
            {"optimizers": [{"optimizer": "sgd", "learning_rate": -1}]},
            "'learning_rate' must be a positive number, not -1",
        ),
    ],
)
def test_numbers_of_a_grid_out_of_range(changes, message, data, tmp_path, capsys):
    grid = write_grid(tmp_path, **changes)
    assert main(["--grid", str(grid), "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_an_option_that_a_method_has_not(data, tmp_path, capsys):
    series = [{"name": "full", "embedding": "full", "settings": {"collisoins": 4}}]
    grid = write_grid(tmp_path, series=series, vary=None, baselines=[], comparisons=[])
    assert main(["--grid", str(grid), "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    assert "has no option 'collisoins'" in capsys.readouterr().err


@given(
    st.lists(st.integers(1, 50_000), min_size=1, max_size=8),
    st.sampled_from(["hash", "qr", "path"]),
    st.sampled_from([1, 2, 4, 10, 60]),
)
@settings(max_examples=15, deadline=None)
def test_a_budget_is_kept_and_nearly_used(cardinalities, name, divisor):
    options = TrainingOptions(embedding=(name,))
    budget = 64 * sum(cardinalities) // divisor
    try:
        overrides = overrides_within(options, cardinalities, divisor, 0.1)
    except BudgetError as error:
        needs = int(re.search(r"needs ([\d,]+) bytes", str(error))[1].replace(",", ""))
        assert needs > budget
        return
    sizes = sizes_of(options.replace(overrides=overrides), cardinalities)
    assert sizes.embedding_bytes <= budget
    assert list(overrides) == [f"C{i + 1}" for i in range(len(cardinalities))]
    if name == "hash":  # Rows are its only steps: less than one is left for each field.
        assert budget - sizes.embedding_bytes < 64 * (len(cardinalities) + 1)
    # The smallest fields are full, as long as they take a tenth of the budget.
    ordered = sorted(range(len(cardinalities)), key=cardinalities.__getitem__)
    if 64 * cardinalities[ordered[0]] <= 0.1 * budget:
        assert overrides[f"C{ordered[0] + 1}"] == {"embedding": "full"}


def test_a_budget_by_hand():
    # 1110 rows of 16 floats; a tenth of it is 111 rows: 11 for full tables, so the field of 10.
    overrides = overrides_within(TrainingOptions(embedding=("hash",)), [1000, 100, 10], 10, 0.1)
    assert overrides["C3"] == {"embedding": "full"}
    rows = [overrides[name]["options"]["num_buckets"] for name in ("C1", "C2")]
    assert sum(rows) == 111 - 10
    assert rows[1] == 100 * 101 // 1100  # Each has the same share of its rows, but for the rest.


def test_the_time_of_a_run_by_hand():
    measured = {
        "start_seconds": 7.0,
        "step_seconds": 0.01,
        "evaluation_seconds_per_row": 0.001,
        "peak_rss_bytes": 1,
    }
    size = estimate.DataSize(None, (5,), {"train": 1000, "validation": 100, "test": 200})
    options = TrainingOptions(batch_size=128, epochs=2)
    # Sixteen steps, validations after two epochs and at the end, one test.
    assert estimate.run_seconds(measured, options, size) == pytest.approx(7 + 0.16 + 0.3 + 0.2)


def test_a_table_is_printed_whole_in_a_narrow_terminal():
    table = Table("method", "served", "test loss", box=None)
    table.add_row("frequency_threshold budget=1/1000", "15.1 kB", "0.5149 ± 0.0137")
    console = Console(width=30, file=io.StringIO())
    print_whole(console, table)
    assert "frequency_threshold budget=1/1000  15.1 kB  0.5149 ± 0.0137" in console.file.getvalue()


def test_values_leave_the_single_points_and_whole_comparisons():
    (figure5,) = grids_of(parse(["figure5", "--values", "4,60"]), method_names())
    assert {s.name: s.values for s in figure5.series}["hash"] == (4, 60)
    assert {s.name: s.values for s in figure5.series}["full"] == (None,)
    assert len(figure5.comparisons) == 1
    (without,) = grids_of(parse(["figure5", "--values", "60"]), method_names())
    assert without.comparisons == ()
    (table1,) = grids_of(parse(["table1", "--values", "16"]), method_names())
    assert [16] in [value for s in table1.series for value in s.values]


@pytest.mark.slow
def test_an_estimate_measures_steps(data, tmp_path):
    grid = write_grid(tmp_path, optimizers=[{"optimizer": "adagrad"}])
    (read,) = grids_of(parse(["--grid", str(grid), "--only", "full"]), method_names())
    size = estimate.DataSize(None, (5, 40), {"train": 320, "validation": 10, "test": 10})
    asked = Namespace(epochs=None, model="both")
    (found,) = estimate.estimate(read, size, asked, jobs=1)
    assert (found.runs, found.note) == (2, "")
    assert 0 < found.step_seconds < found.run_seconds
    assert found.peak_bytes > 10**8


@pytest.mark.slow
def test_a_killed_grid_goes_on_to_the_same_results(data, tmp_path):
    grid = write_grid(tmp_path, optimizers=[{"optimizer": "amsgrad"}], seeds=1)
    cache = os.environ["TF_COMPEMB_CACHE"]
    common = ("--grid", grid, "--data", data, "--jobs", 2)

    def unbroken(out):
        done = program(*common, "--out", out, cache=cache)
        _, errors = done.communicate(timeout=300)
        assert done.returncode == 0, errors
        return (out / "results.csv").read_bytes()

    expected = unbroken(tmp_path / "unbroken")
    assert expected.count(b"finished") == 3
    broken, chance = tmp_path / "broken", random.Random(5)
    for _ in range(4):
        victim = program(*common, "--out", broken, cache=cache)
        time.sleep(chance.uniform(2, 14))
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
    assert unbroken(broken) == expected
    kept = [path.name for path in (broken / "runs").rglob("*") if path.is_file()]
    assert set(kept) == {"config.json", "metrics.json", "history.csv"}
    assert json.loads(next((broken / "runs").rglob("metrics.json")).read_text())["seed"] == 0
