"""What a conversion of a trained table loses: errors against NumPy's, sizes, the program."""

import csv

import numpy as np
import pytest
from training_program import SMALL, needs_tf_keras, run_program

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

from click_rows import write_rows

from tf_compemb.experiments.reconstruction import COLUMNS, main, reconstructions


def rows_of(table, method):
    found = [
        dict(zip(COLUMNS, row, strict=True))
        for row in reconstructions(table, np.arange(len(table)))
    ]
    return [row for row in found if row["method"] == method]


def test_low_rank_loses_what_the_smaller_singular_values_hold():
    table = np.random.default_rng(0).normal(size=(120, 8)).astype("float32")
    values = np.linalg.svd(table, compute_uv=False)
    rows = rows_of(table, "low_rank")
    assert len(rows) > 2
    for row in rows:
        lost = np.sqrt((values[row["rank"] :] ** 2).sum() / (values**2).sum())
        assert row["relative_error"] == pytest.approx(lost, rel=1e-4)
        assert row["served_bytes"] == 4 * row["rank"] * (120 + 8)
        assert row["compression"] == pytest.approx(table.nbytes / row["served_bytes"])


def test_a_table_of_few_frequent_rows_is_kept_by_the_frequency_threshold():
    table = np.zeros((100, 4), "float32")
    table[90:] = np.random.default_rng(0).normal(size=(10, 4))  # The most frequent ids.
    errors = [row["relative_error"] for row in rows_of(table, "frequency_threshold")]
    assert errors == sorted(errors)
    assert errors[0] < 1e-6  # 10 rows of 100, at two thirds of the bytes.


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_rows(folder / "rows.txt", 400)
    for method in ("full", "hash"):
        arguments = ["--data", folder / "rows.txt", *SMALL, "--embedding", method]
        assert run_program(*arguments, "--cache", folder / "cache", "--out", folder / method) == 0
    return folder


def test_the_program_writes_a_table_and_a_plot(runs, capsys):
    assert main([str(runs / "full"), "--out", str(runs / "out")]) == 0
    names = {path.name for path in (runs / "out").iterdir()}
    assert names == {"reconstruction.csv", "reconstruction.png", "reconstruction.svg"}
    with open(runs / "out" / "reconstruction.csv") as file:
        rows = list(csv.DictReader(file))
    assert {"low_rank", "hash"} <= {row["method"] for row in rows}
    assert all(0 <= float(row["relative_error"]) < 1.5 for row in rows)
    assert "low_rank" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "more", "message"),
    [
        ("hash", [], "is a run of hash; give one of --embedding full."),
        ("full", ["--field", "C99"], "--field C99 is not in the run; it has C1, C2,"),
        ("none", [], "has no config.json"),
    ],
)
def test_mistakes_are_one_sentence(runs, run, more, message, capsys):
    assert main([str(runs / run), *more, "--out", str(runs / "other")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (runs / "other").exists()
