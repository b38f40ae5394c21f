"""The comparison of served models: what is read, timed and counted, and what is printed of it."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tf_compemb.serving import compare, memory
from tf_compemb.serving.__main__ import main
from tf_compemb.serving.agreement import agreement
from tf_compemb.serving.compare_inputs import drawn_rows, real_rows
from tf_compemb.serving.compare_models import (
    cardinalities,
    have_same_weights,
    is_trained,
    model_card,
    parse_models,
    stored_bytes,
    theoretical_bytes,
)
from tf_compemb.serving.compare_notes import notes
from tf_compemb.serving.compare_plot import plot
from tf_compemb.serving.compare_report import against_theory, print_report, summary
from tf_compemb.serving.compare_server import LocalServer
from tf_compemb.serving.cut_model import cut_cardinalities, model_options
from tf_compemb.serving.latency import WARM_UP_CALLS, Case, measure_latency
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions

needs_proc = pytest.mark.skipif(not memory.PROC.joinpath("self").exists(), reason="needs /proc")


@pytest.fixture
def exported(tmp_path):
    """A directory like an exported model's; version 10 is newer than 9."""
    for version in ("9", "10"):
        folder = tmp_path / "qr" / version
        (folder / "variables").mkdir(parents=True)
        (folder / "assets").mkdir()
        (folder / "saved_model.pb").write_bytes(bytes(7))
        (folder / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(1000))
        (folder / "assets" / "vocabulary_C1.txt").write_bytes(bytes(30))
        (folder / "assets.extra").mkdir()
        (folder / "assets.extra" / "tf_serving_warmup_requests").write_bytes(bytes(99))
        fields = [{"name": f"C{i}", "rows": int(version) * i} for i in range(1, 27)]
        card = {
            "trained": True,
            "metrics": {"test_loss": 0.5},
            "bytes": {"embeddings": 800, "network": 200, "weights": 1000, "vocabulary": 30},
            "embeddings": [{"method": "qr", "fields": fields}],
        }
        (folder / "model_card.json").write_text(json.dumps(card))
    (tmp_path / "qr" / ".partial-host-1").mkdir()
    return tmp_path / "qr"


def test_models_as_the_command_line_names_them(exported):
    texts = [str(exported), f"other={exported}", "gpu=grpc://h:8500,http://h:8501"]
    first, second, third = parse_models(texts, ["gpu=12"])
    assert (first.name, first.directory, first.is_running) == ("qr", exported, False)
    assert (second.name, second.directory) == ("other", exported)
    assert (third.grpc, third.rest, third.pid) == ("h:8500", "http://h:8501", 12)
    (both,) = parse_models([f"qr=grpc://h:8500,{exported}"], [])
    assert both.is_running
    assert both.directory == exported


@pytest.mark.parametrize(
    ("texts", "pids", "word"),
    [
        (["missing"], [], "missing holds no exported model"),
        (["grpc://h:8500"], [], "Give NAME=grpc://h:8500"),
        (["a=grpc://h"], [], "give HOST:PORT"),
        (["a=http://h:99999"], [], "give http://HOST:PORT"),
        (["a="], [], "a= holds no exported model"),
        (["a=grpc://h:1", "a=grpc://h:2"], [], "Two models are called a"),
        (["a=grpc://h:1"], ["b=2"], "no running server is called b"),
        (["a=grpc://h:1"], ["a=x"], "--pid takes NAME=PID"),
    ],
)
def test_models_that_are_none(texts, pids, word):
    with pytest.raises(UserError, match=re.escape(word)):
        parse_models(texts, pids)


def test_a_version_s_folder_is_no_model(exported):
    with pytest.raises(UserError, match="is one version of a model"):
        parse_models([str(exported / "9")], [])


def test_sizes_are_the_newest_version_s(exported):
    card = model_card(exported)
    assert cardinalities(card) == [10 * i for i in range(1, 27)]
    assert theoretical_bytes(card)["weights"] == 1000
    assert stored_bytes(exported / "10") == 7 + 1000 + 30


