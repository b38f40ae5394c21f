"""A preparation that was killed goes on, and one with little memory spills: the same bytes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from criteo_rows import make_line, random_lines, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_compemb.data import DataError, prepare, reading, staging, writing
from tf_compemb.data.__main__ import main
from tf_compemb.data.distinct import share_of
from tf_compemb.data.journal import Journal

LINES = random_lines(400, distinct=60)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(staging, "PART_BLOCKS", 3)


@pytest.mark.parametrize(
    "encoder", [{"min_count": 2}, {"encoder": "hash", "hash_buckets": 2**40}], ids=str
)
@pytest.mark.parametrize("memory", [8_000, 20_000])
def test_the_bytes_do_not_depend_on_the_memory(tmp_path, encoder, memory):
    raw = write_lines(tmp_path / "raw.txt", LINES)
    prepare(raw, tmp_path / "one", **encoder)
    prepare(raw, tmp_path / "two", block_bytes=4_000, memory=memory, **encoder)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@settings(max_examples=4, deadline=None)
@given(
    values=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), max_size=4),
        min_size=1,
        max_size=60,
    ),
    min_count=st.integers(1, 3),
    block_bytes=st.integers(60, 500),
)
def test_any_strings_spill_as_in_memory(tmp_path_factory, values, min_count, block_bytes):
    folder = tmp_path_factory.mktemp("any")
    raw = write_lines(folder / "raw.txt", [make_line("1", [], [value]) for value in values])
    options = {"min_count": min_count, "block_bytes": block_bytes}
    prepare(raw, folder / "one", memory=1 << 30, **options)
    prepare(raw, folder / "two", memory=6_000, **options)
    assert contents(folder / "one") == contents(folder / "two")


def test_a_large_vocabulary_is_cut_the_same_way_however_it_comes(tmp_path, monkeypatch):
    monkeypatch.setattr("tf_compemb.data.field_files.CATEGORIES_A_BATCH", 16)
    raw = write_lines(tmp_path / "raw.txt", LINES)
    one = prepare(raw, tmp_path / "one")
    prepare(raw, tmp_path / "two", block_bytes=4_000, memory=8_000)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    with pa.OSFile(str(tmp_path / "one" / "vocabulary" / "C2.arrow")) as file:
        sizes = [len(batch) for batch in pa.ipc.open_file(file).read_all().to_batches()]
    assert sum(sizes) == one.cardinalities[1] - 1 > 16
    assert set(sizes[:-1]) == {16}


@given(st.lists(st.text(max_size=20), max_size=40), st.integers(0, 39), st.integers(1, 200))
def test_a_value_has_one_share(values, start, shares):
    whole = share_of(pa.array(values, pa.large_string()), shares)
    alone = [share_of(pa.array([value], pa.large_string()), shares)[0] for value in values]
    np.testing.assert_array_equal(whole, alone)
    # A slice shares its buffers with the array it is cut from.
    sliced = pa.array(values, pa.large_string())[start:]
    np.testing.assert_array_equal(share_of(sliced, shares), whole[start:])
    assert all(0 <= share < shares for share in whole)


def test_shares_are_even():
    values = pa.array([f"{i:08x}" for i in range(20_000)], pa.large_string())
    # Multinomial: the standard deviation of a share is about 50.
    assert np.ptp(np.bincount(share_of(values, 8), minlength=8)) < 500


KILLED_AT_ANY_POINT = """
import os, random, signal, sys
from tf_compemb.data import prepare, staging
staging.PART_BLOCKS = 3
raw, out, seed = sys.argv[1:4]
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
rng = random.Random(int(seed))
kills = 0
while True:
    # Taking up what is there opens files too; too few of them would never get further.
    left = rng.randrange(1, 500)
    child = os.fork()
    if child == 0:
        def hook(event, arguments):
            global left
            if event in EVENTS and ".partial" in str(arguments[0]):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        prepare(raw, out, block_bytes=6000, memory=40_000, bad_lines="skip")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert status == signal.SIGKILL, status
    kills += 1
print(kills)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_at_random_points(tmp_path, seed):
    raw = write_lines(tmp_path / "raw.txt", [*LINES[:350], "bad", *LINES[350:]])
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLED_AT_ANY_POINT,
            str(raw),
            str(tmp_path / "out"),
            str(seed),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    assert "going on where an earlier run was stopped" in done.stderr
    assert "Traceback" not in done.stderr
    prepare(raw, tmp_path / "unbroken", bad_lines="skip")
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")
    assert sorted(os.listdir(tmp_path)) == ["out", "raw.txt", "unbroken"]


def interrupt(monkeypatch, step, number):
    """Makes the process of a preparation stop when a step is recorded for the nth time."""
    add = Journal.add

    def stop(self, recorded, **content):
        add(self, recorded, **content)
        if recorded == step and len(self.records(step)) == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add", stop)


