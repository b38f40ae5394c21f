"""What is wrong with raw data is said in one sentence, and nothing half-written stays."""

import gzip
import json
import os
import subprocess
import sys
import time

import pytest
from criteo_rows import make_line, random_lines, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_compemb.data import DataError, prepare
from tf_compemb.data.__main__ import main
from tf_compemb.data.line_checks import check_line, parse_block, parse_block_skipping
from tf_compemb.data.raw_reader import LONGEST_LINE, RawFile, TextBlock, find_raw_files

GOOD = random_lines(40)
CATEGORIES = "\t" * 26

BAD_LINES = {
    "too few fields": ("1\t2\t3", "the line has 3 tab-separated fields instead of 40"),
    "too many fields": (GOOD[0] + "\tx", "the line has 41 tab-separated fields"),
    "no label": (GOOD[0].split("\t", 1)[1], "the line has 39 tab-separated .* without labels"),
    "empty line": ("", "the line has 1 tab-separated fields"),
    "label 2": ("2" + GOOD[0][1:], "field label must be 0 or 1, but is '2'"),
    "label missing": (GOOD[0][1:], "field label must be 0 or 1, but is ''"),
    "label 01": ("0" + GOOD[0], "field label must be 0 or 1, but is '0"),
    "header": ("\t".join(["label", *"x" * 39]), "field label must be 0 or 1, but is 'label'"),
    "text integer": (make_line("1", ["", "abc"]), "field I2 must be .* but is 'abc'"),
    "decimal": (make_line("1", [3, 4, "1.5"]), "field I3 must be .* but is '1.5'"),
    "hexadecimal": (make_line("1", [3, 4, "0x1F"]), "field I3 must be .* but is '0x1F'"),
    "65 bits": (make_line("1", [2**63]), "field I1 must be a 64-bit integer"),
    "spaces": (make_line("1", ["  "]), "field I1 must be .* but is '  '"),
    "bad UTF-8": (make_line("1", [], ["\udcff"]), r"field C1 is not valid UTF-8: b'\\xff'"),
    "carriage return": (make_line("1", [], ["a\rb"]), "a carriage return stands within the line"),
    "two rows by return": (GOOD[0] + "\r" + GOOD[1], "the line has 79 tab-separated fields"),
}


def to_bytes(lines, end="\n"):
    return "".join(line + end for line in lines).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("block_bytes", [400, 1 << 20])
@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_line_is_named(tmp_path, kind, block_bytes, end):
    line, reason = BAD_LINES[kind]
    raw = tmp_path / "raw.txt"
    raw.write_bytes(to_bytes([*GOOD[:25], line, *GOOD[25:], "bad as well"], end))
    blocks = RawFile(raw, "raw.txt", block_bytes=block_bytes).blocks()
    with pytest.raises(DataError, match=rf"raw\.txt:26: {reason}.*skip"):
        list(map(parse_block, blocks))


@settings(max_examples=200, deadline=None)
@given(
    at=st.integers(0, len(GOOD) - 1),
    field=st.integers(0, 39),
    value=st.binary(max_size=6).filter(lambda value: b"\n" not in value),
)
def test_the_fast_path_takes_exactly_what_the_line_check_takes(tmp_path_factory, at, field, value):
    lines = [line.encode() for line in GOOD]
    fields = lines[at].split(b"\t")
    fields[field] = value
    lines[at] = b"\t".join(fields)
    block = TextBlock("raw.txt", 1, b"".join(line + b"\n" for line in lines))
    reason = check_line(lines[at].removesuffix(b"\r"))
    table, bad = parse_block_skipping(block)
    if reason is None:
        assert parse_block(block).equals(table)
        assert (table.num_rows, bad) == (len(GOOD), [])
    else:
        assert table.num_rows == len(GOOD) - 1
        assert [(line.line, line.reason) for line in bad] == [(at + 1, reason)]
        with pytest.raises(DataError) as raised:
            parse_block(block)
        assert str(raised.value).startswith(f"raw.txt:{at + 1}: {reason};")