def test_a_missing_or_damaged_card_is_one_sentence(exported):
    (exported / "10" / "model_card.json").write_text("{")
    with pytest.raises(UserError, match=r"10/model_card.json is not valid JSON"):
        model_card(exported)
    for other in ("{}", "[]", '{"bytes": {}}'):
        (exported / "10" / "model_card.json").write_text(other)
        with pytest.raises(UserError, match="is no card of an exported model"):
            model_card(exported)
    (exported / "10" / "model_card.json").unlink()
    with pytest.raises(UserError, match=r"model_card.json cannot be read"):
        model_card(exported)


def test_which_models_should_agree():
    run = {"trained": True, "metrics": {"loss": 0.5}, "training": {"options": {}}, "data": {}}
    assert have_same_weights(run, {**run, "precision": "bfloat16"})
    assert not have_same_weights(run, {**run, "metrics": {"loss": 0.6}})
    assert not have_same_weights(run, None)
    assert not have_same_weights({"trained": False}, {"trained": False})
    assert [is_trained(card) for card in (run, {"trained": False}, None)] == [True, False, False]


def test_a_twin_has_the_options_of_its_model_and_small_tables():
    run = TrainingOptions(model="dcn", embedding=("qr",), collisions=60, dim=8, epochs=3)
    card = {"trained": True, "training": {"options": run.to_json()}}
    options = model_options(card)
    assert options == TrainingOptions(model="dcn", embedding=("qr",), collisions=60, dim=8)
    sizes = [10_000_000, 1500, 2001, 10_000_000, 3]
    assert cut_cardinalities(sizes, options) == [2002, 1500, 2001, 2002, 3]
    wide = options.replace(collisions=1000, threshold=50)
    assert cut_cardinalities([5000, 4050], wide) == [4051, 4050]
    assert model_options({"trained": None}) is None


# --- Latency -----------------------------------------------------------------------------------


class FakeClock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def slow_client(clock, milliseconds):
    """Answers after so many milliseconds, one after another; those of the warm-up come first."""
    waits = iter(milliseconds)

    def send(request):
        assert request == "request"
        clock.now += next(waits) / 1e3

    return SimpleNamespace(send=send)


def test_percentiles_and_throughput_by_hand():
    clock = FakeClock()
    warm_up = [1000.0] * WARM_UP_CALLS
    rounds = [*warm_up, 1.0, 2.0, 3.0, 10.0, *warm_up, 2.0, 2.0, 2.0, 2.0]
    other = [5.0] * (2 * (WARM_UP_CALLS + 4))
    cases = [
        Case("a", "grpc", 64, slow_client(clock, rounds), "request"),
        Case("b", "grpc", 64, slow_client(clock, other), "request"),
    ]
    order = []
    first, second = measure_latency(
        cases, repeats=2, calls=4, report=lambda case: order.append(case.model), clock=clock
    )
    assert order == ["a", "b", "a", "b"]
    np.testing.assert_allclose(first.percentile_ms(50), [2.5, 2.0])
    # Linear between the third (3 ms) and the fourth (10 ms) call: 3 + 0.97 * 7.
    np.testing.assert_allclose(first.percentile_ms(99), [9.79, 2.0])
    np.testing.assert_allclose(first.rows_per_second(), [4 * 64 / 0.016, 4 * 64 / 0.008])
    np.testing.assert_allclose(second.percentile_ms(50), [5.0, 5.0])


# --- Outputs and inputs --------------------------------------------------------------------------


def outputs_of(logits):
    logits = np.array(logits)[:, None]
    return {"logit": logits, "click_probability": 1 / (1 + np.exp(-logits))}


