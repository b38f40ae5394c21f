"""Files, the client and the served graph take the same spellings, and make the same of them."""

import gzip
import io
import itertools

import numpy as np
import pyarrow as pa
import pytest
from criteo_rows import make_line, random_lines, write_lines
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tf_compemb._keras import BACKEND

if BACKEND != "tensorflow":
    pytest.skip("the served graph is TensorFlow's", allow_module_level=True)

import tensorflow as tf

from tf_compemb.data import DataError, prepare, transform_dense
from tf_compemb.data.line_checks import parse_block, parse_block_skipping
from tf_compemb.data.line_grammar import check_line
from tf_compemb.data.raw_ranges import cut_into_ranges, range_blocks
from tf_compemb.data.raw_reader import RawFile, TextBlock
from tf_compemb.export.raw_encoder import RawEncoder
from tf_compemb.serving.client_rows import parse_line, read_rows

GOOD = random_lines(20)
REFUSED = "refused"
BOM = "\ufeff"

PIECES = [
    *("0", "00", "5", "17", "-", "+", "_", " ", "\t", "\n", "\r", "\v", "\f", "\0", ".", ",", "e3"),
    *("0x1F", "0b1", "nan", "inf", "NULL", BOM, "\u0663", "\uff15", "\u00a0", "\u2003", "\udcff"),
    *(str(2**63 - 1), str(2**63), str(2**63 + 1), "9" * 19, "1" * 4301, "0" * 5000),
]
spellings = (
    st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
    | st.from_regex(r" ?[-+]?0{0,3}[0-9]{1,20} ?", fullmatch=True)
    | st.integers(-(2**65), 2**65).map(str)
    | st.integers(-5, 5).map(lambda n: str(2**63 + n))
    | st.integers(-5, 5).map(lambda n: str(-(2**63) + n))
).map(lambda text: text.encode("utf-8", "surrogateescape"))


def as_defined(text):
    """The integer that a text is, None for a missing one, or `REFUSED`: digit by digit."""
    if text == b"":
        return None
    core = text.strip(b" ")
    digits = core.removeprefix(b"-")
    if not digits or set(digits) - set(b"0123456789"):
        return REFUSED
    digits = digits.lstrip(b"0")
    if len(digits) > 19:
        return REFUSED
    number = int(digits or b"0") * (-1 if core.startswith(b"-") else 1)
    return number if -(2**63) <= number < 2**63 else REFUSED


def in_a_file(text):
    """By the fast path, or by the check of each line where there is a bad one beside it."""
    line = b"1\t2\t" + text + b"\t" * 37
    found = []
    for beside in ([], [b"bad"]):
        lines = [GOOD[0].encode(), line, *beside]
        block = TextBlock("raw.txt", 1, b"".join(one + b"\n" for one in lines))
        table, bad = parse_block_skipping(block)
        accepted = table.num_rows == 2
        assert accepted or (table.num_rows == 1 and len(bad) > len(beside))
        found.append(table.column("I2").to_pylist()[1] if accepted else REFUSED)
        if not beside:
            if accepted:
                assert parse_block(block).equals(table)
            else:
                with pytest.raises(DataError, match=r"raw\.txt:2: "):
                    parse_block(block)
    assert found[0] == found[1]
    return found[0]


@tf.function(input_signature=[tf.TensorSpec([None, None], tf.string)] * 2, autograph=False)
def encoded(integers, categories):
    return RawEncoder([5])(integers, categories)


def in_the_graph(text):
    try:
        return encoded([[text]], [["x"]])["dense"].numpy().tobytes()
    except tf.errors.InvalidArgumentError as error:
        sentence = "integers must be 64-bit integers as text, or empty; row 0, column 0"
        return REFUSED if sentence in error.message else error.message


def by_the_client(text):
    """What the client makes of a line, asked for by the graph's own value."""
    try:
        row = parse_line(b"1\t2\t" + text + b"\t" * 37)
    except ValueError:
        return REFUSED
    return in_the_graph(row.integers[1])


