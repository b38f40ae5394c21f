"""`tf-compemb export` from a finished run to a directory that is served."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from training_program import SMALL, needs_tf_keras, run_program

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

import tensorflow as tf
from click_rows import write_rows

from tf_compemb import progress_lines
from tf_compemb.export.__main__ import main
from tf_compemb.export.sizes import stored_bytes
from tf_compemb.models import DLRM
from tf_compemb.native_session import NativeSession
from tf_compemb.training.saved_runs import load_run

UNTRAINED = ["--untrained", "--embedding", "qr", "--collisions", "4", "--dim", "4"]
UNTRAINED += ["--cardinalities", "1000,3"]


def export(*arguments) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module", params=["vocabulary", "hash"])
def run(request, tmp_path_factory):
    """A finished run whose data are gone."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_rows(folder / "train.txt", 700)
    arguments = ["--data", data, "--cache", folder / "cache", *SMALL, "--embedding", "qr"]
    arguments += ["--encoder", request.param, "--out", folder / "run"]
    arguments += ["--hash-buckets", 50] if request.param == "hash" else []
    assert run_program(*arguments) == 0
    shutil.rmtree(folder / "cache")
    return folder / "run", data.read_text().splitlines()


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The run's export."""
    out = tmp_path_factory.mktemp("exported")
    assert export(run[0], "--out", out, "--name", "clicks") == 0
    return out / "clicks" / "1"


def test_a_run_is_all_that_an_export_needs(run, exported, tmp_path, capsys):
    folder, lines = run
    path = exported
    card = json.loads((path / "model_card.json").read_text())
    assert card["check"]["rows"] == "256 generated rows"
    rows = np.array([line.split("\t") for line in lines[-90:]], dtype=object)
    with NativeSession(path) as session:
        assert set(session.signatures) == {
            "serving_default",
            "raw",
            *(f"embeddings_C{i}" for i in range(1, 27)),
        }
        found = session.run("raw", {"integers": rows[:, 1:14], "categories": rows[:, 14:]})
    assert {k: (v.dtype.name, v.shape) for k, v in found.items()} == {
        "click_probability": ("float32", (90, 1)),
        "logit": ("float32", (90, 1)),
    }
    # The trainer's own evaluation, of the same rows by the same encoder.
    (tmp_path / "rows.txt").write_text("\n".join(lines[-90:]) + "\n")
    assert run_program("--out", folder, "--evaluate", tmp_path / "rows.txt", "--json") == 0
    logits, labels = found["logit"][:, 0].astype(float), rows[:, 0].astype(float)
    loss = np.mean(np.log1p(np.exp(logits)) - labels * logits)
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["test_loss"] == pytest.approx(loss, rel=1e-5)


def test_bytes_are_the_tables_and_the_network(run, exported):
    folder, _ = run
    card = json.loads((exported / "model_card.json").read_text())
    collection = load_run(folder).embeddings
    tables = collection.footprint().inference_bytes
    network = 4 * DLRM.network_parameters(26, 4)
    assert card["bytes"]["embeddings"] == tables
    assert card["bytes"]["network"] == network
    assert sum(stored_bytes(exported).values()) == tables + network
    text = sum(file.stat().st_size for file in (exported / "assets").glob("*"))
    assert card["bytes"]["vocabulary"] == text
    assert card["trained"] is True
    assert card["synthetic"] is False
    assert card["metrics"] == json.loads((folder / "metrics.json").read_text())
    assert len(card["data"]["fingerprint"]) == 64
    assert card["training"]["options"]["embedding"] == ["qr"]


def test_vectors_of_a_field(run, tmp_path):
    folder, _ = run
    assert export(folder, "--out", tmp_path, "--name", "clicks", "--precision", "float16") == 0
    ids = np.array([0, 1, 1])
    with NativeSession(tmp_path / "clicks" / "1") as session:
        found = session.run("embeddings_C2", {"ids": ids})["vectors"]
    expected = load_run(folder).embeddings.field_vectors("C2", ids).numpy()
    np.testing.assert_allclose(found, expected, rtol=2.1 * 2**-11)
    assert found.dtype == np.float32


def test_warm_up_records_are_requests_that_the_model_answers(exported):
    messages = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = exported
    records = tf.data.TFRecordDataset(str(path / "assets.extra/tf_serving_warmup_requests"))
    logs = [messages.PredictionLog.FromString(r.numpy()).predict_log.request for r in records]
    assert [log.model_spec.signature_name for log in logs] == ["serving_default", "raw"]
    assert {log.model_spec.name for log in logs} == {"clicks"}
    with NativeSession(path) as session:
        answers = [
            session.run(
                log.model_spec.signature_name,
                {name: tf.make_ndarray(tensor) for name, tensor in log.inputs.items()},
            )
            for log in logs
        ]
    assert [answer["logit"].shape for answer in answers] == [(8, 1), (8, 1)]