def test_agreement_by_hand():
    one = outputs_of([0.0, np.log(3.0)])  # 0.5, 0.75
    two = outputs_of([np.log(3.0), np.log(4.0)])  # 0.75, 0.8
    found = agreement(one, two, same_weights=True, trained=True)
    assert found.max_difference == pytest.approx(0.25)
    assert found.mean_difference == pytest.approx(0.15)
    assert found.logit_correlation == pytest.approx(1.0)
    falling = agreement(one, outputs_of([1.0, 0.0]), same_weights=False, trained=True)
    assert falling.logit_correlation == pytest.approx(-1.0)


def test_no_correlation_where_it_means_nothing():
    one, constant = outputs_of([0.0, 1.0]), outputs_of([1.0, 1.0])
    assert agreement(one, one, same_weights=False, trained=False).logit_correlation is None
    assert agreement(one, constant, same_weights=False, trained=True).logit_correlation is None


def test_drawn_ids_are_known_to_every_model():
    sizes = [[7] * 26, [3, 100] * 13]
    rows = drawn_rows(sizes, 2000, seed=1)
    assert rows.signature == "serving_default"
    assert rows.inputs["dense"].shape == (2000, 13)
    ids = rows.inputs["categorical"]
    assert (ids.shape, ids.dtype) == ((2000, 26), np.int64)
    assert ids.max(axis=0).tolist() == [2, 6] * 13
    assert ids.min() == 0
    np.testing.assert_array_equal(drawn_rows(sizes, 2000, seed=1).inputs["categorical"], ids)
    assert (drawn_rows(sizes, 2000, seed=2).inputs["categorical"] != ids).any()


def test_models_of_other_rows_are_refused():
    with pytest.raises(UserError, match="3 categorical fields instead of 26"):
        drawn_rows([[7] * 3], 10, seed=0)


def test_a_short_file_begins_again(tmp_path):
    line = "1\t{}" + 12 * "\t" + "\ta" + 25 * "\t"
    (tmp_path / "rows.txt").write_text("\n".join(line.format(i) for i in range(3)))
    rows = real_rows(str(tmp_path / "rows.txt"), 5)
    assert rows.signature == "raw"
    assert rows.inputs["integers"][:, 0].tolist() == [b"0", b"1", b"2", b"0", b"1"]
    assert rows.first(2)["categories"].shape == (2, 26)


# --- The report ----------------------------------------------------------------------------------


ABOUT = {
    "settings": {"repeats": 5, "calls": 100, "onednn": False},
    "rows": "drawn ids",
    "machine": {"processor": "CPU", "cores": 2, "load_average": (0.5, 0, 0)},
}


def measured(name, weights, anonymous):
    latency = {"protocol": "grpc", "batch": 64, "p50_ms": [3.0, 1.0, 2.0]}
    latency |= {"p99_ms": [4.0, 4.0, 9.0], "rows_per_second": [64.0, 64.0, 70.0]}
    agreed = agreement(outputs_of([0, 1]), outputs_of([0, 1]), same_weights=True, trained=True)
    return {
        "name": name,
        "directory": f"exports/{name}",
        "running": None,
        "card": {"trained": True},
        "theoretical_bytes": {"weights": weights, "vocabulary": 0},
        "saved_model_bytes": weights + 50,
        "memory": {
            "anonymous_bytes": anonymous,
            "peak_bytes": [9, 8, 7],
            "start_seconds": [1.5, 1.6, 2.5],
        },
        "cut": {
            "theoretical_bytes": {"weights": 10},
            "memory": {"anonymous_bytes": [71, 75, 72]},
        },
        "latency": [latency],
        "agreement": {**vars(agreed), "largest_difference_grpc_rest": None},
    }


