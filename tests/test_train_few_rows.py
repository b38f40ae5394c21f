"""Training on a few rows, on rows of one kind, on a full disk: what is undefined is said to be."""

import contextlib
import csv
import errno
import json
import os

import pytest
from training_program import SMALL, history, metrics, needs_tf_keras, run_program

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

import tensorflow as tf
from click_rows import write_rows
from matplotlib.figure import Figure

from tf_compemb.training import comparison, evaluation, report, shortage
from tf_compemb.training.command_options import as_given
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions
from tf_compemb.training.run_directory import RunDirectory

QUICK = [*SMALL, "--network", "bottom_units=[4]", "--network", "top_units=[4]", "--threshold", "0"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_COMPEMB_CACHE", str(tmp_path / "cache"))


def labelled(path, rows, label):
    """Rows whose labels are a function of their number."""
    lines = write_rows(path, rows).read_text().splitlines()
    path.write_text("".join(f"{label(i)}{line[1:]}\n" for i, line in enumerate(lines)))
    return path


def test_one_row_is_too_few(tmp_path, capsys):
    data = write_rows(tmp_path / "one.txt", 1)
    assert run_program("--data", data, *QUICK, "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err == (
        f"error: {data}: none of 1 row is to train on, which the first six sevenths are, rounded "
        "down; give at least 2 rows.\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rows", "label", "undefined"),
    [
        (2, lambda i: i % 2, {"validation_loss", "validation_accuracy"}),
        (8, lambda i: i % 2, set()),
        (60, lambda i: 0, set()),
        (60, lambda i: int(i < 50 and i % 2), set()),  # Both kinds in training alone.
    ],
)
def test_what_the_rows_do_not_define_is_undefined(rows, label, undefined, tmp_path, capsys):
    data, run = labelled(tmp_path / "rows.txt", rows, label), tmp_path / "run"
    arguments = ["--data", data, *QUICK, "--epochs", 2, "--validate-every", 1, "--out", run]
    assert run_program(*arguments) == 0
    shown = capsys.readouterr().out
    undefined = {"test_auc", "validation_auc", *undefined}
    found = metrics(run)
    assert {name for name, value in found.items() if value is None} - {
        "examples_per_second"
    } == undefined
    assert shown.count("undefined") == len(undefined) + 1  # And why.
    assert "nan" not in shown.lower()
    assert "NaN" not in (run / "metrics.json").read_text()
    assert found["best_epoch"] in (1, 2)
    last = history(run)[-1]
    assert last["validation_auc"] == ""
    assert (last["validation_loss"] == "") == ("validation_loss" in undefined)
    assert (run / "loss.png").stat().st_size > 5000
    assert tags(run) == {"loss/train"} | (
        set() if undefined & {"validation_loss"} else {"loss/validation", "accuracy/validation"}
    )


def test_a_run_on_two_rows_teaches_and_is_evaluated_on_one(tmp_path, capsys):
    data, run = write_rows(tmp_path / "rows.txt", 2), tmp_path / "run"
    assert run_program("--data", data, *QUICK, "--out", run) == 0
    student = ["--distill", run, "--out", tmp_path / "student", "--json"]
    assert run_program("--data", data, *QUICK, *student) == 0
    one = write_rows(tmp_path / "one.txt", 1)
    capsys.readouterr()
    assert run_program("--evaluate", one, "--out", run) == 0
    assert ", AUC undefined, accuracy " in capsys.readouterr().out
    assert json.loads((run / "evaluation.json").read_text())["test_auc"] is None


def tags(run):
    """What TensorBoard is told of."""
    files = [str(path) for path in (run / "logs").iterdir()]
    events = [event for file in files for event in tf.compat.v1.train.summary_iterator(file)]
    return {value.tag for event in events for value in event.summary.value}


