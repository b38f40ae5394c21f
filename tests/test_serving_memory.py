"""Memory of served models as their processes have it, on the host and on GPUs."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tf_compemb.serving import memory

if not memory.PROC.joinpath("self").exists():
    pytest.skip("needs /proc", allow_module_level=True)

HOLDER = """
import sys
block = bytearray(b"x" * int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Starts processes that hold so many bytes, through a shell as in a container."""
    started = []

    def start(size):
        quoted = [sys.executable, "-c", '"$0"', str(size)]
        command = ["sh", "-c", " ".join(quoted) + "; true", HOLDER]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process.pid

    yield start
    for process in started:
        process.communicate()


def test_anonymous_memory_of_a_process_below_a_shell(holder):
    small, large = holder(1_000), holder(32_000_000)
    assert len(memory.process_tree(large)) == 2
    difference = (
        memory.process_memory(large).anonymous_bytes - memory.process_memory(small).anonymous_bytes
    )
    assert difference == pytest.approx(32_000_000, rel=0.02)
    held = memory.process_memory(large)
    assert held.peak_bytes > held.anonymous_bytes


def test_a_process_that_is_gone_is_one_sentence():
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(memory.MeasurementError, match="There is no process to measure"):
        memory.process_memory(process.pid)


class FakeNvml:
    """Two cards; what runs on them is given."""

    class NVMLError(Exception):
        pass

    def __init__(self, cards, driver=True):
        self.cards, self.driver, self.is_open = cards, driver, False

    def nvmlInit(self):  # noqa: N802
        if not self.driver:
            raise self.NVMLError
        self.is_open = True

    def nvmlShutdown(self):  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, index):  # noqa: N802
        return [SimpleNamespace(pid=p, usedGpuMemory=used) for p, used in self.cards[index]]


def test_gpu_memory_is_that_of_the_process_on_all_cards():
    pid = os.getpid()
    nvml = FakeNvml([[(pid, 100), (1, 7)], [(pid, 20)]])
    assert memory.gpu_bytes(pid, nvml) == 120
    assert not nvml.is_open
    assert memory.gpu_bytes(pid, FakeNvml([[(1, 7)]])) is None
    assert memory.gpu_bytes(pid, FakeNvml([], driver=False)) is None


def test_a_driver_that_keeps_sizes_to_itself_is_an_error():
    nvml = FakeNvml([[(os.getpid(), None)]])
    with pytest.raises(memory.MeasurementError, match="measure on the host"):
        memory.gpu_bytes(os.getpid(), nvml)
    assert not nvml.is_open