@settings(max_examples=400, deadline=None)
@given(spellings)
@example(b"+5")
@example(b"5\t")
@example(b"\n5")
@example(b"5\r")
@example(b"0" * 5000 + b"7")
@example(b"-" + b"0" * 5000 + str(2**63).encode())
@example(b"1" * 5000)
def test_an_integer_is_the_same_in_a_file_in_the_client_and_in_the_served_graph(text):
    expected = as_defined(text)
    assert in_a_file(text) == expected
    if expected != REFUSED:
        expected = transform_dense(np.array([[expected or 0]])).tobytes()
    assert in_the_graph(text) == expected
    assert by_the_client(text) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=8)
    | st.text(st.sampled_from("a\0\r é\ufeff\u2028"), max_size=4).map(str.encode)
)
@example(b"\xff")
@example(b"a\r")
def test_a_category_is_the_same_in_a_file_and_in_the_client(value):
    line = b"1" + b"\t" * 14 + value + b"\t" * 25
    reason = check_line(line)
    if b"\n" in value:  # There it is no line, and nobody hands it on as one.
        return
    if reason is None:
        assert parse_line(line).categories[0] == value
        return
    with pytest.raises(
        ValueError, match=r"the line has|field C1 is not|a carriage return"
    ) as raised:
        parse_line(line)
    assert str(raised.value) == reason or b"\t" in value


@pytest.mark.parametrize("encoder", [{}, {"encoder": "hash", "hash_buckets": 1000}], ids=str)
@pytest.mark.parametrize("skip", [False, True])
def test_an_integer_of_thousands_of_digits_is_a_bad_line(tmp_path, skip, encoder):
    for field in (0, 12):
        numbers = [1] * 13
        numbers[field] = "9" * 5000
        raw = write_lines(tmp_path / "raw.txt", [*GOOD, make_line("1", numbers)])
        if skip:
            dataset = prepare(
                raw, tmp_path / f"out{field}", bad_lines="skip", max_bad_share=0.1, **encoder
            )
            assert (dataset.rows, dataset.manifest["bad_lines"]) == (20, 1)
        else:
            with pytest.raises(DataError, match=rf"raw\.txt:21: field I{field + 1} must be a 64"):
                prepare(raw, tmp_path / "out", **encoder)


def test_leading_zeros_beside_a_bad_line(tmp_path):
    """The block goes to the check of each line, whose limit is not Python's either."""
    raw = write_lines(tmp_path / "raw.txt", [*GOOD, make_line("1", ["0" * 5000 + "7"]), "bad"])
    dataset = prepare(raw, tmp_path / "out", bad_lines="skip", max_bad_share=0.1)
    assert (dataset.rows, dataset.manifest["bad_lines"]) == (21, 1)
    assert dataset.arrays("test")[0]["dense"][-1, 0] == np.float32(np.log(8))


class Vocabularies:
    """Stands for a prepared data set."""

    manifest = {"encoder": {"name": "vocabulary"}, "cardinalities": [4] * 26}  # noqa: RUF012

    def vocabulary(self, field):
        del field
        return pa.array(["first", "", " ", "\ufeff", "a\0"])


def test_a_tab_is_a_category_that_nobody_knows(tmp_path):
    from tf_compemb.export.raw_encoder import encoder_module

    encoder = encoder_module(Vocabularies(), tmp_path)
    given = ["", "\t", "\t\t", "\t\t\t", " ", "  ", "\ufeff", "a\0", "a", "\n", "\r", "first\r"]
    rows = tf.constant([[text] * 26 for text in given])
    found = encoder(tf.zeros([len(given), 0], tf.string), rows)["categorical"].numpy()
    assert found[:, 0].tolist() == found[:, 25].tolist() == [2, 0, 0, 0, 3, 0, 4, 5, 0, 0, 0, 0]
    hashed = RawEncoder([10**6])(tf.zeros([2, 0], tf.string), tf.constant([["\t"], [""]]))[
        "categorical"
    ].numpy()
    assert hashed[0, 0] != hashed[1, 0]


# --- Byte order marks, line ends, and files in ranges -------------------------------------------


def by_blocks(raw, block_bytes):
    """Rows and bad lines of a file as `prepare` reads it, or its error."""
    return collected([(0, RawFile(raw, "raw.txt", block_bytes=block_bytes).blocks())])


def by_ranges(raw, block_bytes, range_bytes):
    """As the Beam pipeline reads it: each range counts its lines from 1."""
    ranges = cut_into_ranges([raw], range_bytes)
    return collected([(None, range_blocks(one, block_bytes)) for one in ranges])