def stopped(monkeypatch, raw, out, step, number, **options):
    with monkeypatch.context() as patch:
        interrupt(patch, step, number)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw, out, block_bytes=4_000, **options)
    assert not out.exists()


@pytest.mark.parametrize(
    ("step", "number", "unused"),
    [
        ("read", 1, [(reading, "parse_block")]),
        ("field", 26, [(reading, "parse_block"), (writing, "number_field")]),
        ("rows", 2, [(reading, "parse_block"), (writing, "number_field")]),
        ("complete", 1, [(reading, "parse_block"), (writing, "replace_codes")]),
    ],
)
@pytest.mark.parametrize("encoder", ["vocabulary", "hash"])
def test_finished_steps_are_not_done_again(
    tmp_path, monkeypatch, capsys, encoder, step, number, unused
):
    raw = write_lines(tmp_path / "raw.txt", LINES)
    stopped(monkeypatch, raw, tmp_path / "out", step, number, encoder=encoder)
    for module, name in unused:
        monkeypatch.setattr(module, name, None)
    prepare(raw, tmp_path / "out", block_bytes=4_000, encoder=encoder)
    assert capsys.readouterr().err == (
        f"{tmp_path / 'out'}: going on where an earlier run was stopped.\n"
    )
    monkeypatch.undo()
    prepare(raw, tmp_path / "unbroken", encoder=encoder)
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")


def test_only_unread_blocks_are_parsed(tmp_path, monkeypatch):
    raw = write_lines(tmp_path / "raw.txt", LINES)
    stopped(monkeypatch, raw, tmp_path / "out", "part", 2)
    parsed = []

    def parse(block):
        parsed.append(block.first_line)
        return reading_parse(block)

    reading_parse = reading.parse_block
    monkeypatch.setattr(reading, "parse_block", parse)
    prepare(raw, tmp_path / "out", block_bytes=4_000)
    lengths = np.cumsum([len(line) + 1 for line in LINES])
    # Two parts of three blocks of 4,000 bytes, each block up to the last whole line.
    first_unread = 1 + int(np.searchsorted(lengths, 6 * 4_000, side="right"))
    assert min(parsed) == first_unread


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("options", "its input or its options were others"),
        ("appended", "its input or its options were others"),
        ("same size and time", "its input has changed since"),
        ("working file", "its working files are damaged"),
        ("no journal", "it is not known how far it had come"),
    ],
)
def test_what_does_not_fit_any_more_starts_afresh(tmp_path, monkeypatch, capsys, change, reason):
    raw = write_lines(tmp_path / "raw.txt", LINES)
    stopped(monkeypatch, raw, tmp_path / "out", "part", 2)
    options = {}
    work = tmp_path / ".out.partial" / "work"
    if change == "options":
        options = {"min_count": 2}
    elif change == "appended":
        write_lines(raw, [*LINES, LINES[0]])
    elif change == "same size and time":
        times = raw.stat()
        text = raw.read_bytes()
        raw.write_bytes((b"1" if text[:1] == b"0" else b"0") + text[1:])
        os.utime(raw, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "working file":
        content = bytearray((work / "part-000001" / "C3.arrows").read_bytes())
        content[len(content) // 2] ^= 1
        (work / "part-000001" / "C3.arrows").write_bytes(content)
    else:
        (work / "journal.jsonl").unlink()
    prepare(raw, tmp_path / "out", block_bytes=4_000, **options)
    assert f"an earlier run was stopped, but {reason}; starting afresh" in capsys.readouterr().err
    prepare(raw, tmp_path / "unbroken", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "unbroken")


def test_a_line_of_the_journal_that_was_cut_off_does_not_count(tmp_path):
    journal = Journal(tmp_path, {"rows": 3})
    assert journal.begin() is False
    journal.add("part", rows=1)
    journal.add("part", rows=2)
    path = tmp_path / "work" / "journal.jsonl"
    os.truncate(path, path.stat().st_size - 1)
    again = Journal(tmp_path, {"rows": 3})
    assert again.begin() is True
    assert again.records("part") == [{"step": "part", "rows": 1}]
    again.add("part", rows=7)
    assert [r["rows"] for r in Journal(tmp_path, {"rows": 3}).records("part")] == [1, 7]


def test_an_interrupted_program_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    raw = write_lines(tmp_path / "raw.txt", LINES)
    interrupt(monkeypatch, "part", 1)
    arguments = ["prepare", str(raw), "--out", str(tmp_path / "out")]
    assert main(arguments) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "interrupted; the same command goes on from here.\n"
    monkeypatch.undo()
    assert main(arguments) == 0


def test_memory_out_of_range(tmp_path):
    raw = write_lines(tmp_path / "raw.txt", LINES)
    with pytest.raises(DataError, match="`memory` must be at least 1 byte"):
        prepare(raw, tmp_path / "out", memory=0)