def test_the_summary_by_hand():
    empty = {"anonymous_bytes": [50, 70, 60], "peak_bytes": [1], "start_seconds": [1.0, 1.1, 1.2]}
    models = [measured("full", 640, [700, 720, 704]), measured("qr", 40, [100, 102, 98])]
    full, qr = summary({"empty": empty, "running_empty": None, "models": models})
    assert full["rss_anon_over_empty_bytes"] == 704 - 60
    assert full["rss_anon_spread_bytes"] == 10
    assert full["load_seconds"] == pytest.approx(0.5)
    assert full["peak_rss_bytes"] == 8
    assert qr["rss_anon_difference_to_first_bytes"] == 40 - 644
    assert qr["theoretical_difference_to_first_bytes"] == 40 - 640
    assert (full["tables_theoretical_bytes"], full["tables_rss_anon_bytes"]) == (630, 704 - 72)
    assert (qr["grpc_64_p50_ms"], qr["grpc_64_p99_ms"]) == (2.0, 4.0)
    assert qr["grpc_64_rows_per_second"] == 64.0
    assert list(full) == list(qr)


def test_what_a_reader_has_to_know_is_said():
    full, qr = measured("full", 640, [700]), measured("qr", 40, [100])
    empty = {"anonymous_bytes": [60_000_000]}
    found = {"empty": empty, "running_empty": None, "models": [full, qr]}
    said = "\n".join(notes(ABOUT, found))
    assert "(60.0 MB)" in said
    assert "medians of 5 repeats of 100 calls" in said
    assert "± half the range; oneDNN off" in said
    once = {**ABOUT, "settings": {**ABOUT["settings"], "repeats": 1}}
    assert notes(once, found)[0].startswith("one repeat of 100 calls on one connection, with drawn")
    assert "half the range" not in notes(once, found)[1]
    for word in ("untrained", "vocabulary", "GPU", "running", "unknown"):
        assert word not in said
    qr["card"]["trained"] = False
    qr["theoretical_bytes"]["vocabulary"] = 3_000_000
    qr["memory"]["gpu_bytes"] = [5]
    said = "\n".join(notes(ABOUT, found))
    for word in ("untrained", "vocabulary, 3.0 MB of text", "up to twice the tables"):
        assert word in said


def running(name, **changed):
    """What was measured of a server that ran already, without directory or process."""
    model = measured(name, 640, [])
    unknown = ("directory", "card", "theoretical_bytes", "saved_model_bytes", "memory", "cut")
    return {**model, **dict.fromkeys(unknown), "running": ["h:8500"], **changed}


MEMORY = {"anonymous_bytes": [90_000_000], "peak_bytes": [300_000_000]}


def report(capsys, *models, empty=None, running_empty=None):
    """What is printed."""
    found = {"empty": empty, "running_empty": running_empty, "models": list(models)}
    print_report(summary(found), notes(ABOUT, found), "out")
    return capsys.readouterr().out


def headings(shown):
    return [
        [cell for cell in re.split(r" {2,}", line.strip()) if cell]
        for line in shown.splitlines()
        if line.strip().startswith("model ")
    ]


def test_no_time_to_load_is_below_zero_and_one_row_is_no_rows(capsys):
    empty = {**MEMORY, "start_seconds": [2.5]}
    model = measured("full", 640, [91_000_000])
    model["latency"][0]["batch"] = 1
    _, latency, *_ = headings(shown := report(capsys, model, empty=empty))
    assert latency == ["model", "gRPC, 1 row"]
    assert " 0.0 s " in shown
    assert "-" not in shown.partition("Latency")[0]


def test_of_a_running_server_only_what_is_known_is_shown(capsys):
    shown = report(capsys, running("full"), running("qr"))
    latency, outputs = headings(shown)
    assert latency == ["model", "gRPC, 64 rows"]
    assert outputs[1:] == [
        "same weights",
        "largest |difference|",
        "mean |difference|",
        "correlation of logits",
    ]
    for absent in ("Memory", "fresh local server", "twin", "of it tables:", "vocabulary", "oneDNN"):
        assert absent not in shown
    assert "memory of full, qr is unknown: --pid NAME=PID says which process to read" in shown
    assert "weights and SavedModel of full, qr are unknown: NAME=ADDRESS,DIRECTORY" in shown
    assert "measured of local servers only, not of full, qr" in shown


