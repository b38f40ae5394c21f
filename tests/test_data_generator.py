"""Generated rows: their format, their columns, and the truth that is told of them."""

import gzip
import json

import numpy as np
import pytest

from tf_compemb.data import KAGGLE_CARDINALITIES, DataError, generate, open_or_prepare, prepare
from tf_compemb.data.__main__ import main
from tf_compemb.data.best_achievable import BestAchievable
from tf_compemb.data.synthetic_rows import (
    CATEGORICAL_MISSING,
    COMMONEST_SHARE,
    DENSE_MEDIAN,
    DENSE_MISSING,
    ClickModel,
    category_codes,
    scaled_cardinalities,
)

ROWS = 40_000


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    raw = tmp_path_factory.mktemp("generated") / "rows.txt"
    return raw, generate(raw, ROWS, seed=3)


def read_columns(raw):
    return list(zip(*(line.split("\t") for line in raw.read_text().splitlines()), strict=True))


def test_columns_are_like_the_real_ones(generated):
    columns = read_columns(generated[0])
    assert len(columns) == 40
    assert abs(np.mean([value == "1" for value in columns[0]]) - 0.256) < 0.01
    for i, column in enumerate(columns[1:14]):
        missing = np.mean([value == "" for value in column])
        assert abs(missing - DENSE_MISSING[i]) < 0.01
        median = np.median([int(value) for value in column if value])
        assert 0.7 * DENSE_MEDIAN[i] - 1 <= median <= 1.3 * DENSE_MEDIAN[i] + 1
    assert min(int(value) for value in columns[2]) == -3
    for i, column in enumerate(columns[14:]):
        values, counts = np.unique(column, return_counts=True)
        by_value = dict(zip(values.tolist(), counts / ROWS, strict=True))
        assert abs(by_value.pop("", 0) - CATEGORICAL_MISSING[i]) < 0.01
        assert abs(max(by_value.values()) - COMMONEST_SHARE[i]) < 0.01
        assert all(len(v) == 8 and int(v, 16) >= 0 for v in by_value)
        assert len(by_value) <= scaled_cardinalities()[i]


def test_the_same_arguments_give_the_same_bytes(generated, tmp_path):
    raw, truth = generated
    again = generate(tmp_path / "again.txt", ROWS, seed=3)
    assert again == truth
    generate(tmp_path / "shorter.txt.gz", 35_000, seed=3)
    shorter = gzip.decompress((tmp_path / "shorter.txt.gz").read_bytes())
    assert raw.read_bytes().startswith(shorter)
    assert shorter.count(b"\n") == 35_000
    assert generate(tmp_path / "other.txt", 10, seed=4)["sha256"] != truth["sha256"]


def test_best_auc_and_loss_by_another_way():
    rng = np.random.default_rng(0)
    probability = rng.random(500)
    label = rng.random(500) < probability
    best = BestAchievable()
    best.add(probability[:123], label[:123])
    best.add(probability[123:], label[123:])
    pairs = probability[label][:, None] - probability[~label][None, :]
    auc = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    loss = -np.mean(label * np.log(probability) + ~label * np.log(1 - probability))
    assert best.result() == {
        "auc": pytest.approx(auc, abs=3e-5),
        "log_loss": pytest.approx(loss, abs=1e-6),
    }
    assert BestAchievable().result() == {"auc": None, "log_loss": None}


