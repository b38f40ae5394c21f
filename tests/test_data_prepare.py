"""Raw rows to a prepared data set: numbers, vocabulary, hash, split, bytes."""

import gzip
import json
import math

import numpy as np
import pytest
from criteo_rows import (
    FIELDS,
    expected_dense,
    expected_ids,
    make_line,
    random_lines,
    write_lines,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_compemb.data import DataError, PreparedDataset, open_or_prepare, prepare
from tf_compemb.data.criteo_format import KAGGLE_CARDINALITIES, split_rows

LINES = random_lines(300)


def all_rows(dataset):
    """All rows in order: dense, ids, labels."""
    parts = [dataset.arrays(split) for split in ("train", "validation", "test")]
    return tuple(
        np.concatenate(columns)
        for columns in (
            [features["dense"] for features, _ in parts],
            [features["categorical"] for features, _ in parts],
            [label for _, label in parts],
        )
    )


def test_a_row_by_hand(tmp_path):
    first = make_line("1", [0, -2, 7, "", 2071071], ["68fd1e64", "", "a"])
    second = make_line("0", [1], ["68fd1e64", "b"])
    raw = write_lines(tmp_path / "raw.txt", [first, second] * 4)
    dataset = prepare(raw, tmp_path / "out")
    features, label = dataset.arrays("train")
    assert dataset.splits == {"train": (0, 6), "validation": (6, 7), "test": (7, 8)}
    assert label[:2].tolist() == [[1.0], [0.0]]
    np.testing.assert_allclose(
        features["dense"][0], [0, 0, math.log(8), 0, math.log(2071072)] + 8 * [0], rtol=1e-7
    )
    np.testing.assert_allclose(features["dense"][1], [math.log(2)] + 12 * [0], rtol=1e-7)
    assert features["categorical"][0].tolist() == [1, 1, 1] + 23 * [1]
    assert features["categorical"][1].tolist() == [1, 2, 2] + 23 * [1]
    assert dataset.cardinalities == (2, 3, 3) + 23 * (2,)
    assert dataset.vocabulary("C1").to_pylist() == ["68fd1e64"]
    assert dataset.vocabulary("C2").to_pylist() == ["", "b"]
    assert dataset.frequencies("C2").tolist() == [0, 3, 3]
    assert features["dense"].dtype == label.dtype == np.float32
    assert features["categorical"].dtype == np.int64


@pytest.mark.parametrize("block_bytes", [300, 2_000, 1 << 20])
@pytest.mark.parametrize("min_count", [1, 3])
def test_vocabulary_equals_plain_python_whatever_the_blocks(tmp_path, block_bytes, min_count):
    raw = write_lines(tmp_path / "raw.txt", LINES)
    dataset = prepare(raw, tmp_path / "out", min_count=min_count, block_bytes=block_bytes)
    ids, tables = expected_ids(LINES, train=257, min_count=min_count)
    dense, categorical, label = all_rows(dataset)
    np.testing.assert_array_equal(categorical, ids)
    np.testing.assert_allclose(dense, expected_dense(LINES), rtol=1e-6)
    assert label[:, 0].tolist() == [float(line[0]) for line in LINES]
    for i, field in enumerate(FIELDS):
        assert dataset.vocabulary(field).to_pylist() == list(tables[i])
        counts = np.bincount(ids[:257, i], minlength=len(tables[i]) + 1)
        np.testing.assert_array_equal(dataset.frequencies(field), counts)
        assert dataset.cardinalities[i] == len(tables[i]) + 1


@settings(max_examples=15, deadline=None)
@given(
    values=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), max_size=12),
        min_size=1,
        max_size=40,
    ),
    min_count=st.integers(1, 3),
    block_bytes=st.integers(60, 500),
)
def test_any_strings_keep_their_vocabulary(tmp_path_factory, values, min_count, block_bytes):
    folder = tmp_path_factory.mktemp("any")
    lines = [make_line("1", [], [value, "x"]) for value in values]
    raw = write_lines(folder / "raw.txt", lines)
    dataset = prepare(raw, folder / "out", min_count=min_count, block_bytes=block_bytes)
    ids, tables = expected_ids(lines, len(lines) * 6 // 7, min_count)
    np.testing.assert_array_equal(all_rows(dataset)[1], ids)
    assert dataset.vocabulary("C1").to_pylist() == list(tables[0])


def test_categories_of_validation_and_test_leak_nothing(tmp_path):
    lines = [make_line("0", [], ["old"])] * 6 + [make_line("0", [], ["new"])] * 1
    dataset = prepare(write_lines(tmp_path / "raw.txt", lines), tmp_path / "out")
    assert dataset.vocabulary("C1").to_pylist() == ["old"]
    assert dataset.frequencies("C1").tolist() == [0, 6]
    assert dataset.arrays("test")[0]["categorical"][0, 0] == 0


@pytest.mark.parametrize(("buckets", "id_bytes"), [(50, 4), (2**31, 4), (2**31 + 1, 8), (2**62, 8)])
def test_hash_ids_are_those_of_tensorflow(tmp_path, buckets, id_bytes):
    import tensorflow as tf

    raw = write_lines(tmp_path / "raw.txt", LINES)
    dataset = prepare(
        raw, tmp_path / "out", encoder="hash", hash_buckets=buckets, block_bytes=2_000
    )
    columns = np.array([line.split("\t")[14:] for line in LINES])
    expected = tf.strings.to_hash_bucket_fast(columns, buckets).numpy()
    np.testing.assert_array_equal(all_rows(dataset)[1], expected)
    assert dataset.cardinalities == (buckets,) * 26
    assert (tmp_path / "out" / "rows.bin").stat().st_size == 300 * (14 * 4 + 26 * id_bytes)
    ids, counts = np.unique(expected[:257, 4], return_counts=True)
    stored_ids, stored_counts = dataset.occurring("C5")
    np.testing.assert_array_equal(stored_ids, ids)
    np.testing.assert_array_equal(stored_counts, counts)
    if buckets == 50:
        np.testing.assert_array_equal(
            dataset.frequencies("C5"), np.bincount(expected[:257, 4], minlength=50)
        )
    if buckets == 2**62:
        with pytest.raises(DataError, match="use `occurring`"):
            dataset.frequencies("C5")
    with pytest.raises(DataError, match="no vocabulary"):
        dataset.vocabulary("C1")


@given(st.integers(0, 10**12))
def test_split_is_six_sevenths_then_halves(rows):
    splits = split_rows(rows)
    (start, train), (a, b), (c, stop) = splits["train"], splits["validation"], splits["test"]
    assert (start, a, c, stop) == (0, train, b, rows)
    assert 7 * train <= 6 * rows < 7 * (train + 1)
    assert (stop - c) - (b - a) in (0, 1)


def test_public_cardinalities():
    assert len(KAGGLE_CARDINALITIES) == 26
    assert sum(KAGGLE_CARDINALITIES) * 16 == 540_201_232


def test_the_same_rows_give_the_same_bytes(tmp_path):
    plain = write_lines(tmp_path / "raw.txt", LINES)
    parts = tmp_path / "parts"
    parts.mkdir()
    write_lines(parts / "day_0", LINES[:100])
    (parts / "day_1.gz").write_bytes(
        # Two members, as `cat a.gz b.gz` makes.
        gzip.compress(plain.read_bytes()[len((parts / "day_0").read_bytes()) :][:5000])
        + gzip.compress(plain.read_bytes()[len((parts / "day_0").read_bytes()) :][5000:])
    )
    one = prepare(plain, tmp_path / "one")
    two = prepare(plain, tmp_path / "two", block_bytes=500)
    several = prepare(parts / "day_*", tmp_path / "several")
    listed = prepare([parts / "day_0", parts / "day_1.gz"], tmp_path / "listed")
    assert one.fingerprint == two.fingerprint == several.fingerprint == listed.fingerprint
    for name in ("manifest.json", *one.manifest["files"]):
        first = (tmp_path / "one" / name).read_bytes()
        assert first == (tmp_path / "two" / name).read_bytes(), name
    assert [source["name"] for source in several.manifest["sources"]] == ["day_0", "day_1.gz"]
    other = prepare(plain, tmp_path / "other", min_count=2)
    assert other.fingerprint != one.fingerprint


def test_line_ends_and_byte_order_mark_do_not_matter(tmp_path):
    one = prepare(write_lines(tmp_path / "a", LINES), tmp_path / "one")
    two = prepare(write_lines(tmp_path / "b", LINES, end="\r\n"), tmp_path / "two")
    (tmp_path / "c").write_bytes(b"\xef\xbb\xbf" + "\n".join(LINES).encode())
    three = prepare(tmp_path / "c", tmp_path / "three", block_bytes=700)
    assert one.fingerprint == two.fingerprint == three.fingerprint


def test_manifest_says_what_the_data_are(tmp_path):
    raw = write_lines(tmp_path / "raw.txt", LINES)
    dataset = prepare(raw, tmp_path / "out", min_count=2)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"] == dataset.rows == 300
    assert manifest["encoder"] == {"name": "vocabulary", "min_count": 2}
    assert manifest["synthetic"] is dataset.synthetic is False
    assert manifest["sources"][0]["size"] == raw.stat().st_size
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert written == {"manifest.json", *manifest["files"]}
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()
    dataset.verify()
    assert PreparedDataset(tmp_path / "out").fingerprint == dataset.fingerprint


def test_a_changed_byte_is_found(tmp_path):
    prepare(write_lines(tmp_path / "raw.txt", LINES), tmp_path / "out")
    rows = tmp_path / "out" / "rows.bin"
    content = bytearray(rows.read_bytes())
    content[1000] ^= 1
    rows.write_bytes(content)
    with pytest.raises(DataError, match=r"rows\.bin: differs"):
        PreparedDataset(tmp_path / "out").verify()
    rows.write_bytes(content[:-1])
    with pytest.raises(DataError, match="47999 bytes, the manifest says 48000"):
        PreparedDataset(tmp_path / "out")


def test_cache_prepares_once_for_files_and_options(tmp_path, monkeypatch):
    raw = write_lines(tmp_path / "raw.txt", LINES)
    cache = tmp_path / "cache"
    first = open_or_prepare(raw, cache, min_count=2)
    inode = (first.path / "rows.bin").stat().st_ino
    again = open_or_prepare([str(raw)], cache, min_count=2, progress=False)
    assert (again.path / "rows.bin").stat().st_ino == inode
    assert open_or_prepare(raw, cache).path != first.path
    write_lines(raw, LINES[:-1])
    assert open_or_prepare(raw, cache, min_count=2).rows == 299
    assert open_or_prepare(first.path, cache, min_count=2, encoder="vocabulary").rows == 300
    with pytest.raises(DataError, match="min_count=2, but min_count=3 is asked for"):
        open_or_prepare(first.path, cache, min_count=3)
    with pytest.raises(TypeError, match="mincount"):
        open_or_prepare(raw, cache, mincount=3)


def test_the_real_excerpt(real_data, tmp_path):
    dataset = prepare(real_data / "criteo_kaggle_sample.txt.gz", tmp_path / "out", progress=False)
    assert dataset.rows == 109_711
    _, ids, label = all_rows(dataset)
    assert label.sum() == 28_165
    # fmt: off
    distinct = [560, 515, 50503, 27126, 141, 11, 8167, 264, 3, 12598, 3932, 46201, 2878,
                26, 5511, 38264, 10, 2689, 1282, 3, 42912, 12, 14, 12776, 52, 9729]
    # fmt: on
    # By hash into 2^40 ids every category has its own; missing values are one more where there
    # are any (the README of the data does not count them).
    hashed = prepare(
        real_data / "criteo_kaggle_sample.txt.gz",
        tmp_path / "hashed",
        encoder="hash",
        hash_buckets=2**40,
    )
    missing = {3, 4, 6, 12, 16, 19, 20, 21, 22, 24, 25, 26}
    counts = [len(np.unique(column)) for column in all_rows(hashed)[1].T]
    assert counts == [n + (i in missing) for i, n in enumerate(distinct, start=1)]
    train = dataset.splits["train"][1]
    for i in range(26):
        assert dataset.cardinalities[i] == 1 + len(np.unique(ids[:train, i]))
        assert len(np.unique(all_rows(hashed)[1][:train, i])) + 1 == dataset.cardinalities[i]