def test_a_running_server_s_memory_without_an_empty_one_is_its_own(capsys):
    vocabulary = {"weights": 640, "vocabulary": 5_000_000}
    full = running("full", memory=MEMORY, theoretical_bytes=vocabulary)
    shown = report(capsys, full, running("qr"))
    assert headings(shown)[0] == ["model", "weights", "RssAnon", "peak RSS"]
    assert re.search(r"full +0.6 kB +90.0 MB +300.0 MB", shown)
    assert re.search(r"qr +– +– +–", shown)  # noqa: RUF001
    assert "RssAnon of full: anonymous memory of the running server, read once after" in shown
    assert "is unknown without a server called empty" in shown
    assert "memory of qr is unknown" in shown
    assert "vocabulary" not in shown


def test_a_running_server_is_compared_with_a_running_empty_one(capsys):
    local_empty = {"anonymous_bytes": [60_000_000], "start_seconds": [1.0]}
    running_empty = {"anonymous_bytes": [10_000_000]}
    local = measured("full", 640_000_000, [700_000_000])
    known = {"theoretical_bytes": {"weights": 50_000_000, "vocabulary": 5_000_000}}
    other = running("qr", memory=MEMORY, directory="exports/qr", saved_model_bytes=9, **known)
    shown = report(capsys, local, other, empty=local_empty, running_empty=running_empty)
    assert re.search(r"full +640.0 MB .* 640.0 MB", shown)
    assert re.search(r"qr +50.0 MB +\S+ \S+ +80.0 MB \*", shown)
    assert "fresh local server, less that of the same server" in shown
    assert "less that of the running server empty (10.0 MB)" in shown
    assert "measured of local servers only, not of qr" in shown
    assert "5.0 MB of text here" in shown
    (row,) = summary({"empty": None, "running_empty": None, "models": [running("full")]})
    assert row["rss_anon_over_empty_bytes"] is None
    assert row["tables_rss_anon_bytes"] is None
    assert row["grpc_64_p50_ms"] == 2.0


def test_weights_that_may_be_the_same_are_unknown(capsys):
    unknown = {**running("qr")["agreement"], "same_weights": None}
    shown = report(capsys, running("full"), running("qr", agreement=unknown))
    assert re.search(r"qr +unknown ", shown)


@pytest.mark.parametrize(
    ("changed", "panels"),
    [
        ({}, ["Memory: line: equal; grey: within the noise", "gRPC: p50, whisker to p99"]),
        (
            {"cut": None},
            ["Memory of the server; line: weights in theory", "gRPC: p50, whisker to p99"],
        ),
        ({"cut": None, "memory": None}, ["gRPC: p50, whisker to p99"]),
    ],
)
def test_a_plot_has_a_panel_for_what_was_measured(changed, panels, tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    save = figure.Figure.savefig
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))
    )
    models = [{**measured(name, 640, [700, 720]), **changed} for name in ("full", "qr")]
    empty = {"anonymous_bytes": [50], "start_seconds": [1.0]}
    plot(summary({"empty": empty, "running_empty": None, "models": models}), tmp_path / "it.png")
    assert [axes.get_title() for axes in drawn[0].axes] == panels
    # Bars of 2 ms begin a decade below them, not at what matplotlib finds room for.
    assert drawn[0].axes[-1].get_ylim()[0] == 1


@pytest.mark.parametrize(
    ("theory", "over", "said"),
    [
        (640_000_000, 652_800_000, "+2.0 %"),
        (16_000_000, 15_680_000, "-2.0 %"),
        (16_000_000, 15_999_999, "+0.0 %"),
        (15_999_999, 16_100_000, ""),
        (130_000, 1_999_999, "below 2 MB"),
        (130_000, 2_000_001, ""),
        (None, 5, ""),
    ],
)
def test_a_ratio_is_given_only_where_it_means_something(theory, over, said):
    assert against_theory(theory, over) == said


