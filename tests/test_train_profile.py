"""`--profile`: the trace, and how its events are added up."""

import json

import pytest
from training_program import needs_tf_keras, run_program

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

from click_rows import write_rows

from tf_compemb.training import profile
from tf_compemb.training.profile import PARTS, add_up


def test_events_by_hand():
    inside = "while/body/_1/while"
    events = [
        ("IteratorGetNextOp::DoCompute", 1.0),
        ("PyFunc:PyFunc", 100.0),
        ("ExecutorState::Process", 100.0),
        ("EagerLocalExecute: MakeIterator", 100.0),
        ("while:While", 100.0),
        (f"{inside}/dlrm/tables/fused_0/Gather:ResourceGather", 2.0),
        (f"{inside}/dlrm/tables/fused_0/mul:Mul", 3.0),
        (f"while/body/_1/gradient_tape/{inside}/dlrm/tables/fused_0/Mul:Mul", 5.0),
        (f"while/body/_1/gradient_tape/{inside}/dlrm/top/dense/MatMul:_MklMatMul", 7.0),
        (f"{inside}/dlrm/top/dense/Relu:_MklNativeFusedMatMul", 11.0),
        (f"{inside}/Adagrad/Unique:Unique", 13.0),
        (f"{inside}/Adagrad/Gather_2:ResourceGather", 17.0),
        (f"{inside}/Adagrad/mul_2:Mul", 19.0),
        (f"{inside}/Adagrad/AssignAddVariableOp_1:AssignAddVariableOp", 23.0),
        (f"{inside}/add:AddV2", 29.0),
    ]
    found = add_up(events, "tables", "Adagrad")
    assert [found[part] for part in PARTS] == [1, 5, 5, 11, 7, 30, 42, 29]


@pytest.mark.usefixtures("every_table_is_read_by_rows")
def test_a_run_is_profiled(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_COMPEMB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(profile, "PROFILED_STEPS", 6)
    data = write_rows(tmp_path / "train.txt", 700)  # 600 to train on: 18 steps of 32 and one more.
    options = ["--data", data, "--dim", "4", "--batch-size", "32", "--steps-per-execution", "3"]
    run = tmp_path / "run"
    assert run_program(*options, "--embedding", "qr", "--profile", "--out", run) == 0
    printed = capsys.readouterr().out
    assert "embedding lookup" in printed
    assert "mean of 6 steps" in printed
    assert list((run / "profile").rglob("*.xplane.pb"))
    found = json.loads((run / "profile" / "summary.json").read_text())
    assert found["steps"] == 6
    assert list(found["thread_milliseconds"]) == list(PARTS)
    # Every part occurs in a step, whatever it takes.
    assert all(spent > 0 for spent in found["thread_milliseconds"].values())
    assert "profile" not in json.loads((run / "config.json").read_text())["options"]


def test_a_short_run_says_that_it_has_no_profile(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_COMPEMB_CACHE", str(tmp_path / "cache"))
    data = write_rows(tmp_path / "train.txt", 70)
    options = ["--data", data, "--dim", "4", "--batch-size", "32"]
    assert run_program(*options, "--profile", "--out", tmp_path / "run") == 0
    assert "too few steps" in capsys.readouterr().err
