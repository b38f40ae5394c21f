"""Statistics, plans and their cache keys, summaries, parameter counts and memory."""

import csv
import dataclasses
import hashlib
import json
import statistics

import pytest
from experiment_runs import CARDINALITIES, VERSIONS, Data, planned, pretend
from training_program import needs_tf_keras

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

from tf_compemb.data.criteo_format import KAGGLE_CARDINALITIES
from tf_compemb.experiments import parameter_counts, results, summary
from tf_compemb.experiments.grid import GRIDS, read_grid
from tf_compemb.experiments.memory import PROGRAM_BYTES, needed_bytes, why_too_large
from tf_compemb.experiments.paired import paired_difference, t_distribution, t_quantile
from tf_compemb.experiments.paper import TABLE_1, statements
from tf_compemb.experiments.plan import key_of
from tf_compemb.experiments.run_store import RunStore
from tf_compemb.layers import method_names
from tf_compemb.training.options import TrainingOptions


# Student's t, printed in every book, for 95 % two-sided.
@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (5, 2.57058), (9, 2.26216)],
)
def test_t_quantiles_are_the_books(degrees, quantile):
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=5e-5)


def test_t_distribution_is_the_integral_of_its_density():
    # One degree of freedom is Cauchy's law: 1/2 + atan(t) / pi; 120 degrees nearly the normal law.
    assert t_distribution(1.0, 1) == pytest.approx(0.75, abs=1e-12)
    assert t_distribution(0.0, 7) == 0.5
    normal = statistics.NormalDist().cdf(1.5)
    assert t_distribution(1.5, 100_001) == pytest.approx(normal, abs=1e-5)


def test_paired_differences_by_hand():
    these, others = {0: 0.50, 1: 0.52, 2: 0.54, 9: 9.0}, {2: 0.51, 0: 0.49, 1: 0.50, 8: 8.0}
    found = paired_difference(these, others)
    # Differences 0.01, 0.02, 0.03: mean 0.02, deviation 0.01, t(2) = 4.30265.
    assert found.pairs == 3
    assert found.mean == pytest.approx(0.02)
    assert found.half_width == pytest.approx(4.30265 * 0.01 / 3**0.5, rel=1e-5)
    assert found.verdict == "within the noise"  # 0.02 < 0.0248
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("these", "verdict"),
    [
        ({0: 0.9, 1: 0.91}, "within the noise"),  # -0.095 ± 0.064: see below
        ({0: 0.9, 1: 0.901}, "lower"),
        ({0: 1.1, 1: 1.101}, "higher"),
        ({0: 0.9}, "one seed"),
    ],
)
def test_verdicts(these, verdict):
    others = {0: 1.0, 1: 1.0} if verdict != "within the noise" else {0: 1.0, 1: 0.98}
    assert paired_difference(these, others).verdict == verdict


def test_keys_tell_apart_what_changes_a_result():
    options = TrainingOptions(embedding=("qr",), collisions=4, data=("a",), out="x")
    key = key_of(options, "f", VERSIONS)
    same = options.replace(data=("b",), out="y", cache="c", checkpoint_every=7, json=True, rows=5)
    assert key_of(same, "f", {**VERSIONS, "python": "4"}) == key
    for other in ({"collisions": 5}, {"seed": 1}, {"option": {"x": 1}}, {"overrides": {"C1": {}}}):
        assert key_of(options.replace(**other), "f", VERSIONS) != key
    assert key_of(options, "g", VERSIONS) != key
    decisive = [{"embedding": ["qr"], "collisions": 4}, "f", {**VERSIONS}]
    del decisive[2]["python"]
    decisive[2]["tensorflow-recommenders"] = None
    text = json.dumps(decisive, sort_keys=True)
    assert key == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert key_of(options, "f", {**VERSIONS, "tensorflow": "3"}) != key


