"""Parts of the training program that need no TensorFlow: figures, options, files, cadence."""

import errno
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_compemb.training import comparison, dry_run
from tf_compemb.training.command_options import arguments, parse, single_method
from tf_compemb.training.data_source import cache_directory
from tf_compemb.training.errors import UserError
from tf_compemb.training.evaluation import exact_auc, mean_cross_entropy, quality
from tf_compemb.training.options import TrainingOptions
from tf_compemb.training.run_directory import (
    RunDirectory,
    check_writable,
    read_csv,
    replacing,
    write_csv,
    write_json,
)
from tf_compemb.training.strategy import own_out


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 1], [0.1, 0.9], 1.0),
        ([1, 0], [0.1, 0.9], 0.0),
        ([0, 1, 0, 1], [5, 5, 5, 5], 0.5),
        # pairs (0.4, 0.1) (0.4, 0.4 ties: half) (0.8, 0.1) (0.8, 0.4): 3.5 of 4
        ([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8], 0.875),
    ],
)
def test_auc_by_hand(labels, scores, expected):
    assert exact_auc(np.array(labels), np.array(scores)) == expected


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=2, max_size=40))
def test_auc_counts_pairs(rows):
    labels, scores = np.array(rows).T
    clicks, others = scores[labels == 1], scores[labels == 0]
    if not len(clicks) or not len(others):
        assert np.isnan(exact_auc(labels, scores))
        return
    pairs = [(c > o) + 0.5 * (c == o) for c in clicks for o in others]
    assert exact_auc(labels, scores) == pytest.approx(np.mean(pairs), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(-20, 20)), min_size=1, max_size=20))
def test_cross_entropy_is_the_mean_negative_log_likelihood(rows):
    labels, logits = np.array(rows).T
    p = 1 / (1 + np.exp(-logits))
    expected = -np.mean(np.log(np.where(labels == 1, p, 1 - p)))
    assert mean_cross_entropy(labels, logits) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_quality_by_hand():
    found = quality(np.array([1.0, 0.0, 1.0, 0.0]), np.array([2.0, -1.0, -1.0, 3.0]))
    # right: the first two; pairs: 2>-1, 2<3, -1=-1 (half), -1<3
    assert found["accuracy"] == 0.5
    assert found["auc"] == 1.5 / 4
    assert quality(np.ones(2), np.zeros(2))["auc"] is None
    assert quality(np.zeros(0), np.zeros(0)) == {"loss": None, "auc": None, "accuracy": None}


@pytest.mark.parametrize(
    "options",
    [
        TrainingOptions(),
        TrainingOptions(data=("a.txt", "b c.txt"), embedding=("full", "qr"), seeds=3),
        TrainingOptions(option={"hidden_units": [16, 8], "activation": "relu"}, threshold=0),
        TrainingOptions(overrides={"C3": {"embedding": "qr", "options": {"collisions": 60}}}),
        TrainingOptions(model="dcn", network={"deep_units": [8], "cross": "matrix"}),
        TrainingOptions(resume=True, out="runs/x", json=True, learning_rate=0.05, min_count=2),
    ],
)
def test_options_survive_the_command_line_and_json(options):
    assert parse(arguments(options))[0] == options
    stored = json.loads(json.dumps(options.to_json()))
    kept = TrainingOptions.from_json(stored)
    assert kept == options.replace(out=None, resume=False, json=False)


def test_overrides_are_read_from_a_file_and_reach_the_collection(tmp_path):
    from tf_compemb.training import build

    file = tmp_path / "fields.json"
    path = '"embedding": "path", "options": {"collisions": 3, "hidden_units": [2]}'
    file.write_text(f'{{"C2": {{{path}, "threshold": 0}}}}')
    options, _ = parse(["--overrides", str(file), "--dim", "4"])
    before = json.dumps(options.to_json())
    sizes = build.build_collection(options, [10, 30]).field_footprints()
    assert [sizes[name][0] for name in ("C1", "C2")] == ["full", "path"]
    assert sizes["C2"][1].parameters == 10 * 4 + 3 * (4 * 2 + 2 + 2 * 4 + 4)
    assert json.dumps(options.to_json()) == before


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        # 13-8-4 below; 3 pairs and 4 go into 7-4-1.
        (["--network", "bottom_units=[8]", "--network", "top_units=[4]"], 112 + 36 + 32 + 5),
        # 13 + 2 * 4 inputs: one cross layer, 21-5, and 26 into the logit.
        (["--model", "dcn", "--network", "cross_layers=1", "--network", "deep_units=[5]"],
         42 + 110 + 27),
    ],
)  # fmt: skip
def test_the_network_has_the_widths_asked_for(options, parameters):
    from tf_compemb.training import build

    options, _ = parse([*options, "--dim", "4"])
    collection = build.build_collection(options, [10, 30])
    model = build.build_model(options, collection)
    model.build_on_one_row()
    assert build.network_parameters(options, collection) == parameters
    trained = sum(weight.shape.num_elements() for weight in model.trainable_weights)
    assert trained == parameters + 4 * (10 + 30)