def collected(parts):
    tables, bad, lines = [], [], 0
    try:
        for offset, blocks in parts:
            count = 0
            for block in blocks:
                table, wrong = parse_block_skipping(block)
                tables.append(table)
                before = lines if offset is None else offset
                bad += [(before + line.line, line.reason, line.text) for line in wrong]
                count += block.text.count(b"\n")
            lines += count
    except DataError as error:
        return str(error)
    rows = list(itertools.chain.from_iterable(table.to_pylist() for table in tables))
    return rows, bad


LINES = [*GOOD[:3], "bad", BOM + GOOD[0], make_line("1", ["+5"]), make_line("0", ["9" * 4400]), ""]


@settings(max_examples=100, deadline=None)
@given(
    marks=st.integers(0, 3),
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=30),
    end=st.sampled_from(["\n", "\r\n"]),
    ends=st.booleans(),
    range_bytes=st.integers(200, 3000),
)
@example(marks=2, lines=[GOOD[0]] * 4, end="\n", ends=True, range_bytes=300)
def test_ranges_are_read_as_the_whole_file(tmp_path_factory, marks, lines, end, ends, range_bytes):
    raw = tmp_path_factory.getbasetemp() / "ranges.txt"
    text = BOM * marks + end.join(lines) + (end if ends else "")
    raw.write_bytes(text.encode())
    found = by_blocks(raw, 5000)
    if isinstance(found, tuple):
        assert len(found[0]) + len(found[1]) == text.removesuffix("\n").count("\n") + 1
        assert (marks > 1) == (1 in {line for line, _, _ in found[1]}) or lines[0] in LINES[3:]
        assert by_ranges(raw, 5000, range_bytes) == found


@pytest.mark.parametrize("form", ["plain", "gzip"])
@pytest.mark.parametrize("bad_beside", [False, True])
def test_one_byte_order_mark_is_skipped_and_a_second_is_not(tmp_path, form, bad_beside):
    for marks in (0, 1, 2):
        text = (BOM * marks + "\n".join([*GOOD, *["bad"] * bad_beside]) + "\n").encode()
        raw = tmp_path / f"raw{marks}"
        raw.write_bytes(gzip.compress(text) if form == "gzip" else text)
        dataset = prepare(raw, tmp_path / f"out{marks}", bad_lines="skip", max_bad_share=0.5)
        assert dataset.rows == len(GOOD) - (marks == 2)
        assert dataset.manifest["bad_lines"] == bad_beside + (marks == 2)
    with pytest.raises(DataError, match=r"raw2:1: field label must be 0 or 1, but is '\\ufeff"):
        prepare(raw, tmp_path / "strict")


def without_labels(lines):
    return [line.split("\t", 1)[1] for line in lines]


@pytest.mark.parametrize("source", ["plain", "gzip", "standard input"])
def test_the_client_reads_lines_as_prepare_does(tmp_path, monkeypatch, source):
    def rows(text):
        raw = tmp_path / "raw"
        raw.write_bytes(gzip.compress(text) if source == "gzip" else text)
        if source == "standard input":
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
            return list(read_rows("-"))
        return list(read_rows(str(raw)))

    lines = [make_line("1", [1, " 2 "], ["a"]), make_line("1", [3], ["b"])]
    plain = rows("\n".join(without_labels(lines)).encode())
    assert [row.integers[0] for row in plain] == [b"1", b"3"]
    for end in ("\n", "\r\n"):
        text = end.join(without_labels(lines)) + end
        assert rows((BOM + text).encode()) == plain
        with pytest.raises(DataError, match=r":1: field I1 must be a 64-bit .*, but is '\\ufeff1'"):
            rows((BOM * 2 + text).encode())
    for wrong, reason in (("a\rb", "a carriage return"), ("\udcff", "field C1 is not valid UTF-8")):
        text = "\n".join([lines[0], make_line("1", [], [wrong])])
        with pytest.raises(DataError, match=f":2: {reason}"):
            rows(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r":1: field I1 must be a 64-bit .*, but is '9999"):
        rows(make_line("1", ["9" * 5000]).encode())
    with pytest.raises(DataError, match=r":1: field I1 must be a 64-bit .*, but is ' '"):
        rows(make_line("1", [" "]).encode())