def test_a_comparison_of_what_has_no_number(tmp_path, capsys):
    """The table, the JSON, the CSV and the plot, as `train` makes them of its runs."""
    from tf_compemb.training.report import print_comparison

    sizes = {"parameters": 9, "embedding_parameters": 5, "embedding_bytes": 20}
    shared = {**sizes, "optimizer_bytes": 36, "train_rows": 1, "synthetic": False}
    options = TrainingOptions(embedding=("full", "hash"), seeds=2, out=str(tmp_path))
    runs = comparison.plan(options)
    for run in runs:
        directory = RunDirectory(run.options.out)
        directory.create()
        found = {**dict.fromkeys(comparison.AVERAGED), **shared, "test_loss": 0.5}
        directory.metrics.write_text(json.dumps(found))
    rows = comparison.collect(runs)
    assert [(row["test_loss"], row["test_auc"]) for row in rows] == [(0.5, None)] * 2
    comparison.write_comparison(rows, tmp_path)
    print_comparison(rows, tmp_path)
    assert capsys.readouterr().out.count("undefined") == 2
    assert json.loads((tmp_path / "comparison.json").read_text()) == rows
    with (tmp_path / "comparison.csv").open(newline="") as file:
        assert [row["test_auc"] for row in csv.DictReader(file)] == ["", ""]
    assert (tmp_path / "comparison.png").stat().st_size > 5000


def test_a_loss_that_is_not_finite_in_validation_is_one_sentence(tmp_path, monkeypatch, capsys):
    data = write_rows(tmp_path / "rows.txt", 60)
    broken = {"loss": float("nan"), "auc": 0.5, "accuracy": 0.5}
    monkeypatch.setattr(evaluation.Evaluator, "__call__", lambda self, batches: broken)
    assert run_program("--data", data, *QUICK, "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err == (
        "error: The validation loss is not a finite number after step 2: lower --learning-rate.\n"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seed", 2**32], "--seed: must be at most 4294967295, not 4294967296"),
        (["--seed", 2**64], "--seed: must be at most 4294967295"),
        (["--seed", -1], "--seed: must be at least 0, not -1"),
        (["--seed", 2**32 - 1, "--seeds", 2], "--seed 4294967295 with --seeds 2 goes beyond"),
        (["--seeds", 10**9], "--seeds: must be at most 10000"),
        (["--epochs", 0], "--epochs: must be at least 1"),
        (["--batch-size", 2**63], "--batch-size: must be at most 4611686018427387904"),
        (["--warmup-steps", 2**63], "--warmup-steps: must be at most"),
        (["--prefetch", 2**63], "--prefetch: must be at most"),
        (["--intra-op-threads", 10**6], "--intra-op-threads: must be at most 4096"),
        (["--learning-rate", 0], "--learning-rate: must be a positive number"),
        (["--learning-rate", "1e-320"], "--learning-rate: must be a positive number"),
        (["--learning-rate", "1e39"], "--learning-rate: must be a positive number"),
        (["--learning-rate", "nan"], "--learning-rate: must be a positive number"),
        (["--temperature", "1e-30"], "--temperature: must be from 0.001 to 1000"),
        (["--distill-weight", "nan"], "--distill-weight: must be from 0 to 1"),
        (["--dim", 2**40], "The model's variables take "),
        (["--network", f"top_units=[{10**13}]"], "The model's variables take "),
        (["--encoder", "hash", "--hash-buckets", 2**40], "The model's variables take "),
        (["--encoder", "hash", "--hash-buckets", 2**62], "The model's variables take "),
    ],
)
def test_numbers_out_of_range_are_one_sentence(argv, message, tmp_path, capsys):
    data = write_rows(tmp_path / "rows.txt", 8)
    try:
        status = run_program("--data", data, *QUICK, "--out", tmp_path / "run", *argv)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(("error: " + message, "error: argument " + message))
    assert not (tmp_path / "run").exists()


def test_the_largest_seed_and_a_batch_larger_than_the_file(tmp_path):
    data = write_rows(tmp_path / "rows.txt", 60)
    told = ["--seed", 2**32 - 1, "--batch-size", 2**62, "--steps-per-execution", 2**62]
    told += ["--checkpoint-every", 2**62, "--validate-every", 2**62, "--prefetch", 2**62]
    assert run_program("--data", data, *QUICK, *told, "--out", tmp_path / "run") == 0
    assert metrics(tmp_path / "run")["seed"] == 2**32 - 1
    assert metrics(tmp_path / "run")["steps"] == 1