def test_old_runs_need_their_data_or_no_encoder(run, tmp_path, capsys):
    folder, _ = run
    old = shutil.copytree(folder, tmp_path / "old")
    shutil.rmtree(old / "encoder")
    assert export(old, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: The run in ")
    assert "--data DIR, or --no-raw" in error
    assert export(old, "--out", tmp_path / "out", "--name", "m", "--no-raw") == 0
    card = json.loads((tmp_path / "out" / "m" / "1" / "model_card.json").read_text())
    assert "raw" not in card["signatures"]
    assert card["bytes"]["vocabulary"] == 0


def test_untrained_models_say_so(tmp_path, capsys):
    assert export(*UNTRAINED, "--out", tmp_path) == 0
    assert "untrained" in capsys.readouterr().out
    path = tmp_path / "dlrm-qr" / "1"
    card = json.loads((path / "model_card.json").read_text())
    assert card["trained"] is False
    # C1: 4 + 250 rows of 4; C2 would not become smaller: 3 rows. A network of 2 vectors.
    assert card["bytes"]["embeddings"] == 4 * (4 * 254 + 4 * 3)
    assert card["bytes"]["network"] == 4 * DLRM.network_parameters(2, 4)
    with NativeSession(path) as session:
        strings = np.array([["any", "thing"]], dtype=object)
        integers = np.array([["5"] + [""] * 12], dtype=object)
        found = session.run("raw", {"integers": integers, "categories": strings})
        assert found["click_probability"].shape == (1, 1)


def test_a_long_export_says_what_it_does(tmp_path, monkeypatch, capsys):
    for name in ("_FIRST_SECONDS", "_LONGEST_SECONDS"):
        monkeypatch.setattr(progress_lines, name, 0.005)
    arguments = ["--embedding", "full", "--cardinalities", ",".join(["9"] * 26)]
    assert export("--untrained", *arguments, "--out", tmp_path, "--name", "small") == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "making the model"
    assert said[-1] == f"writing and checking {tmp_path / 'small'}"
    assert set(said) == {said[0], said[-1]}


def test_tflite_of_a_click_model(tmp_path, capfd):
    assert export(*UNTRAINED, "--out", tmp_path, "--format", "tflite") == 0
    path = tmp_path / "dlrm-qr" / "1"
    assert sorted(p.name for p in path.iterdir()) == ["model.tflite", "model_card.json"]
    assert "tflite, float32, untrained" in capfd.readouterr().out


KILLED_WHILE_SAVING = """
import os, signal, sys
from tf_compemb.export.__main__ import main
from tf_compemb.training.environment import prepare_tensorflow
prepare_tensorflow()
from tf_compemb.export.serving_module import ServingModule
save = ServingModule.save
def save_and_die(self, path):
    save(self, path)
    os.kill(os.getpid(), signal.SIGKILL)
ServingModule.save = save_and_die
main(sys.argv[1:])
"""


def test_a_killed_export_publishes_nothing_and_leaves_nothing(tmp_path, capsys):
    arguments = [*UNTRAINED, "--out", str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    base = tmp_path / "dlrm-qr"
    (left,) = base.iterdir()
    assert (left / "saved_model.pb").exists()
    with pytest.raises(ValueError, match="invalid literal"):
        int(left.name)  # What TF-Serving looks for.
    assert export(*arguments) == 0
    assert "left by an export that was killed" in capsys.readouterr().err
    assert [p.name for p in base.iterdir()] == ["1"]


def test_a_keras_file(run, tmp_path):
    folder, _ = run
    assert export(folder / "model" / "model.keras", "--out", tmp_path) == 0
    card = json.loads((tmp_path / "model" / "1" / "model_card.json").read_text())
    assert "raw" not in card["signatures"]
    assert card["trained"] is None


KERAS_3 = """
import keras
from tf_compemb import QREmbedding
ids = keras.Input((2,), dtype="int64", name="ids")
keras.Model(ids, QREmbedding(100, 4)(ids)).save("model.keras")
"""


@pytest.mark.slow
def test_a_keras_3_file_in_its_own_keras(tmp_path):
    ours = ("TF_USE_LEGACY_KERAS", "TF_CPP_MIN_LOG_LEVEL")
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    environment |= {"KERAS_BACKEND": "tensorflow"}
    commands = [["-c", KERAS_3], ["-m", "tf_compemb.export", "model.keras", "--out", "."]]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment["PYTHONPATH"] = root
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    # A slow machine says what it is at.
    said = done.stderr.splitlines()
    assert [line for line in said if not line.startswith(("reading ", "writing "))] == []
    assert list(stored_bytes(tmp_path / "model" / "1").values()) == [4 * 4 * 4, 25 * 4 * 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name a RUN"),
        (["nowhere"], "nowhere: there is no such run directory or file."),
        (["."], ". has no config.json: there is no run to read."),
        ([__file__], "is not a .keras file of Keras"),
        ([".", "--embedding", "qr"], "--embedding goes with --untrained"),
        ([".", "--untrained"], "leave out ., or --untrained"),
        (["--untrained"], "--untrained needs --cardinalities"),
        ([*UNTRAINED, "--embedding", "full,qr"], "name one method"),
        ([*UNTRAINED, "--embedding", "magic"], "Unknown embedding method 'magic'"),
        (["--untrained", "--cardinalities", f"{10**30},5"], "more than 64 bits can number"),
        ([*UNTRAINED, "--dim", "2000000000"], "The model's variables take "),
        ([*UNTRAINED, "--name", "a/b"], "cannot be the name of a directory"),
        ([*UNTRAINED, "--format", "tflite", "--precision", "float16"], "float32 only"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export(*arguments, "--out", tmp_path / "out") == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert message in output.err
    assert output.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_sentence_and_publishes_nothing(tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "variables; No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    arguments = ["--untrained", "--cardinalities", "9,9", "--dim", "2", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "error: No space left on device: free some space.\n"
    assert list(tmp_path.iterdir()) == []


def test_an_existing_version_is_refused_before_anything_is_made(tmp_path, capsys):
    (tmp_path / "m" / "3").mkdir(parents=True)
    assert export(*UNTRAINED, "--out", tmp_path, "--name", "m", "--version", 3) == 2
    assert "3 exists, and a version never changes" in capsys.readouterr().err
