"""`python -m tf_compemb.train` from its arguments to its files."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true"):
    pytest.skip(
        "training needs tensorflow-recommenders and with it tf_keras (TF_USE_LEGACY_KERAS=1)",
        allow_module_level=True,
    )

from click_rows import write_rows

from tf_compemb.train import main
from tf_compemb.training import comparison
from tf_compemb.training.progress import StepProgress
from tf_compemb.training.saved_runs import load_run

ROWS = 1400  # 1200 to train on: 38 steps of 32, the last with 16 rows.
SMALL = ["--dim", "4", "--batch-size", "32", "--optimizer", "amsgrad", "--learning-rate", "0.01"]
UNBROKEN = [*SMALL, "--embedding", "qr", "--epochs", "3"]
UNBROKEN += ["--steps-per-execution", "8", "--checkpoint-every", "16"]
REQUIRED = {
    "test_loss",
    "test_auc",
    "test_accuracy",
    "validation_loss",
    "validation_auc",
    "parameters",
    "embedding_parameters",
    "embedding_bytes",
    "examples_per_second",
    "peak_rss_bytes",
    "train_rows",
    "seed",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    os.environ["TF_COMPEMB_CACHE"] = str(folder / "cache")
    yield write_rows(folder / "train.txt", ROWS)
    del os.environ["TF_COMPEMB_CACHE"]


def run_program(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run of three epochs, with checkpoints within them."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    assert run_program("--data", data, *UNBROKEN, "--out", out) == 0
    return out


def test_run_directory_is_complete(run, data):
    found = metrics(run)
    assert found.keys() >= REQUIRED
    assert found["train_rows"] == 1200
    assert found["steps"] == 3 * 38
    assert found["synthetic"] is False
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["data"] == [str(data)]
    assert config["options"]["embedding"] == ["qr"]
    assert len(config["data"]["fingerprint"]) == 64
    assert config["versions"]["tensorflow"]
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((run / "logs").glob("events.out.tfevents.*"))
    assert not [path for path in run.rglob("*") if ".tmp" in path.name]


def test_history_has_every_step_once_and_the_loss_falls(run):
    rows = history(run)
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == 3 * 38
    validated = [row for row in rows if row["validation_loss"]]
    assert [int(row["step"]) for row in validated] == [38, 76, 114]
    assert [row["epoch"] for row in validated] == ["1", "2", "3"]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"]) - 0.1
    # The planted signal has a best AUC of about 0.85; 0.5 is chance.
    assert metrics(run)["test_auc"] > 0.7


def test_reported_weights_are_those_of_the_best_epoch(run):
    losses = [float(row["validation_loss"]) for row in history(run) if row["validation_loss"]]
    found = metrics(run)
    assert found["best_epoch"] == 1 + int(np.argmin(losses))
    assert found["validation_loss"] == pytest.approx(min(losses), rel=1e-6)


def test_parameters_are_those_of_the_saved_model(run):
    model = load_run(run)
    counts = [int(np.prod(w.shape)) for w in model.trainable_weights]
    assert sum(counts) == metrics(run)["parameters"]


def test_evaluation_of_the_test_rows_gives_the_test_metrics(run, data, tmp_path, capsys):
    lines = data.read_text().splitlines()
    (tmp_path / "test.txt").write_text("\n".join(lines[1300:]) + "\n")
    assert run_program("--evaluate", tmp_path / "test.txt", "--out", run, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    trained = metrics(run)
    assert found.keys() >= trained.keys()
    assert found["evaluated_rows"] == 100
    assert found["test_auc"] == trained["test_auc"]
    assert found["test_loss"] == pytest.approx(trained["test_loss"], rel=1e-6)
    assert json.loads((run / "evaluation.json").read_text()) == found


def test_evaluation_gives_id_0_to_unknown_categories(run, data, tmp_path, capsys):
    lines = data.read_text().splitlines()[1300:]
    unseen = [line.split("\t")[:14] + ["neverseen"] * 26 for line in lines]
    (tmp_path / "unseen.txt").write_text("\n".join("\t".join(row) for row in unseen))
    assert run_program("--evaluate", tmp_path / "unseen.txt", "--out", run, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    model = load_run(run)
    dense = np.log1p([[float(x) for x in row[1:14]] for row in unseen]).astype("float32")
    logits = model({"dense": dense, "categorical": np.zeros((100, 26), "int64")}).numpy()[:, 0]
    labels = np.array([float(row[0]) for row in unseen])
    expected = np.mean(np.log1p(np.exp(logits)) - labels * logits)
    assert found["test_loss"] == pytest.approx(expected, rel=1e-5)


def weights(run: Path) -> list[np.ndarray]:
    return load_run(run).get_weights()


def assert_same_outcome(first: Path, second: Path) -> None:
    assert history(first) == history(second)
    for one, other in zip(weights(first), weights(second), strict=True):
        assert np.array_equal(one, other)
    for name in ("test_loss", "test_auc", "validation_loss", "best_epoch"):
        assert metrics(first)[name] == metrics(second)[name]


def test_killed_run_resumes_to_the_same_bits(run, data, tmp_path, monkeypatch):
    """SIGKILL in the second epoch, eight steps after a checkpoint."""
    out = tmp_path / "killed"
    arguments = ["--data", str(data), *UNBROKEN, "--out", str(out)]
    program = (
        "import os, signal\n"
        "from tf_compemb.training.progress import StepProgress\n"
        "def show(self, step, loss):\n"
        "    if step >= 38 + 24: os.kill(os.getpid(), signal.SIGKILL)\n"
        "StepProgress.show = show\n"
        "from tf_compemb.train import main\n"
        f"main({arguments!r})\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "metrics.json").exists()
    resumed = []
    monkeypatch.setattr(StepProgress, "show", lambda self, step, loss: resumed.append(step))
    assert run_program("--resume", "--out", out) == 0
    assert resumed[:2] == [38 + 24, 38 + 32]
    assert_same_outcome(out, run)


def test_sigterm_saves_a_checkpoint_and_the_run_goes_on(run, data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "stopped"
    shown = []

    def stop_at_step_8(self, step, loss):
        shown.append(step)
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(StepProgress, "show", stop_at_step_8)
    assert run_program("--data", data, *UNBROKEN, "--out", out) == 128 + signal.SIGTERM
    assert "--resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert run_program("--resume", "--out", out) == 0
    assert shown[:4] == [8, 16, 24, 32]
    assert_same_outcome(out, run)


def test_methods_are_compared(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(comparison.subprocess, "Popen", InProcess)
    out = tmp_path / "compared"
    methods = "hash:collisions=2,compositional:partitions=chinese-remainder:2"
    arguments = ["--data", data, *SMALL, "--model", "dcn", "--embedding", methods, "--out", out]
    assert run_program(*arguments, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == methods.split(",")
    assert json.loads((out / "comparison.json").read_text()) == rows
    # C1 to C3 have 12 categories and id 0: hash keeps 7 rows of 4; CRT 4 + 5 rows of 4. The
    # other fields have 2 ids: hash keeps 1 row, CRT would need 2 + 1 and gives way to full.
    assert [row["embedding_parameters"] for row in rows] == [
        (3 * 7 + 23 * 1) * 4,
        (3 * 9 + 23 * 2) * 4,
    ]
    assert run_program("--resume", "--out", out) == 0  # All finished: only the table again.
    assert "hash:collisions=2" in capsys.readouterr().out


class InProcess:
    """Stands for a child process of the comparison."""

    def __init__(self, command, stdout):
        assert command[:3] == [sys.executable, "-m", "tf_compemb.train"]
        self._arguments = command[3:]
        self._quiet = stdout == subprocess.DEVNULL

    def wait(self):
        if not self._quiet:
            return main(self._arguments)
        with open(os.devnull, "w") as nowhere, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", nowhere)
            return main(self._arguments)


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


def test_bad_lines_can_be_skipped(data, tmp_path):
    lines = data.read_text().splitlines()[:300]
    lines.insert(150, "not a row")
    (tmp_path / "some.txt").write_text("\n".join(lines))
    arguments = ["--data", tmp_path / "some.txt", *SMALL, "--bad-lines", "skip"]
    assert run_program(*arguments, "--out", tmp_path / "run") == 0
    assert metrics(tmp_path / "run")["train_rows"] == 300 * 6 // 7


def test_bad_directories(run, data, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for word, arguments in {
        "is not empty: use --resume": ["--data", data, "--out", run],
        "not a directory": ["--data", data, "--out", tmp_path / "file" / "run"],
        "no config.json": ["--resume", "--out", tmp_path / "none"],
        "no metrics.json": ["--evaluate", data, "--out", tmp_path],
        "differs from that of the run": ["--resume", "--out", run, "--dim", 8],
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
    }.items():
        assert_user_error(capsys, word, *common, *arguments)
        assert not (tmp_path / "run").exists()


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


def test_without_data_rows_are_generated_and_labelled(tmp_path, capsys):
    arguments = ["--rows", 500, "--cache", tmp_path / "cache", "--out", tmp_path / "run"]
    arguments += ["--model", "dcn", "--precision", "mixed_bfloat16", "--dim", 2]
    assert run_program(*arguments) == 0
    assert "synthetic" in capsys.readouterr().out
    found = metrics(tmp_path / "run")
    assert found["synthetic"] is True
    assert 0.5 < found["best_achievable_auc"] < 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["synthetic"] is True


MIRRORED = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tf_compemb.train import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_mirrored_devices_train_as_one(run, data, tmp_path):
    arguments = ["--data", str(data), *SMALL, "--embedding", "qr", "--epochs", "3"]
    arguments += ["--out", str(tmp_path / "run"), "--strategy", "mirrored"]
    done = subprocess.run([sys.executable, "-c", MIRRORED, *arguments], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    alone, mirrored = history(run), history(tmp_path / "run")
    for one, two in zip(alone[-1:], mirrored[-1:], strict=True):
        # Sums over the rows are taken in another order, and float32 has 7 digits.
        assert float(two["validation_loss"]) == pytest.approx(
            float(one["validation_loss"]), rel=1e-4
        )
    assert metrics(tmp_path / "run")["test_loss"] == pytest.approx(
        metrics(run)["test_loss"], rel=1e-3
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
def test_two_workers_train_as_one(run, data, tmp_path):
    workers = [f"localhost:{free_port()}" for _ in range(2)]
    command = [sys.executable, "-m", "tf_compemb.train", "--data", str(data), *SMALL]
    command += ["--embedding", "qr", "--epochs", "3", "--strategy", "multiworker"]
    children = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
        arguments = [*command, "--out", str(tmp_path / "run")]
        children.append(subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL))
    assert [child.wait(timeout=180) for child in children] == [0, 0]
    for out in ("run", "run-worker-1"):
        assert metrics(tmp_path / out)["test_loss"] == pytest.approx(
            metrics(run)["test_loss"], rel=1e-3
        )


@pytest.mark.slow
def test_real_data_reach_a_known_quality(real_data, tmp_path):
    sample = real_data / "criteo_kaggle_sample.txt.gz"
    assert run_program("--data", sample, "--cache", tmp_path, "--out", tmp_path / "run") == 0
    found = metrics(tmp_path / "run")
    assert found["train_rows"] == 94_038
    # A reference DLRM reached loss 0.517 and AUC 0.733 on the rows after the first 6/7; the
    # validation half is the easier one. Seeds differ by about 0.005.
    assert found["validation_loss"] < 0.52
    assert found["validation_auc"] > 0.725