def test_a_plan_has_each_point_optimiser_and_seed_once(tmp_path):
    _, points, runs = planned(tmp_path)
    assert [p.name for p in points] == ["full", "hash collisions=3", "mult collisions=3"]
    assert [(r.point.name, r.options.optimizer, r.seed) for r in runs[:4]] == [
        ("full", "adagrad", 0),
        ("full", "adagrad", 1),
        ("full", "amsgrad", 0),
        ("full", "amsgrad", 1),
    ]
    assert len({run.key for run in runs}) == len(runs) == 12
    assert points[0].sizes.embedding_bytes == 4 * 4 * sum(CARDINALITIES)
    rows = sum(-(-n // 3) for n in CARDINALITIES)
    assert points[1].sizes.embedding_parameters == 4 * rows
    assert points[2].sizes.embedding_parameters == 4 * (rows + 3 * len(CARDINALITIES))


def test_validations_are_spread_over_the_epoch(tmp_path):
    _, _, runs = planned(tmp_path, validations_per_epoch=4)
    assert {run.options.validate_every for run in runs} == {11 // 4}


def test_summary_by_hand(tmp_path):
    grid, points, runs = planned(tmp_path)
    store = RunStore(tmp_path / "runs")
    test = {
        ("full", "adagrad"): (0.50, 0.52),
        ("full", "amsgrad"): (0.40, 0.42),
        ("hash", "adagrad"): (0.55, 0.57),
        ("hash", "amsgrad"): (0.60, 0.62),
        ("mult", "adagrad"): (0.52, 0.54),
        ("mult", "amsgrad"): (0.53, 0.545),
    }
    # By validation Adagrad is kept for all, though AMSGrad's test loss is lower for the full table.
    for run in runs:
        name = run.options.optimizer
        loss = test[run.point.series.name, name][run.seed]
        pretend(store, run, loss, 0.5 if name == "adagrad" else 0.6)
    rows = results.result_rows(points, runs, store, {}, Data.fingerprint)
    found = {(r["series"], r["optimizer"]): r for r in summary.summarize(grid, rows)}
    assert len(found) == 6
    assert [key for key, row in found.items() if row["kept"]] == [
        (name, "adagrad") for name in ("full", "hash", "mult")
    ]
    mult = found["mult", "adagrad"]
    assert (mult["seeds"], mult["value"], mult["note"]) == (2, "3", None)
    assert mult["test_loss"] == pytest.approx(0.53)
    assert mult["test_loss_sd"] == pytest.approx(0.02 / 2**0.5)
    assert mult["loss_minus_hash"] == pytest.approx(-0.03)
    assert mult["loss_minus_hash_half_width"] == pytest.approx(0, abs=1e-9)
    assert mult["loss_minus_full"] == pytest.approx(0.02)
    amsgrad = found["mult", "amsgrad"]  # Differences to hash: -0.02 and -0.025; t(1) = 12.7062.
    assert amsgrad["loss_minus_hash"] == pytest.approx(-0.0225)
    assert amsgrad["loss_minus_hash_half_width"] == pytest.approx(12.7062 * 0.0025, rel=1e-4)
    assert amsgrad["loss_minus_hash_verdict"] == "within the noise"
    assert found["full", "adagrad"]["loss_minus_full"] is None
    (compared,) = summary.compare(grid, rows)
    assert (compared["this"], compared["with"]) == ("mult 3", "hash 3")
    assert compared["difference"] == pytest.approx(-0.03)
    assert statements(found.values()) == []  # No statement of the paper is about this grid.


def test_methods_of_one_budget_are_ranked_and_compared_with_all_baselines(tmp_path):
    series = [
        {"name": "full", "embedding": "full", "vary": None},
        *({"name": name, "embedding": name} for name in ("frequency_threshold", "hash", "qr")),
    ]
    changes = {"series": series, "comparisons": [], "vary": {"budget": [2, 4]}}
    changes["baselines"] = ["full", "hash", "frequency_threshold"]
    grid, points, runs = planned(tmp_path, **changes, optimizers=[{"optimizer": "sgd"}])
    store = RunStore(tmp_path / "runs")
    losses = {"full": 0.5, "hash": 0.47, "qr": 0.48, "frequency_threshold": 0.49}
    for run in runs:
        more = 0.01 if run.point.value == 4 else 0.0
        pretend(store, run, losses[run.point.series.name] + more)
    rows = summary.summarize(grid, results.result_rows(points, runs, store, {}, "f"))
    shown = summary.shown_rows(rows, grid, "dlrm")
    assert [(row["series"], row["value"]) for row in shown] == [
        ("full", None),
        *((name, "2") for name in ("hash", "qr", "frequency_threshold")),
        *((name, "4") for name in ("hash", "frequency_threshold")),  # QR does not go so far.
    ]
    qr = shown[2]
    assert qr["loss_minus_frequency_threshold"] == pytest.approx(-0.01)
    assert qr["loss_minus_frequency_threshold_verdict"] == "lower"
    assert (qr["loss_minus_hash"], qr["loss_minus_full"]) == pytest.approx((0.01, -0.02))
    assert shown[3]["loss_minus_frequency_threshold"] is None


def test_only_points_of_the_same_setting_are_compared_with_a_baseline(tmp_path):
    series = [
        {"name": "hash", "embedding": "hash", "vary": {"collisions": [3, 4]}},
        {"name": "qr", "embedding": "qr", "vary": {"collisions": [4]}},
        {"name": "memcom", "embedding": "memcom", "vary": {"budget": [4]}},
    ]
    changes = {"series": series, "baselines": ["hash"], "comparisons": [], "vary": None}
    grid, points, runs = planned(tmp_path, **changes, optimizers=[{"optimizer": "sgd"}])
    store = RunStore(tmp_path / "runs")
    for run in runs:
        pretend(store, run, 0.5 if run.point.series.name == "qr" else 0.4)
    rows = summary.summarize(grid, results.result_rows(points, runs, store, {}, "f"))
    found = {(row["series"], row["value"]): row["loss_minus_hash"] for row in rows}
    assert found["qr", "4"] == pytest.approx(0.1)
    assert found["memcom", "4"] is None
    assert found["hash", "3"] is None


def test_runs_say_the_defaults_of_their_optimiser(tmp_path):
    # So that the key of a run changes with a default.
    _, points, runs = planned(tmp_path)
    assert {point.options.warmup_steps for point in points} == {None}
    found = {(run.options.learning_rate, run.options.warmup_steps) for run in runs}
    assert found == {(0.02, 100), (0.001, 0)}


def test_rows_of_runs_that_are_not_finished(tmp_path):
    _, points, runs = planned(tmp_path)
    store = RunStore(tmp_path / "runs")
    pretend(store, runs[0], 0.5)
    rows = results.result_rows(points, runs, store, {runs[1].key: "why"}, Data.fingerprint)
    assert [(r["status"], r["note"]) for r in rows[:3]] == [
        ("finished", None),
        ("failed", "why"),
        ("missing", None),
    ]
    results.write_rows(tmp_path / "results.csv", results.COLUMNS, rows)
    with (tmp_path / "results.csv").open() as file:
        first, second, *_ = csv.DictReader(file)
    assert (first["test_loss"], first["learning_rate"], first["seed"]) == ("0.5", "0.02", "0")
    assert (second["test_loss"], second["status"]) == ("", "failed")
    (timing,) = results.timing_rows(runs, store)
    assert timing["milliseconds_per_step"] == 5.0  # 32 rows at 6400 a second.


@pytest.mark.parametrize("model", ["dcn", "dlrm"])
def test_table_1_on_the_public_cardinalities(model):
    grid = read_grid(GRIDS / "table1.json", method_names())
    rows = parameter_counts.count_rows(grid, [model], "kaggle", KAGGLE_CARDINALITIES)
    path = [row for row in rows if row["series"] == "path"]
    stated = [TABLE_1[model, hidden][0] for hidden in (16, 32, 64, 128)]
    assert [row["paper_parameters"] for row in path] == stated
    assert all(abs(row["relative_difference"]) < 0.0002 for row in path)
    ours = [row["parameters"] for row in path]
    assert [n - ours[0] for n in ours] == [n - stated[0] for n in stated]


def test_full_and_hashed_sizes_on_the_public_cardinalities():
    grid = read_grid(GRIDS / "figure5.json", method_names())
    rows = parameter_counts.count_rows(grid, ["dcn", "dlrm"], "kaggle", KAGGLE_CARDINALITIES)
    assert len(rows) == 2 * 36
    found = {(r["model"], r["series"], r["value"]): r["embedding_parameters"] for r in rows}
    assert found["dcn", "full", None] == 16 * 33_762_577 == 540_201_232
    for c in (2, 3, 4, 5, 6, 7, 60):
        hashed = 16 * sum(-(-n // c) for n in KAGGLE_CARDINALITIES)
        assert found["dlrm", "hash", str(c)] == hashed
        for name in ("mult", "add", "feature", "concat"):
            assert found["dlrm", name, str(c)] == hashed + 16 * 26 * c


def test_thresholds_on_the_public_cardinalities():
    grid = read_grid(GRIDS / "figure7.json", method_names())
    rows = parameter_counts.count_rows(grid, ["dlrm"], "kaggle", KAGGLE_CARDINALITIES)
    found = {(r["series"], r["value"]): r["embedding_parameters"] for r in rows}
    for t in (1, 20, 200, 2000, 20000):
        full = sum(n for n in KAGGLE_CARDINALITIES if n <= t)
        compressed = sum(4 + -(-n // 4) for n in KAGGLE_CARDINALITIES if n > t)
        assert found["mult", str(t)] == 16 * (full + compressed)
        # Full tables beside concatenated vectors are 32 wide.
        assert found["concat", str(t)] == 32 * full + 16 * compressed


def test_memory_of_a_run(tmp_path):
    _, points, runs = planned(tmp_path)
    embedding = points[0].sizes.embedding_parameters
    amsgrad = next(r for r in runs if r.options.optimizer == "amsgrad")
    # Table and its copy, three accumulators, and a float a row.
    expected = 4 * embedding * (2 + 3 + 1 / 4)
    assert needed_bytes(amsgrad.options, points[0].sizes) == PROGRAM_BYTES + expected
    assert why_too_large(amsgrad) == ""
    huge = dataclasses.replace(
        amsgrad,
        point=dataclasses.replace(
            points[0],
            sizes=dataclasses.replace(
                points[0].sizes, training_bytes=10**15, embedding_parameters=10**14
            ),
        ),
    )
    assert why_too_large(huge).startswith("needs about 3300001.0 GB of memory, ")