def test_single_method_takes_its_own_options_over_the_common_ones():
    common = TrainingOptions(embedding=("full", "x"), operation="mult", option={"a": 1}, dim=8)
    single = single_method(common, "compositional:partitions=mixed-radix:3:operation=add")
    assert (single.embedding, single.partitions) == (("compositional",), "mixed-radix:3")
    assert (single.operation, single.dim) == ("add", 8)
    path = single_method(common, "path:option=hidden_units=[16]")
    assert path.option == {"a": 1, "hidden_units": [16]}


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--data", "x", "--rows", "9"], "--rows"),
        (["--evaluate", "x"], "--out RUN"),
        (["--resume"], "--out RUN"),
        (["--cardinalities", "kaggle"], "--dry-run"),
        (["--dry-run"], "--cardinalities"),
    ],
)
def test_contradictory_options(argv, word):
    with pytest.raises(UserError, match=word):
        parse(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["--epochs", "0"],
        ["--learning-rate", "nan"],
        ["--embedding", "qr,qr"],
        ["--option", "novalue"],
        ["--overrides", '{"C3": 5}'],
        ["--overrides", "no-such-file.json"],
        ["--model", "wide"],
        ["--threshold", "-1"],
    ],
)
def test_refused_values_end_with_status_2(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(argv)
    assert stopped.value.code == 2
    assert argv[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "program",
    [
        "from tf_compemb.train import main; main(['--help'])",
        "from tf_compemb.command_line import main; main(['--help'])",
        "from tf_compemb.command_line import main; main(['train', '--help'])",
    ],
)
def test_help_imports_nothing_heavy(program):
    heavy = "tensorflow", "keras", "tf_keras", "pyarrow", "matplotlib", "numpy", "rich"
    code = (
        f"import sys\ntry:\n    {program}\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
    assert "usage:" in shown.stdout


def test_replacing_is_whole_or_nothing(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"x": 1})

    def fail_halfway():
        with replacing(file) as temporary:
            temporary.write_text("{")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert json.loads(file.read_text()) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_csv_round_trip(tmp_path):
    write_csv(tmp_path / "t.csv", ["a", "b"], [[1, None], ["x,y", 0.1]])
    assert read_csv(tmp_path / "t.csv") == [{"a": "1", "b": ""}, {"a": "x,y", "b": "0.1"}]


def test_run_directory_must_be_new_and_possible(tmp_path):
    RunDirectory(tmp_path / "new" / "deep").check_new()
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is not empty: use --resume"):
        RunDirectory(tmp_path).check_new()
    with pytest.raises(UserError, match="file is not a directory"):
        RunDirectory(tmp_path / "file" / "run").check_new()
    with pytest.raises(UserError, match=r"no config\.json"):
        RunDirectory(tmp_path).read_config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        RunDirectory(tmp_path).read_config()


def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    # The tests may run as root, for whom no directory is without permission.
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(UserError, match=r"Cannot write to .*run: Permission denied in"):
        check_writable(tmp_path / "run")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc here")
def test_a_file_system_that_only_looks_writable_is_refused():
    with pytest.raises(UserError, match=r"Cannot write to /proc/run: .*Use another --out\."):
        check_writable(Path("/proc/run"))


def test_cache_directory_order(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_COMPEMB_CACHE", str(tmp_path))
    assert cache_directory(TrainingOptions()) == tmp_path
    assert str(cache_directory(TrainingOptions(cache="here"))) == "here"


def test_each_worker_has_its_own_directory(monkeypatch):
    assert own_out("run", "none") == "run"
    for task, expected in {
        ("worker", 0): "run",
        ("worker", 2): "run-worker-2",
        ("chief", 0): "run",
    }.items():
        config = {"task": {"type": task[0], "index": task[1]}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        assert own_out("run", "multiworker") == expected
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(UserError, match="TF_CONFIG"):
        own_out("run", "multiworker")


def test_cardinalities_are_read_from_numbers_files_and_kaggle(tmp_path):
    (tmp_path / "sizes.txt").write_text("5\n6 7\n")
    assert dry_run.read_cardinalities("5,6") == [5, 6]
    assert dry_run.read_cardinalities(str(tmp_path / "sizes.txt")) == [5, 6, 7]
    assert sum(dry_run.read_cardinalities("kaggle")) == 33_762_577
    for wrong in ("5,x", "0,4", "missing.txt"):
        with pytest.raises(UserError, match="--cardinalities"):
            dry_run.read_cardinalities(wrong)


def fake_metrics(seed, loss):
    shared = {"parameters": 9, "embedding_parameters": 5, "embedding_bytes": 20}
    shared |= {"optimizer_bytes": 36, "train_rows": 7, "synthetic": False, "seed": seed}
    return {**dict.fromkeys(comparison.AVERAGED, 0.5), **shared, "test_loss": loss}


def test_comparison_plans_one_run_each_and_averages_seeds(tmp_path):
    options = TrainingOptions(
        embedding=("full", "qr:operation=add"), seeds=2, seed=5, out=str(tmp_path)
    )
    runs = comparison.plan(options)
    names = [os.path.relpath(run.options.out, tmp_path) for run in runs]
    assert names == [
        "full/seed-5",
        "full/seed-6",
        "qr-operation=add/seed-5",
        "qr-operation=add/seed-6",
    ]
    assert [run.options.operation for run in runs] == [None, None, "add", "add"]
    for run, loss in zip(runs, [0.4, 0.6, 0.3, 0.3], strict=True):
        directory = RunDirectory(run.options.out)
        directory.create()
        write_json(directory.metrics, fake_metrics(run.options.seed, loss))
    full, qr = comparison.collect(runs)
    assert (full["method"], full["runs"]) == ("full", 2)
    assert full["test_loss"] == pytest.approx(0.5)
    assert full["test_loss_std"] == pytest.approx(0.2**0.5 / 10**0.5)  # sqrt(2 * 0.1 ** 2 / 1)
    assert (qr["test_loss"], qr["test_loss_std"]) == (0.3, 0.0)
    comparison.write_comparison([full, qr], tmp_path)
    assert json.loads((tmp_path / "comparison.json").read_text()) == [full, qr]
    assert len(read_csv(tmp_path / "comparison.csv")) == 2
    assert (tmp_path / "comparison.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ((38, 16, 2000, None), (38, 16, 16, 2000, 38)),
        ((38, 16, 8, None), (38, 8, 8, 8, 38)),
        ((10, 16, 50, 4), (10, 4, 4, 48, 4)),
        ((350_000, 16, 2000, None), (350_000, 16, 3504, 2000, 350_000)),
        ((1, 16, 2000, None), (1, 1, 1, 2000, 1)),
    ],
)
def test_cadence_is_in_whole_executions(wishes, expected):
    from tf_compemb.training.step_callback import Cadence

    assert Cadence.choose(*wishes) == Cadence(*expected)


_ARENAS = """
import ctypes, sys, threading
from tf_compemb.training import environment
if sys.argv[1] == "one":
    environment._allocate_from_one_arena()
libc, met = ctypes.CDLL(None), threading.Barrier(4)
def allocate():
    met.wait()
    libc.malloc(1000)
    met.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
libc.malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
@pytest.mark.parametrize(
    ("told", "variable", "arenas"), [("one", None, 1), ("one", "3", 3), ("none", "2", 2)]
)
def test_threads_share_one_arena_unless_the_user_says_otherwise(told, variable, arenas):
    environment = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"}
    if variable is not None:
        environment["MALLOC_ARENA_MAX"] = variable
    printed = subprocess.run(
        [sys.executable, "-c", _ARENAS, told], env=environment, capture_output=True, check=True
    ).stderr
    assert printed.count(b"Arena ") == arenas


def test_the_bar_shows_a_loss_once_there_is_one(monkeypatch):
    import io

    from rich.console import Console

    from tf_compemb.training import progress

    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    with progress.StepProgress("dlrm qr", 100, quiet=False) as bar:
        bar.show(8, float("nan"))
        bar._progress.refresh()
        assert "8/100" in shown.getvalue()
        assert "loss" not in shown.getvalue()
        bar.show(16, 0.51234)
        bar._progress.refresh()
    assert "loss 0.5123" in shown.getvalue()
    assert "nan" not in shown.getvalue()
