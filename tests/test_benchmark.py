"""The benchmark program: what it computes of its measurements, its processes, its options."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tf_compemb.benchmark.__main__ import main
from tf_compemb.benchmark.cases import Bound, Case, CaseResult, Group, Suite
from tf_compemb.benchmark.inputs import id_batches, scaled_cardinalities
from tf_compemb.benchmark.methods import METHODS
from tf_compemb.benchmark.other_load import OtherLoad, seconds_of
from tf_compemb.benchmark.report import print_suite, verdict_line
from tf_compemb.benchmark.runner import GroupResult, run_groups
from tf_compemb.benchmark.suites import make_suites
from tf_compemb.benchmark.summary import group_to_json, ratio_of, spread_of, verdicts
from tf_compemb.benchmark.worker_process import (
    MissingPackagesError,
    WorkerError,
    WorkerProcess,
    Workers,
)

REPOSITORY = Path(__file__).resolve().parent.parent
NUMPY = {"rows": 1_000, "batch": 4, "dim": 8}


def measured(name, turns, **settings):
    case = Case(name, "numpy", "lookup", settings)
    return CaseResult(case, [[{"seconds": s} for s in turn] for turn in turns])


def group_of(*results, **options):
    return GroupResult(Group("any", [r.case for r in results], **options), list(results))


def test_spread_is_over_all_calls():
    assert spread_of(measured("a", [[1.0, 2.0], [3.0, 4.0, 5.0]])) == (3.0, 2.0, 4.0, 5)


def test_ratio_is_of_the_medians_of_each_round():
    ours = measured("a", [[2.0, 2.0, 9.0], [30.0], [4.0]])
    base = measured("b", [[1.0], [10.0, 10.0], [1.0]])
    assert ratio_of(ours, base) == (3.0, 2.5, 3.5, 3)


def test_bounds_say_met_not_met_or_what_is_missing():
    fast, slow = measured("fast", [[1.0]]), measured("slow", [[1.2]])
    absent = CaseResult(Case("peer", "fbgemm", "lookup", {}), status="not installed", reason="pip")
    bounds = [
        Bound("slow", "fast", 1.2),
        Bound("slow", "fast", 1.1),
        Bound("fast", "peer", 1.0),
        Bound("slow", None, 1.0),
    ]
    lines = [verdict_line(v) for v in verdicts(group_of(fast, slow, absent, bounds=bounds))]
    assert lines == [
        "met     slow / fast <= 1.2: 1.20",
        "NOT MET slow / fast <= 1.1: 1.20",
        "unknown fast / peer <= 1: peer was not measured",
        "NOT MET slow <= 1.0 s: 1.2 s",
    ]


def test_table_shows_ratios_and_what_was_not_measured():
    ours = measured("ours", [[0.002]])
    limit = measured("limit", [[0.0005]])
    absent = CaseResult(Case("peer", "fbgemm", "lookup", {}), status="not installed", reason="pip")
    found = group_of(ours, limit, absent, baseline="ours", limit="limit")
    lines = []
    print_suite(Suite("s", "Title", "About.", [found.group]), [found], lines.append)
    rows = [line.split() for line in lines]
    assert ["median", "quartiles", "/", "base", "/", "limit"] in rows
    assert ["ours", "2", "ms", "2-2", "ms", "1.00", "4.00"] in rows
    assert ["limit", "500", "us", "500-500", "us", "0.25", "1.00"] in rows
    assert "  not installed: peer (pip)" in lines


def test_a_suite_that_could_not_run_says_why_once():
    results = [
        CaseResult(Case(n, "jax", "forward", {}), status="skipped", reason="no GPU") for n in "ab"
    ]
    found = group_of(*results, bounds=[Bound("a", "b", 1.0)])
    lines = []
    print_suite(Suite("gpu", "Title", "About.", [found.group]), [found], lines.append)
    assert lines == ["", "Title", "About.", "\nnot run: no GPU"]


def test_a_table_of_a_busy_machine_says_so():
    quiet = group_of(measured("ours", [[0.002]]))
    busy = GroupResult(quiet.group, quiet.results, other_share=0.42)
    lines = []
    print_suite(Suite("s", "Title", "About.", []), [quiet, busy], lines.append)
    assert [line[:54] for line in lines if "other programs" in line] == [
        "  other programs took 42% of the processors meanwhile:"
    ]


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="Linux only")
def test_processor_time_of_others_is_what_is_not_ours():
    before = seconds_of([os.getpid()])
    load = OtherLoad()
    while seconds_of([os.getpid()]) < before + 0.2:
        pass
    everything, rest = load.share(0.0), load.share(seconds_of([os.getpid()]) - before)
    assert 0 <= rest < everything
    assert seconds_of([10**9]) == 0


@pytest.mark.parametrize("quick", [True, False])
def test_suites_are_consistent(quick):
    for suite in make_suites(quick).values():
        group_names = [group.name for group in suite.groups]
        assert len(set(group_names)) == len(group_names)
        for group in suite.groups:
            names = [case.name for case in group.cases]
            assert len(set(names)) == len(names)
            mentioned = {group.baseline, group.limit, *(case.yard for case in group.cases)}
            for bound in group.bounds:
                assert bound.of != bound.over
                mentioned |= {bound.of, bound.over}
            assert mentioned - {None} <= set(names)
            assert all(json.loads(json.dumps(dict(c.settings))) == c.settings for c in group.cases)


def test_scale_holds_every_optimizer_of_ours_full_and_compressed():
    from tf_compemb.optimizers import NAMES

    found = {
        (c.settings["method"], c.settings["optimizer"], c.settings["batch"], c.settings["rows"])
        for group in make_suites(quick=False)["scale"].groups
        for c in group.cases
    }
    rows = (10**5, 10**6, 10**7, 34_000_000)
    assert found == {
        (method, name, batch, n)
        for method in ("full", "qr")
        for name in NAMES
        for batch in (128, 2048)
        for n in rows
    }


def test_the_suite_of_methods_holds_every_method():
    registered = "from tf_compemb.layers.registry import method_names; import tf_compemb.layers"
    known = subprocess.run(
        [sys.executable, "-c", f"{registered}; print(*method_names())"],
        capture_output=True,
        text=True,
        check=True,
    )
    for group in make_suites(quick=False)["methods"].groups:
        assert sorted(case.settings["method"] for case in group.cases) == sorted(
            known.stdout.split()
        )
        shares = {case.name: case.settings["divisor"] for case in group.cases}
        assert (shares["qr"], shares["ant, 1/4"], shares["mlet, 1/1"]) == (10, 4, 1)


def test_ids_are_in_range_skewed_and_the_same_again():
    sizes = scaled_cardinalities(100_000)
    ids = id_batches(sizes, 512)
    assert ids.shape == (16, 512, 26)
    assert (ids >= 0).all()
    assert (ids < sizes).all()
    assert (ids == id_batches(sizes, 512)).all()
    # n * u^2 is under n / 4 for half of all u.
    largest = sizes.index(max(sizes))
    assert abs((ids[..., largest] < max(sizes) / 4).mean() - 0.5) < 0.02


def test_cases_run_in_turns_in_another_process_and_are_written():
    cases = [Case(n, "numpy", task, NUMPY) for n, task in [("a", "lookup"), ("b", "step")]]
    group = Group("rows", cases, "a", None, [Bound("b", "a", 1e9)])
    workers = Workers(sys.executable, sys.executable)
    announced = []
    try:
        (found,) = run_groups([group], workers, 3, announced.append)
    finally:
        workers.close()
    assert announced == ["rows"]
    assert set(workers.versions["numpy"]) == {"numpy"}
    written = json.loads(json.dumps(group_to_json(found)))
    assert [case["status"] for case in written["cases"]] == ["measured", "measured"]
    for case in written["cases"]:
        spread = case["measures"]["seconds"]
        assert case["fastest_seconds"] <= spread["lower"] <= spread["median"] <= spread["upper"]
        assert spread["values"] == sum(len(t) for t in found.of(case["name"]).turns)
    assert written["cases"][0]["ratios"]["baseline"]["median"] == 1.0
    assert written["bounds"][0]["met"] is True


def test_an_engine_keeps_no_memory_while_others_are_measured():
    workers = Workers(sys.executable, sys.executable)
    groups = [
        Group(name, [Case(name, name, "lookup", {**NUMPY, "method": "one table"})])
        for name in ("numpy", "torch")
    ]
    pids = []
    try:
        for group in groups:
            run_groups([group], workers, 1, lambda name: None)
            pids.append({name: worker.pid for name, worker in workers._running.items()})
    finally:
        workers.close()
    assert list(pids[0]) == ["numpy"]
    assert "numpy" not in pids[1]
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0]["numpy"], 0)


def test_a_fresh_group_has_a_process_of_its_own():
    workers = Workers(sys.executable, sys.executable)
    cases, pids = [Case("a", "numpy", "lookup", NUMPY)], []
    try:
        for is_fresh in (False, False, True):
            run_groups([Group("g", cases, fresh=is_fresh)], workers, 1, lambda name: None)
            pids.append(workers._running["numpy"].pid)
    finally:
        workers.close()
    assert pids[0] == pids[1] != pids[2]


def test_a_case_that_fails_leaves_the_others():
    cases = [Case("bad", "numpy", "lookup", {"batch": 4}), Case("good", "numpy", "lookup", NUMPY)]
    workers = Workers(sys.executable, sys.executable)
    try:
        (found,) = run_groups([Group("g", cases)], workers, 1, lambda name: None)
    finally:
        workers.close()
    bad, good = found.results
    assert (bad.status, bad.reason) == ("failed", "KeyError: 'rows'")
    assert good.status == "measured"


def test_a_process_that_ends_is_a_failed_case():
    worker = WorkerProcess("numpy", sys.executable)
    worker._process.kill()
    with pytest.raises(WorkerError, match="the process ended with -9"):
        worker.ask("release")
    worker.close()


def interpreter_without_packages(folder):
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the interpreter")
def test_a_peer_that_is_not_installed_says_what_to_install(tmp_path):
    python = interpreter_without_packages(tmp_path)
    with pytest.raises(MissingPackagesError) as caught:
        WorkerProcess("fbgemm", python)
    install = f'{python} -m pip install -e "{os.path.relpath(REPOSITORY)}[benchmark]"'
    assert str(caught.value) == f"no torch, fbgemm_gpu: {install}"
    workers = Workers(sys.executable, python)
    case = Case("FBGEMM TBE", "fbgemm", "lookup", {**NUMPY, "method": "tbe"})
    (found,) = run_groups([Group("g", [case])], workers, 1, lambda name: None)
    assert found.results[0].status == "not installed"


def test_a_case_that_does_not_fit_is_not_begun():
    settings = {"rows": 10**15, "batch": 4, "dim": 8, "method": "full"}
    workers = Workers(sys.executable, sys.executable)
    group = Group("g", [Case("huge", "tf_keras", "lookup", settings)])
    (found,) = run_groups([group], workers, 1, lambda name: None)
    assert found.results[0].status == "skipped"
    assert found.results[0].reason.startswith("needs 64000001.0 GB of memory, ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sped"], "argument SUITE: invalid choice: 'sped'"),
        (["lookup", "--rounds", "0"], "--rounds: must be at least 1, not 0;"),
        (["lookup", "--peer-python", "/no/python"], "--peer-python /no/python is no program"),
        (["lookup", "--only", "nothing"], "no group's name holds 'nothing'."),
    ],
)
def test_mistakes_end_with_status_2_and_one_sentence(arguments, message, capsys):
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_an_out_that_is_a_file_is_refused(tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("kept")
    with pytest.raises(SystemExit):
        main(["lookup", "--out", str(path)])
    assert f"--out {path} is a file; give a directory;" in capsys.readouterr().err
    assert path.read_text() == "kept"


@pytest.mark.slow
def test_a_quick_run_prints_and_writes_everything(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["lookup", "--quick", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lookup.json", "lookup.png"]
    found = json.loads((tmp_path / "lookup.json").read_text())
    assert "mean nothing" in found["warning"]
    out = capsys.readouterr().out
    assert "mean nothing" in out
    assert out.endswith("(tf_compemb.native_kernels): not used\n")
    assert found["versions"]["tf_keras"]["native kernels"] == "not used"
    status = {case["name"]: case["status"] for case in found["groups"][0]["cases"]}
    for method in METHODS:
        assert status[f"ours, {method}, tf_keras"] == "measured"
        assert status[f"ours, {method}, Keras 3"] == "measured"
    assert set(status.values()) <= {"measured", "not installed"}
    assert found["machine"]["cores"] >= 1


@pytest.mark.slow
def test_kernels_that_are_not_built_are_named(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("TF_COMPEMB_CACHE", str(tmp_path / "empty"))
    only = ["--only", "rowwise_adagrad"]
    assert main(["kernels", "--quick", *only, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "kernels.json").read_text())
    cases = {case["name"]: case for case in found["groups"][0]["cases"]}
    assert cases["full, without kernels"]["status"] == "measured"
    assert cases["full, with kernels"]["status"] == "skipped"
    assert "tf-compemb native-kernels" in cases["qr, with kernels"]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["memory", "ingest"])
def test_quick_runs_of_programs_and_memory(suite, tmp_path):
    pytest.importorskip("matplotlib")
    assert main([suite, "--quick", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / f"{suite}.json").read_text())
    for group in found["groups"]:
        for case in group["cases"]:
            assert case["status"] == "measured", case
            assert all(spread["median"] > 0 for spread in case["measures"].values())


@pytest.mark.slow
def test_the_gpu_suite_runs_on_a_cpu(tmp_path):
    pytest.importorskip("jax")
    assert main(["gpu", "--quick", "--device", "cpu", "--only", "JAX", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {case["status"] for group in found["groups"] for case in group["cases"]} == {"measured"}