def test_the_error_names_the_file_among_several(tmp_path):
    write_lines(tmp_path / "day_0", GOOD)
    write_lines(tmp_path / "day_1", [*GOOD[:3], "x"])
    with pytest.raises(DataError, match=r"day_1:4: the line has 1 "):
        prepare(tmp_path / "day_*", tmp_path / "out", block_bytes=300)
    assert sorted(os.listdir(tmp_path)) == ["day_0", "day_1"]


def test_skipping_leaves_bad_lines_out_and_keeps_them_aside(tmp_path):
    bad = [BAD_LINES[kind][0] for kind in ("label 2", "bad UTF-8", "empty line")]
    raw = tmp_path / "raw.txt"
    raw.write_bytes(to_bytes([bad[0], *GOOD[:20], bad[1], *GOOD[20:], bad[2]]))
    dataset = prepare(
        raw, tmp_path / "out", bad_lines="skip", max_bad_share=3 / 43, block_bytes=900
    )
    clean = prepare(write_lines(tmp_path / "clean.txt", GOOD), tmp_path / "clean")
    assert (tmp_path / "out/rows.bin").read_bytes() == (tmp_path / "clean/rows.bin").read_bytes()
    assert (dataset.manifest["bad_lines"], clean.manifest["bad_lines"]) == (3, 0)
    written = (tmp_path / "out" / "bad_lines.tsv").read_bytes().split(b"\n")
    assert [line.split(b"\t")[:2] for line in written[:3]] == [
        [b"raw.txt", b"1"],
        [b"raw.txt", b"22"],
        [b"raw.txt", b"43"],
    ]
    assert written[0].split(b"\t", 3)[3] == to_bytes([bad[0]], "")
    assert written[1].split(b"\t", 3)[3] == to_bytes([bad[1]], "")
    assert not (tmp_path / "clean" / "bad_lines.tsv").exists()


def test_skipping_stops_above_the_share(tmp_path):
    raw = write_lines(tmp_path / "raw.txt", [*GOOD, "x", "y"])
    with pytest.raises(DataError, match=r"2 of 42 lines are bad, more than max_bad_share=0\.04"):
        prepare(raw, tmp_path / "out", bad_lines="skip", max_bad_share=0.04)
    assert os.listdir(tmp_path) == ["raw.txt"]


def test_skipping_stops_early_in_a_long_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tf_compemb.data.bad_line_log.LINES_BEFORE_EARLY_STOP", 20)
    raw = write_lines(tmp_path / "raw.txt", ["x", *GOOD])
    with pytest.raises(DataError, match=r"1 of 2[0-9] lines are bad.*the first is line 1"):
        prepare(raw, tmp_path / "out", bad_lines="skip", max_bad_share=0.03, block_bytes=500)


@pytest.mark.parametrize("cut", [30, 700, -8, -1])
def test_a_truncated_gzip_file(tmp_path, cut):
    whole = gzip.compress(to_bytes(GOOD), 1)
    raw = tmp_path / "raw.gz"
    raw.write_bytes(whole[:cut])
    with pytest.raises(DataError, match=r"raw\.gz:\d+: the gzip stream is truncated"):
        prepare(raw, tmp_path / "out")
    assert os.listdir(tmp_path) == ["raw.gz"]
    if cut != 700:
        return
    dataset = prepare(raw, tmp_path / "out", bad_lines="skip", max_bad_share=0.5)
    assert 0 < dataset.rows < len(GOOD)
    assert dataset.manifest["bad_lines"] == 1
    last = (tmp_path / "out" / "bad_lines.tsv").read_text().split("\t", 3)
    assert last[:2] == ["raw.gz", str(dataset.rows + 1)]
    assert "truncated" in last[2]
    assert GOOD[dataset.rows].startswith(last[3].rstrip("\n"))