def test_values_of_a_grid_are_read_as_those_of_a_command_line():
    options = TrainingOptions(
        dim=8, learning_rate=0.01, network={"top_units": [8]}, data=("a", "b")
    )
    assert as_given(options) == options
    for values, message in [
        ({"dim": 0}, "dim: must be at least 1, not 0"),
        ({"batch_size": -4}, "batch_size: must be at least 1, not -4"),
        ({"dim": 2.5}, "dim: .*2.5"),
        ({"dim": True}, "dim: expected one argument"),
        ({"operation": "power"}, "operation: invalid choice"),
    ]:
        with pytest.raises(UserError, match=f"^{message}"):
            as_given(TrainingOptions(**values))


# --- A full disk ---------------------------------------------------------------------------------

FULL = "No space left on device"


def of_the_system(*args, **kwargs):
    raise OSError(errno.ENOSPC, FULL, "a/file")


def of_tensorflow(*args, **kwargs):
    raise tf.errors.ResourceExhaustedError(None, None, f"{{{{node}}}} a/file; {FULL}")


def of_hdf5(*args, **kwargs):
    try:
        raise OSError(f"Can't write data (errno = 28, error message = '{FULL}')")
    finally:
        raise RuntimeError("Can't decrement id ref count")


# In the order of a run, which each of them stops once.
WRITTEN = [
    ("tf_compemb.training.trainer.write_json", of_the_system),
    ("tf_compemb.training.trainer.store_encoder", of_the_system),
    ("tf_compemb.training.history.History.add", of_tensorflow),
    ("tf_compemb.training.history.History.write", of_the_system),
    ("tf_compemb.training.checkpoints.Checkpoints.save", of_tensorflow),
    ("tf_compemb.training.checkpoints.Checkpoints.keep_if_best", of_tensorflow),
    ("tf_compemb.training.history.History.close", of_tensorflow),
    ("tf_compemb.training.trainer.save_model", of_hdf5),
    ("tf_compemb.training.report.plot_loss", of_the_system),
    ("tf_compemb.training.trainer.write_json", of_the_system),
]


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(tmp_path, capsys):
    data, out = write_rows(tmp_path / "rows.txt", 60), tmp_path / "run"
    new = ["--data", data, *QUICK, "--epochs", 2, "--out", out]
    assert run_program(*new[:-1], tmp_path / "unbroken") == 0
    for number, (name, error) in enumerate(WRITTEN):
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(name, error)
            assert run_program(*(new if number < 2 else ["--resume", "--out", out])) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {FULL}")
        if number == 0:  # Nothing is there yet: the same command goes on.
            assert line.endswith(": free some space.")
            assert list(out.iterdir()) == []
        else:
            goes_on = f"then `tf-compemb train --resume --out {out}` goes on with the run."
            assert line.endswith(f": free some space, {goes_on}")
    assert run_program("--resume", "--out", out) == 0
    assert history(out) == history(tmp_path / "unbroken")
    assert metrics(out)["test_loss"] == metrics(tmp_path / "unbroken")["test_loss"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9]"),
    ],
)
def test_too_little_memory_is_one_sentence(error, tmp_path):
    with (
        pytest.raises(UserError, match="too little memory for this model: take a smaller"),
        shortage.told_in_one_sentence(RunDirectory(tmp_path)),
    ):
        raise error


@pytest.mark.parametrize("error", [ValueError("else"), OSError(errno.EACCES, "no", "a/file")])
def test_other_errors_stay_as_they_are(error, tmp_path):
    with (
        pytest.raises(type(error)) as caught,
        shortage.told_in_one_sentence(RunDirectory(tmp_path)),
    ):
        raise error
    assert caught.value is error
    assert os.listdir(tmp_path) == []


def test_the_plot_of_one_interval_shows_its_loss(tmp_path, monkeypatch):
    drawn = []

    @contextlib.contextmanager
    def axes(path):
        drawn.append(Figure().subplots())
        yield drawn[-1]

    monkeypatch.setattr(report, "_figure", axes)
    report.plot_loss([[4, 0, 0.6, 0.3]], False, tmp_path / "one.png")
    report.plot_loss([[4, 0, 0.6, 0.3], [8, 0, 0.5, 0.3]], False, tmp_path / "two.png")
    assert [axes.lines[0].get_marker() for axes in drawn] == ["o", "None"]
    assert all(float(tick).is_integer() for tick in drawn[0].get_xticks())
