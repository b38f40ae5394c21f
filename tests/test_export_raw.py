"""The encoder in the served graph is the data pipeline's, bit for bit."""

import gzip

import numpy as np
import pyarrow as pa
import pytest
from criteo_rows import FIELDS, make_line, random_lines, write_lines
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tf_compemb._keras import BACKEND

if BACKEND != "tensorflow":
    pytest.skip("a SavedModel is TensorFlow's", allow_module_level=True)

import tensorflow as tf

from tf_compemb.data import encode_raw, prepare, transform_dense
from tf_compemb.export.raw_encoder import RawEncoder, encoder_module


def raw_values(lines):
    """What a client sends: the text of the columns, as it stands in the file."""
    rows = np.array([line.split("\t") for line in lines], dtype=object)
    return rows[:, 1:14], rows[:, 14:]


def assert_as_the_pipeline(raw, lines, dataset, folder):
    encoder = encoder_module(dataset, folder)
    records = np.concatenate(list(encode_raw(str(raw), dataset, False)))
    found = tf.function(encoder)(*map(tf.constant, raw_values(lines)))
    np.testing.assert_array_equal(
        found["dense"].numpy().view("int32"),
        np.ascontiguousarray(records["dense"]).view("int32"),
    )
    np.testing.assert_array_equal(found["categorical"], records["categorical"])
    assert found["categorical"].dtype == tf.int64
    return records


EXTREMES = [
    make_line("1", [2**63 - 1, -(2**63), "", 0, -1, -3, 1, 10**18, "007", " 5 ", "-0"], ["", "ä€"]),
    make_line("0", [""] * 13, ["#", "=", " ", "a b", "\\t", '"', "'"]),
    make_line("0", [2**53 + 1, 2**62 + 1, 99], ["x" * 3000]),
]


@pytest.mark.parametrize(
    "options",
    [{}, {"min_count": 3}, {"encoder": "hash", "hash_buckets": 97}, {"encoder": "hash"}],
    ids=str,
)
def test_generated_rows(options, tmp_path):
    """The last seventh brings categories that training never saw."""
    lines = EXTREMES + random_lines(200) + random_lines(60, seed=1, distinct=40)
    raw = write_lines(tmp_path / "rows.txt", lines)
    dataset = prepare(raw, tmp_path / "prepared", progress=False, **options)
    records = assert_as_the_pipeline(raw, lines, dataset, tmp_path / "text")
    assert len(records) == len(lines)
    if "encoder" not in options:
        assert (records["categorical"][-60:] == 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["vocabulary", "hash"])
def test_every_row_of_the_real_excerpt(encoder, real_data, tmp_path):
    raw = real_data / "criteo_kaggle_sample.txt.gz"
    dataset = prepare(raw, tmp_path / "prepared", encoder=encoder, progress=False)
    with gzip.open(raw, "rt", encoding="utf-8", newline="\n") as file:
        lines = [line.rstrip("\r\n") for line in file]
    assert len(assert_as_the_pipeline(raw, lines, dataset, tmp_path / "text")) == 109_711


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
@example(2**24 + 1)
@example(2**53 - 1)
def test_any_integer_is_encoded_as_in_the_pipeline(number):
    found = RawEncoder([5])(tf.constant([[str(number)]]), tf.constant([["x"]]))["dense"].numpy()
    assert found.tobytes() == transform_dense(np.array([[number]])).tobytes()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1.5", "`1.5`"),
        ("9223372036854775808", "`9223372036854775808`"),
        (" ", "` `"),
        ("+5", "`+5`"),
        ("5\n", r"`5\n`"),
        (b"\xff", "`\ufffd`"),
        ("7" * 50, "`" + "7" * 40 + "...`"),
    ],
)
def test_what_is_no_integer_is_an_error_that_says_where(text, shown):
    """Before the numbers are converted, and once, however many are wrong."""
    integers = [["1", "2", "3"], ["", " 4 ", text], [text, "5", "x"]]
    call = tf.function(RawEncoder([5]), autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        call(tf.constant(integers), tf.constant([["x"]] * 3))
    rule = "integers must be 64-bit integers as text, or empty"
    assert f"{rule}; row 1, column 2 (from 0) is {shown}" in raised.value.message


class Vocabularies:
    """Stands for a prepared data set."""

    manifest = {"encoder": {"name": "vocabulary"}, "cardinalities": [4] * 26}  # noqa: RUF012

    def vocabulary(self, field):
        return pa.array([f"{field} first", "", "last"])


def test_vocabularies_by_hand(tmp_path):
    encoder = encoder_module(Vocabularies(), tmp_path)
    rows = [[f"{f} first" for f in FIELDS], [""] * 26, ["last"] * 26, ["new"] * 26]
    rows += [[b"\xff\xfe not utf-8"] * 26, ["C1 first"] * 26, [b"\0"] * 26, ["last\n"] * 26]
    ids = encoder(tf.zeros([8, 0], tf.string), tf.constant(rows))["categorical"].numpy()
    expected = np.repeat([[1], [2], [3], [0], [0], [0], [0], [0]], 26, axis=1)
    expected[5, 0] = 1
    np.testing.assert_array_equal(ids, expected)


def test_hashed_ids_are_fixed_for_all_time():
    """As in the pipeline's own test; a field with other buckets has its own remainder."""
    strings = tf.constant([["68fd1e64", "68fd1e64"], ["", b"\xff"]])
    encoded = RawEncoder([2**20, 2**10])(tf.zeros([2, 0], tf.string), strings)
    ids = encoded["categorical"].numpy()
    assert ids[:, 0].tolist() == [576134, 16463]
    assert ids[0, 1] == 576134 % 2**10
    assert 0 <= ids[1, 1] < 2**10
