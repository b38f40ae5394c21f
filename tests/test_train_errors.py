"""Mistakes that a user can make with the training program, and its dry run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_program import SMALL, metrics, needs_tf_keras, run_program

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

from click_rows import write_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    os.environ["TF_COMPEMB_CACHE"] = str(folder / "cache")
    yield write_rows(folder / "train.txt", 400)
    del os.environ["TF_COMPEMB_CACHE"]


def assert_user_error(capsys, word, *arguments):
    assert run_program(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ")
    assert word in line


def broken_line(folder):
    lines = write_rows(folder / "broken.txt", 20).read_text().splitlines()
    lines[6] = lines[6].replace("\t", " ", 1)
    (folder / "broken.txt").write_text("\n".join(lines))
    return folder / "broken.txt"


def other_format(folder):
    (folder / "page.html").write_text("<html><body>not found</body></html>")
    return folder / "page.html"


def empty_file(folder):
    (folder / "empty.txt").touch()
    return folder / "empty.txt"


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder: folder / "missing.txt", "missing.txt"),
        (empty_file, "empty"),
        (other_format, "HTML"),
        (broken_line, "broken.txt:7"),
        (lambda folder: folder, "folder"),
    ],
)
def test_bad_data_is_one_sentence_and_leaves_nothing(make, word, data, tmp_path, capsys):
    out = tmp_path / "run"
    cache = Path(os.environ["TF_COMPEMB_CACHE"])
    before = sorted(os.listdir(cache)) if cache.exists() else []
    assert_user_error(capsys, word, "--data", make(tmp_path), "--out", out)
    assert not out.exists()
    assert (sorted(os.listdir(cache)) if cache.exists() else []) == before


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run on a file with one bad line, which was skipped."""
    folder = tmp_path_factory.mktemp("finished")
    lines = data.read_text().splitlines()[:300]
    lines.insert(150, "not a row")
    (folder / "some.txt").write_text("\n".join(lines))
    arguments = ["--data", folder / "some.txt", *SMALL, "--bad-lines", "skip"]
    assert run_program(*arguments, "--out", folder / "run") == 0
    return folder / "run"


def test_bad_lines_can_be_skipped(finished):
    assert metrics(finished)["train_rows"] == 300 * 6 // 7


def test_bad_directories(finished, data, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for word, arguments in {
        "is not empty: use --resume": ["--data", data, "--out", finished],
        "not a directory": ["--data", data, "--out", tmp_path / "file" / "run"],
        "no config.json": ["--resume", "--out", tmp_path / "none"],
        "no metrics.json": ["--evaluate", data, "--out", tmp_path],
        "differs from that of the run": ["--resume", "--out", finished, "--dim", 8],
    }.items():
        assert_user_error(capsys, word, *arguments)
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_bad_methods(data, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    common = ["--data", data, "--out", tmp_path / "run"]
    for word, arguments in {
        "Unknown embedding method 'best'": ["--embedding", "best"],
        "has no option 'depth'": ["--embedding", "qr", "--option", "depth=3"],
        "--partitions must be": ["--embedding", "compositional", "--partitions", "binary:2"],
        "TF_CONFIG": ["--strategy", "multiworker"],
        "hidden_units": ["--embedding", "path", "--option", "hidden_units=[0]"],
        "it has: bottom_units, top_units": ["--network", "deep_units=[8]"],
        "`top_units` must be a positive integer or a list": ["--network", "top_units=[8, 0]"],
        "`bottom_units` must be a positive integer": ["--network", "bottom_units=8.5"],
        "`hidden_units` must be a positive": ["--embedding", "path", "--option", "hidden_units=x"],
        "`bias` must be True or False": ["--embedding", "memcom", "--option", "bias=no"],
        "dcn cannot have cross=": ["--model", "dcn", "--network", "cross=tensor"],
    }.items():
        assert_user_error(capsys, word, *common, *arguments)
        assert not (tmp_path / "run").exists()


TWO_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tf_compemb.train import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_method_of_one_device_under_a_strategy_of_two(data, tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", data, "--out", out, "--embedding", "cafe", "--threshold", 0, *SMALL]
    arguments += ["--option", "num_hot=1", "--strategy", "mirrored", "--json"]
    command = [sys.executable, "-c", TWO_DEVICES, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip().splitlines()[-1] == (
        "error: The method cafe follows the gradients of one device, and there are 2: "
        "train without --strategy."
    )
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_loss_that_is_not_finite_is_one_sentence(data, tmp_path, capsys):
    arguments = ["--data", data, "--batch-size", 32, "--optimizer", "sgd"]
    arguments += ["--learning-rate", "1e30", "--out", tmp_path / "run"]
    assert_user_error(capsys, "lower --learning-rate", *arguments)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_dry_run_of_the_full_kaggle_tables(capsys):
    for model, network in {"dlrm": 475_985, "dcn": 373_578}.items():
        arguments = ["--dry-run", "--cardinalities", "kaggle", "--model", model, "--json"]
        assert run_program(*arguments) == 0
        sizes = json.loads(capsys.readouterr().out)
        assert sizes["embedding_parameters"] == 540_201_232
        assert sizes["parameters"] == 540_201_232 + network
        assert sizes["embedding_bytes"] == 4 * 540_201_232


# Shi et al. 2020, Table 1: parameters of the path-based method by hidden width.
TABLE_1 = {
    "dcn": {16: 135_464_410, 32: 135_519_322, 64: 135_629_146, 128: 135_848_794},
    "dlrm": {16: 135_581_537, 32: 135_636_449, 64: 135_746_273, 128: 135_965_921},
}


@pytest.mark.parametrize("model", ["dlrm", "dcn"])
def test_dry_run_of_the_papers_path_table(model, capsys):
    counts = {}
    for hidden in (16, 32, 64, 128):
        arguments = ["--dry-run", "--cardinalities", "kaggle", "--model", model, "--json"]
        arguments += ["--embedding", "path", "--threshold", 0]
        assert run_program(*arguments, "--option", f"hidden_units=[{hidden}]") == 0
        counts[hidden] = json.loads(capsys.readouterr().out)["parameters"]
    published = TABLE_1[model]
    for hidden, count in counts.items():
        assert count == pytest.approx(published[hidden], rel=2e-4)
        assert count - counts[16] == published[hidden] - published[16]


def test_dry_run_shows_the_collection(capsys):
    assert run_program("--dry-run", "--cardinalities", "100,8", "--embedding", "qr") == 0
    shown = capsys.readouterr().out
    assert "C1" in shown
    assert "embedding_parameters" in shown