def test_a_damaged_gzip_file(tmp_path):
    whole = bytearray(gzip.compress(to_bytes(GOOD)))
    whole[-5] ^= 1  # the checksum
    (tmp_path / "raw.gz").write_bytes(whole)
    with pytest.raises(DataError, match="the gzip stream is damaged"):
        prepare(tmp_path / "raw.gz", tmp_path / "out")
    (tmp_path / "raw.gz").write_bytes(gzip.compress(to_bytes(GOOD)) + b"trailing")
    with pytest.raises(DataError, match="not gzip follow the stream"):
        prepare(tmp_path / "raw.gz", tmp_path / "out", bad_lines="skip")


OTHER_FILES = {
    "empty": (b"", "the file is empty"),
    "empty gzip": (gzip.compress(b""), "the file is empty"),
    "csv": (to_bytes(GOOD).replace(b"\t", b","), "a CSV file with commas"),
    "html": (b"\n<!DOCTYPE html>\n<html></html>\n", "an HTML or XML page"),
    "json": (b'{"rows": []}\n', "a JSON file"),
    "parquet": (b"PAR1" + bytes(100), "a Parquet file"),
    "zip": (b"PK\x03\x04" + bytes(100), "a zip archive"),
    "binary": (bytes(range(256)) * 10, "a binary file"),
    "twice gzip": (gzip.compress(gzip.compress(to_bytes(GOOD))), "a gzip file within"),
    "text": (b"hello\nworld\n", "text without tabs"),
    "no lines": (b"\t" * (LONGEST_LINE + 50), f"is longer than {LONGEST_LINE} bytes"),
}


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_file_that_is_something_else(tmp_path, kind, skip):
    content, reason = OTHER_FILES[kind]
    (tmp_path / "raw").write_bytes(content)
    with pytest.raises(DataError, match=f"raw.*{reason}.*[a-z][.]$"):
        prepare(tmp_path / "raw", tmp_path / "out", bad_lines="skip" if skip else "error")
    assert os.listdir(tmp_path) == ["raw"]


def test_paths_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"nowhere\.txt: there is no such file"):
        find_raw_files(tmp_path / "nowhere.txt")
    with pytest.raises(DataError, match=r"day_\*: no file matches"):
        find_raw_files(str(tmp_path / "day_*"))
    with pytest.raises(DataError, match="this is a folder without a prepared data set"):
        find_raw_files(tmp_path)
    with pytest.raises(DataError, match="No raw file was given"):
        find_raw_files([])
    write_lines(tmp_path / "day_[1]", GOOD)
    assert find_raw_files(tmp_path / "day_[1]") == [tmp_path / "day_[1]"]

    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", deny)  # root may read everything
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        find_raw_files(tmp_path / "day_[1]")


def test_outputs_that_cannot_be_written(tmp_path):
    raw = write_lines(tmp_path / "raw.txt", GOOD)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="out: already exists"):
        prepare(raw, tmp_path / "out")
    with pytest.raises(DataError, match=r"raw\.txt/out: cannot be written \(.*\); check"):
        prepare(raw, raw / "out")
    assert sorted(os.listdir(tmp_path)) == ["out", "raw.txt"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    raw = write_lines(tmp_path / "raw.txt", GOOD)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tf_compemb.data.staging.Stage.append", full)
    with pytest.raises(DataError, match=r"out: cannot be written .*; free some space"):
        prepare(raw, tmp_path / "out")
    assert os.listdir(tmp_path) == ["raw.txt"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"encoder": "one-hot"}, "`encoder` must be 'vocabulary' or 'hash'"),
        ({"min_count": 0}, "`min_count` must be at least 1"),
        ({"encoder": "hash", "hash_buckets": 0}, "`hash_buckets` must be from 1"),
        ({"encoder": "hash", "min_count": 2}, "`min_count` belongs to encoder='vocabulary'"),
        ({"hash_buckets": 9}, "`hash_buckets` belongs to encoder='hash'"),
        ({"bad_lines": "ignore"}, "`bad_lines` must be 'error' or 'skip'"),
        ({"bad_lines": "skip", "max_bad_share": 2.0}, "`max_bad_share` must be from 0 to 1"),
    ],
)
def test_options_out_of_range(tmp_path, options, reason):
    raw = write_lines(tmp_path / "raw.txt", GOOD)
    with pytest.raises(DataError, match=reason):
        prepare(raw, tmp_path / "out", **options)
    assert os.listdir(tmp_path) == ["raw.txt"]