def test_the_truth_is_the_model_on_the_rows_that_were_written(generated):
    raw, truth = generated
    assert 0.78 < truth["best"]["all"]["auc"] < 0.82
    chunks = [ClickModel(3, truth["cardinalities"]).rows(i, 1 << 15) for i in range(2)]
    label = np.concatenate([chunk.label for chunk in chunks])[:ROWS]
    probability = np.concatenate([chunk.probability for chunk in chunks])[:ROWS]
    np.testing.assert_array_equal(label, np.array(read_columns(raw)[0]) == "1")
    test = slice(ROWS - (ROWS - ROWS * 6 // 7 + 1) // 2, None)
    best = BestAchievable()
    best.add(probability[test], label[test])
    assert truth["best"]["test"] == best.result()


def test_labels_agree_with_their_probabilities():
    rows = ClickModel(1, scaled_cardinalities()).rows(0, 50_000)
    for low in (0.0, 0.1, 0.3, 0.6):
        inside = (rows.probability >= low) & (rows.probability < low + 0.2)
        error = rows.label[inside].mean() - rows.probability[inside].mean()
        assert abs(error) < 4 * 0.5 / np.sqrt(inside.sum())


def test_full_cardinalities_need_no_table_of_effects():
    model = ClickModel(0, KAGGLE_CARDINALITIES)
    rows = model.rows(0, 5_000)
    assert rows.categorical[:, 2].max() > 5_000_000
    assert 0.2 < rows.label.mean() < 0.31


def test_category_codes_are_a_bijection_within_a_field():
    ranks = np.arange(200_000)
    assert len(np.unique(category_codes(0, ranks))) == 200_000
    assert not np.array_equal(category_codes(0, ranks), category_codes(1, ranks))


def test_generated_data_are_labelled(generated, tmp_path):
    raw, truth = generated
    dataset = prepare(raw, tmp_path / "out")
    assert dataset.synthetic is True
    assert dataset.manifest["generator"] == truth
    assert open_or_prepare(raw, tmp_path / "cache").synthetic is True
    copy = tmp_path / "copy.txt"
    copy.write_bytes(raw.read_bytes())
    assert prepare(copy, tmp_path / "told", synthetic=truth).synthetic is True
    mixed = prepare([raw, copy], tmp_path / "mixed")
    assert mixed.manifest["generator"] == {"parts": [truth]}
    raw_truth = raw.with_name(raw.name + ".truth.json").read_text()
    copy.with_name("copy.txt.truth.json").write_text(raw_truth)
    copy.write_bytes(raw.read_bytes() + raw.read_bytes()[:500].rsplit(b"\n", 1)[0])
    with pytest.raises(DataError, match=r"truth\.json: does not belong to copy\.txt"):
        prepare(copy, tmp_path / "stale")
    copy.with_name("copy.txt.truth.json").write_text("{}")
    with pytest.raises(DataError, match="is not a truth file"):
        prepare(copy, tmp_path / "stale")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"rows": 0}, "`rows` must be at least 1"),
        ({"seed": -1}, "`seed` must not be negative"),
        ({"cardinalities": [5]}, "`cardinalities` must be 26 numbers"),
        ({"cardinalities": [0] * 26}, "`cardinalities` must be 26 numbers"),
        ({"click_rate": 1.0}, "`click_rate` must lie between 0 and 1"),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, reason):
    with pytest.raises(DataError, match=reason):
        generate(tmp_path / "rows.txt", **{"rows": 10, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written(tmp_path):
    generate(tmp_path / "rows.txt", 1)
    with pytest.raises(DataError, match=r"rows\.txt: already exists"):
        generate(tmp_path / "rows.txt", 1)
    with pytest.raises(DataError, match="x: cannot be written"):
        generate(tmp_path / "rows.txt" / "x", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.txt", "rows.txt.truth.json"]


def test_the_program_generates(tmp_path, capsys):
    out = tmp_path / "rows.txt"
    assert main(["generate", "--rows", "20", "--out", str(out), "--seed", "2"]) == 0
    assert "20 synthetic rows" in capsys.readouterr().out
    assert json.loads((tmp_path / "rows.txt.truth.json").read_text())["seed"] == 2
    assert main(["generate", "--rows", "20", "--out", str(out)]) == 2
    assert "already exists" in capsys.readouterr().err


def test_what_one_row_does_not_define_is_said_to_be_undefined(tmp_path, capsys):
    assert main(["generate", "--rows", "1", "--out", str(tmp_path / "one.txt")]) == 0
    assert ": 1 synthetic row; best achievable AUC undefined, log" in capsys.readouterr().out
