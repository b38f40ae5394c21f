"""The preparation as a Beam pipeline writes the same bytes as the local one."""

import gzip
import shlex
from pathlib import Path

import pytest
from criteo_rows import make_line, random_lines, write_lines

from tf_compemb.data import DataError, generate, prepare
from tf_compemb.data.__main__ import main
from tf_compemb.data.raw_ranges import RawRange, cut_into_ranges, range_blocks

LINES = random_lines(300, distinct=60)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def test_a_line_belongs_to_the_range_in_which_it_begins(tmp_path):
    raw = write_lines(tmp_path / "raw.txt", LINES[:20])
    text = raw.read_bytes()
    for width in (1, 97, 150, 1000, len(text) - 1, len(text)):
        ranges = cut_into_ranges([raw], width)
        found = [b"".join(block.text for block in range_blocks(one, 300)) for one in ranges]
        assert b"".join(found) == text
        line, at = 0, 0
        for one, part in zip(ranges, found, strict=True):
            begun = []
            while line < 20 and (one.stop is None or at < one.stop):
                begun.append(LINES[line] + "\n")
                at += len(begun[-1])
                line += 1
            assert part.decode() == "".join(begun)


def test_a_gzip_file_is_one_range(tmp_path):
    (tmp_path / "raw.gz").write_bytes(gzip.compress(b"x" * 1000))
    assert cut_into_ranges([tmp_path / "raw.gz"], 10) == [RawRange(tmp_path / "raw.gz")]


@pytest.fixture
def by_beam():
    pytest.importorskip("apache_beam", reason="apache-beam is not installed (extra `beam`)")
    from tf_compemb.data.beam_preparation import prepare_with_beam

    return prepare_with_beam


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_count": 3, "memory": 10_000},
        {"encoder": "hash", "hash_buckets": 1000},
        {"encoder": "hash", "hash_buckets": 2**62, "memory": 10_000},
    ],
    ids=str,
)
def test_the_same_bytes_as_the_local_preparation(tmp_path, monkeypatch, by_beam, options):
    # Small buckets, so that the global order of first sight goes over several of them.
    monkeypatch.setattr("tf_compemb.data.beam_steps.BUCKET_ROWS", 50)
    plain = write_lines(tmp_path / "a.txt", LINES[:200])
    (tmp_path / "b.gz").write_bytes(
        gzip.compress("".join(line + "\n" for line in LINES[200:]).encode())
    )
    files = [plain, tmp_path / "b.gz"]
    prepare(files, tmp_path / "local", **options)
    by_beam(files, tmp_path / "beam", block_bytes=2_000, range_bytes=9_000, **options)
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")


def test_bad_lines_stand_where_they_stood(tmp_path, by_beam):
    bad = ["bad", make_line("7"), make_line("1", ["9" * 5000]), "\ufeff" + LINES[7]]
    lines = [*LINES[:100], bad[0], *LINES[100:150], *bad[1:], *LINES[150:]]
    lines[0] = 2 * "\ufeff" + lines[0]
    raw = write_lines(tmp_path / "raw.txt", lines)
    sizes = {"block_bytes": 2_000, "range_bytes": 9_000}
    options = {"bad_lines": "skip", "max_bad_share": 0.1}
    assert prepare(raw, tmp_path / "local", **options).manifest["bad_lines"] == 5
    by_beam(raw, tmp_path / "beam", **options, **sizes)
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")
    for options in ({}, {"bad_lines": "skip", "max_bad_share": 0.001}):
        with pytest.raises(DataError) as local:
            prepare(raw, tmp_path / "one", **options)
        with pytest.raises(DataError) as beam:
            by_beam(raw, tmp_path / "two", **sizes, **options)
        assert str(beam.value) == str(local.value)


def test_a_file_that_is_something_else(tmp_path, by_beam):
    (tmp_path / "raw.txt").write_bytes(b"%PDF-1.7" + b"x" * 20_000)
    with pytest.raises(DataError, match="this looks like a PDF file"):
        by_beam(tmp_path / "raw.txt", tmp_path / "out", range_bytes=9_000)


def test_the_program_prepares_with_beam(tmp_path, by_beam, capsys):
    raw = tmp_path / "raw.txt"
    generate(raw, 500, progress=False)
    arguments = ["prepare", str(raw), "--out", str(tmp_path / "beam"), "--runner", "beam"]
    options = shlex.join(["--direct_num_workers", "1"])
    assert main([*arguments, "--beam-options", options]) == 0
    assert "500 rows" in capsys.readouterr().out
    assert prepare(raw, tmp_path / "local").synthetic
    assert contents(tmp_path / "beam") == contents(tmp_path / "local")


def test_beam_options_need_beam(tmp_path, capsys):
    raw = write_lines(tmp_path / "raw.txt", LINES)
    arguments = ["prepare", str(raw), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--beam-options=--runner=FlinkRunner"]) == 2
    assert capsys.readouterr().err == "error: --beam-options goes with --runner beam.\n"