KILLED = """
import os, sys
from tf_compemb.data import staging, prepare
def die(*_):
    print("staged", flush=True)
    if sys.argv[3] == "hang":
        sys.stdin.read()
    os._exit(9)
staging.Stage.close = die
prepare(sys.argv[1], sys.argv[2])
"""


def start_preparation(raw, out, how):
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(raw), str(out), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_a_killed_preparation_is_taken_up_by_the_next(tmp_path):
    raw = write_lines(tmp_path / "raw.txt", GOOD)
    with start_preparation(raw, tmp_path / "out", "exit") as process:
        process.communicate()
    assert process.returncode == 9
    assert sorted(os.listdir(tmp_path)) == [".out.partial", "raw.txt"]
    assert prepare(raw, tmp_path / "out").rows == len(GOOD)
    assert sorted(os.listdir(tmp_path)) == ["out", "raw.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_two_preparations_of_one_folder(tmp_path):
    raw = write_lines(tmp_path / "raw.txt", GOOD)
    with start_preparation(raw, tmp_path / "out", "hang") as process:
        assert process.stdout.readline() == b"staged\n"
        with pytest.raises(DataError, match="another process is preparing it now"):
            prepare(raw, tmp_path / "out")
        process.communicate()
    assert prepare(raw, tmp_path / "out").rows == len(GOOD)


def test_the_cache_waits_for_another_process(tmp_path):
    import threading

    from tf_compemb.data import open_or_prepare
    from tf_compemb.data.cache import _identity

    raw = write_lines(tmp_path / "raw.txt", GOOD)
    target = tmp_path / f"criteo-{_identity([raw], {})}"
    with start_preparation(raw, target, "hang") as process:
        assert process.stdout.readline() == b"staged\n"
        results = []
        waiting = threading.Thread(target=lambda: results.append(open_or_prepare(raw, tmp_path)))
        waiting.start()
        time.sleep(0.2)
        assert results == []
        process.communicate()  # It dies without having finished, so the thread prepares
        waiting.join()
    assert results[0].path == target


def test_the_program_says_one_sentence(tmp_path, capsys):
    raw = write_lines(tmp_path / "raw.txt", [*GOOD, "x"])
    assert main(["prepare", str(raw), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {raw}:41: the line has 1 tab-separated fields")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    options = ["--bad-lines", "skip", "--max-bad-share", "0.1"]
    assert main(["prepare", str(raw), "--out", str(tmp_path / "out"), *options]) == 0
    assert "40 rows" in capsys.readouterr().out
    assert main(["describe", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "C26" in printed
    assert "verified" not in printed
    assert main(["describe", str(tmp_path / "out"), "--verify"]) == 0
    files = len(json.loads((tmp_path / "out" / "manifest.json").read_text())["files"])
    printed = capsys.readouterr().out
    assert f"verified: all {files} files are as they were written (SHA-256).\n" in printed
    vocabulary = tmp_path / "out" / "vocabulary" / "C1.arrow"
    vocabulary.write_bytes(vocabulary.read_bytes()[:-1] + b"x")
    assert main(["describe", str(tmp_path / "out"), "--verify"]) == 2
    printed = capsys.readouterr()
    assert "C1.arrow: differs from what was written" in printed.err
    assert printed.out == ""
    vocabulary.unlink()
    assert main(["describe", str(tmp_path / "out"), "--verify"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["describe", str(tmp_path)]) == 2
    assert "is not a prepared data set" in capsys.readouterr().err
