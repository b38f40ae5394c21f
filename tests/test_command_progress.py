"""Lines of progress where there is no terminal: long work speaks, short work does not."""

import io
import time
from types import SimpleNamespace

import pytest

from tf_compemb import progress_lines
from tf_compemb.data.progress import Progress
from tf_compemb.progress_lines import ProgressLines


class Lines(io.StringIO):
    """Standard error that is no terminal, and can be waited for."""

    def wait_for(self, count):
        for _ in range(2000):
            if self.getvalue().count("\n") >= count:
                return self.getvalue().splitlines()
            time.sleep(0.005)
        raise AssertionError(self.getvalue())


@pytest.fixture
def lines(monkeypatch):
    stream = Lines()
    monkeypatch.setattr(progress_lines, "sys", SimpleNamespace(stderr=stream))
    return stream


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(progress_lines, "_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(progress_lines, "_LONGEST_SECONDS", 0.01)


def test_long_work_says_what_it_does_now(lines, soon):
    doing = ["one"]
    with ProgressLines(lambda: doing[0]):
        assert lines.wait_for(2)[:2] == ["one", "one"]
        doing[0] = "two"
        seen = len(lines.getvalue().splitlines())
        assert lines.wait_for(seen + 2)[-1] == "two"
    ended = lines.getvalue()
    time.sleep(0.05)
    assert lines.getvalue() == ended


def test_short_work_and_work_that_is_not_to_speak_say_nothing(lines, soon, monkeypatch):
    with ProgressLines(lambda: "one", enabled=False):
        time.sleep(0.05)
    with ProgressLines(lambda: ""):
        time.sleep(0.05)
    monkeypatch.setattr(progress_lines, "_FIRST_SECONDS", 60.0)
    with ProgressLines(lambda: "one"):
        pass
    assert lines.getvalue() == ""


def test_lines_end_with_the_work_when_it_fails(lines, soon):
    with pytest.raises(ZeroDivisionError), ProgressLines(lambda: "one") as shown:
        raise ZeroDivisionError
    assert not shown._thread.is_alive()


def test_a_preparation_says_how_far_it_is(lines, soon):
    with Progress("reading", 11_000_000) as bar:
        bar.add_bytes(2_000_000)
        bar.add_rows(1234)
        assert lines.wait_for(1)[-1].startswith("reading: 2 of 11 MB, 1,234 rows, ")
        bar.show("numbering")
        seen = len(lines.getvalue().splitlines())
        assert lines.wait_for(seen + 2)[-1] == "numbering 1,234 rows"
    with Progress("generating", None) as bar:
        lines.truncate(0)
        bar.add_bytes(3_000_000)
        seen = len(lines.getvalue().splitlines())
        assert "generating: 3 MB, 0 rows, " in lines.wait_for(seen + 2)[-1]
    lines.truncate(0)
    with Progress("reading", 1, enabled=False):
        time.sleep(0.05)
    assert lines.getvalue() == ""


def test_a_training_says_which_step_it_is_at(lines, soon):
    pytest.importorskip("rich")
    from tf_compemb.training.progress import StepProgress

    with StepProgress("dlrm full", 7000, False) as progress:
        assert lines.wait_for(1)[-1] == "dlrm full: step 0 of 7,000"
        progress.show(1200, 0.45678)
        seen = len(lines.getvalue().splitlines())
        assert lines.wait_for(seen + 2)[-1] == "dlrm full: step 1,200 of 7,000, loss 0.4568"
    lines.truncate(0)
    with StepProgress("dlrm full", 7000, True):
        time.sleep(0.05)
    assert lines.getvalue() == ""


def test_a_comparison_says_which_step_runs(lines, soon):
    pytest.importorskip("rich")
    from tf_compemb.serving.compare_progress import ShownProgress

    with ShownProgress() as progress:
        assert lines.wait_for(1)[-1] == "starting"
        progress.start(12)
        progress.step("memory of full")
        progress.step("memory of qr")
        seen = len(lines.getvalue().splitlines())
        assert lines.wait_for(seen + 2)[-1] == "[2/12] memory of qr"
    assert all(line.isprintable() for line in lines.getvalue().splitlines())