# --- The program ---------------------------------------------------------------------------------

SIZES = ",".join(["600000", *["500"] * 25])


def run_module(module, *arguments):
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    for name, method in {"full": ["full"], "qr": ["qr", "--collisions", "60"]}.items():
        arguments = ["--untrained", "--embedding", *method, "--cardinalities", SIZES]
        run_module("tf_compemb.export", *arguments, "--out", folder, "--name", name)
    return folder


@needs_proc
@pytest.mark.slow
def test_measured_memory_is_that_of_the_tables(exports, tmp_path):
    few = ["--repeats", 3, "--calls", 2, "--batches", "1,8", "--out", tmp_path]
    shown = run_module("tf_compemb.serving", "compare", exports / "full", exports / "qr", *few)
    assert "below 2 MB" in shown
    found = json.loads((tmp_path / "comparison.json").read_text())
    full, qr = found["summary"]
    # 600,000 rows of 16 float32, less those that the twin has.
    assert full["tables_theoretical_bytes"] == (600_000 - 2001) * 16 * 4
    assert full["tables_rss_anon_bytes"] == pytest.approx(
        full["tables_theoretical_bytes"], rel=0.02
    )
    assert abs(qr["tables_rss_anon_bytes"]) < 2_000_000
    assert full["largest_difference_grpc_rest"] < 1e-6
    assert not qr["same_weights"]
    assert {len(model["memory"]["anonymous_bytes"]) for model in found["models"]} == {3}
    assert found["settings"]["onednn"] is False
    assert (tmp_path / "comparison.csv").read_text().count("\n") == 3
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


@needs_proc
@pytest.mark.slow
def test_running_servers_are_measured_where_they_are(exports, tmp_path):
    run_module("tf_compemb.serving", "empty", "--out", tmp_path)
    with (
        LocalServer("full", exports / "full", onednn=False) as full,
        LocalServer("empty", tmp_path / "empty", onednn=False) as empty,
    ):
        arguments = [f"full={exports / 'full'},grpc://{full.grpc},{full.rest}"]
        arguments += [f"empty=grpc://{empty.grpc}", "--pid", f"full={full.pid}"]
        arguments += ["--pid", f"empty={empty.pid}", "--repeats", 1, "--calls", 2]
        arguments += ["--batches", "4", "--out", tmp_path / "out"]
        shown = run_module("tf_compemb.serving", "compare", *arguments)
    assert "fresh local server" not in shown
    assert "less that of the running server empty" in shown
    (row,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["summary"]
    over = row["rss_anon_over_empty_bytes"]
    assert 600_000 * 64 < over < 600_000 * 64 + 60_000_000  # The graph is in it.
    assert row["grpc_4_p50_ms"] > 0
    assert row["rest_4_p50_ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{folder}/none"], "holds no exported model"),
        (["a=grpc://127.0.0.1:1"], "add --data FILE"),
        (["empty=grpc://127.0.0.1:1"], "Name a model to compare"),
        (["a=grpc://127.0.0.1"], "give HOST:PORT"),
        (["a=http://127.0.0.1:x"], "give http://HOST:PORT"),
        (["a=grpc://127.0.0.1:1", "--data", "{folder}/none.txt"], "there is no such file"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, tmp_path, capsys):
    given = [argument.format(folder=tmp_path) for argument in arguments]
    assert main(["compare", *given, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (tmp_path / "out").exists()


def test_running_servers_are_called_before_anything_is_measured(
    exported, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(compare, "write_cut_model", lambda *_: pytest.fail("measured already"))
    models = [str(exported), f"b=grpc://127.0.0.1:1,{exported}"]
    assert main(["compare", *models, "--out", str(tmp_path / "out")]) == 2
    assert "No server answers at grpc://127.0.0.1:1" in capsys.readouterr().err
