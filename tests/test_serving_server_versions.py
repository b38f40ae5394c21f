"""Versions come and go: watching, hot swap, refusal of damaged ones, warm-up, memory."""

import logging
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from serving_toys import copy_version, predict_request, serving, tf, write_toy
from tensorflow_serving.apis import model_management_pb2, model_pb2

from tf_compemb.native_session import NativeError
from tf_compemb.serving import model_manager
from tf_compemb.serving.metrics import Metrics
from tf_compemb.serving.model_config import ModelConfig
from tf_compemb.serving.model_manager import LoadingOptions, ModelManager
from tf_compemb.serving.servable import State
from tf_compemb.serving.version_directories import find_versions, fingerprint, seconds_at_rest
from tf_compemb.serving.warm_up import warm_up

SETTLE = 0.2
POLL = 0.05
BOUND = 1 << 20


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Version `n` multiplies by `n`."""
    folder = tmp_path_factory.mktemp("versions")
    for scale in (1, 2):
        write_toy(folder / str(scale), scale)
    return folder


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    return folder


@pytest.fixture
def manager(base):
    options = LoadingOptions(poll_seconds=POLL, settle_seconds=SETTLE)
    made = ModelManager([ModelConfig("toy", base)], options, Metrics(), warm)
    yield made
    made.close()


def warm(servable):
    warm_up(servable, BOUND)


def states(manager, name="toy"):
    return {one.version: one.state for one in manager.versions(name)}


def answer(manager, version=None):
    """What the served version multiplies by."""
    spec = model_pb2.ModelSpec(name="toy")
    if version is not None:
        spec.version.value = version
    with manager.use(spec) as servable:
        vectors = servable.run("serving_default", {"ids": [[7]]}, ["vectors"])["vectors"]
        return vectors[0, 0, 1] / vectors[0, 0, 0]


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_numbers_are_versions(tmp_path):
    for name in ("1", "0007", "v2", "3.tmp", ".tmp-4", "-5", "٣", str(2**63), str(2**63 - 1)):
        (tmp_path / name).mkdir()
    (tmp_path / "8").write_text("a file")
    assert sorted(find_versions(tmp_path)) == [1, 7, 2**63 - 1]


def test_a_version_is_complete_with_all_its_shards(versions, tmp_path):
    whole = tmp_path / "1"
    shutil.copytree(versions / "1", whole)
    assert len(fingerprint(whole)) >= 3
    missing = ["saved_model.pb", "variables/variables.index"]
    missing.append("variables/variables.data-00000-of-00001")
    for name in missing:
        content = (whole / name).read_bytes()
        (whole / name).unlink()
        assert fingerprint(whole) is None
        (whole / name).write_bytes(content)
    assert fingerprint(whole) is not None
    (whole / "saved_model.pb").write_bytes(b"")
    assert fingerprint(whole) is None
    assert fingerprint(tmp_path / "2") is None


def test_new_before_old(manager, base, versions):
    copy_version(versions / "1", base / "1")
    manager.start()
    assert answer(manager) == 1
    held = model_pb2.ModelSpec(name="toy")
    with manager.use(held) as old:
        copy_version(versions / "2", base / "2")
        wait_for(lambda: states(manager)[1] is State.UNLOADING)
        # A request that has begun keeps its version; others get the new one.
        assert answer(manager) == 2
        assert old.session.run("serving_default", {"ids": [[3]]})["vectors"].tolist() == [[[3, 3]]]
    wait_for(lambda: states(manager) == {1: State.END, 2: State.AVAILABLE})
    with pytest.raises(NativeError, match=r"NOT_FOUND: .*Specific\(toy, 1\)"):
        answer(manager, version=1)


def test_a_damaged_version_is_refused_and_the_old_one_goes_on(manager, base, versions, caplog):
    copy_version(versions / "1", base / "1")
    manager.start()
    damaged = base / ".damaged"
    shutil.copytree(versions / "2", damaged)
    (damaged / "saved_model.pb").write_bytes(b"\x0a\x05 no model")
    with caplog.at_level(logging.INFO, "tf_compemb.serving"):
        damaged.rename(base / "2")
        wait_for(lambda: states(manager).get(2) is State.END)
        time.sleep(0.3)
    assert answer(manager) == 1
    newest = manager.versions("toy")[0]
    assert str(newest.error) == "OUT_OF_RANGE: Read less bytes than requested"
    refused = [line for line in caplog.messages if "refused toy version 2" in line]
    assert len(refused) == 1  # Once, and not at every look.
    shutil.copy(versions / "2" / "saved_model.pb", base / "2" / "saved_model.pb")
    wait_for(lambda: states(manager)[2] is State.AVAILABLE)
    assert answer(manager) == 2


def test_truncated_variables_are_refused(manager, base, versions):
    copy_version(versions / "1", base / "1")
    shutil.copytree(versions / "2", base / "2")
    data = base / "2" / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    manager.start()
    assert states(manager) == {1: State.AVAILABLE, 2: State.END}
    assert answer(manager) == 1


def test_a_version_copied_file_by_file_is_loaded_when_it_is_whole(
    manager, base, versions, monkeypatch
):
    copy_version(versions / "1", base / "1")
    manager.start()
    rest = [0.0]  # However slowly this test writes.
    monkeypatch.setattr(model_manager, "seconds_at_rest", lambda files: rest[0])
    source = versions / "2"
    (base / "2" / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        shutil.copy2(source / name, base / "2" / name)
        time.sleep(2 * SETTLE)
        assert states(manager) == {1: State.AVAILABLE}
    data = (source / "variables/variables.data-00000-of-00001").read_bytes()
    with (base / "2" / "variables" / "variables.data-00000-of-00001").open("wb") as file:
        for first in range(0, len(data), 200):
            file.write(data[first : first + 200])
            file.flush()
            time.sleep(POLL)
            assert 2 not in states(manager)
    rest[0] = SETTLE
    wait_for(lambda: states(manager)[1] is State.END)
    assert answer(manager) == 2


def test_an_older_version_is_not_loaded_while_a_newer_one_comes_to_rest(manager, base, versions):
    copy_version(versions / "1", base / "1")
    time.sleep(SETTLE)
    copy_version(versions / "2", base / "2")
    manager.start()
    assert states(manager) == {2: State.AVAILABLE}


def test_seconds_at_rest_count_from_the_newest_change(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.5)
    files = (("saved_model.pb", 1, 998_000_000_000), ("variables/variables.index", 1, 10**12))
    assert seconds_at_rest(files) == 0.5


def test_all_versions_and_chosen_versions(manager, base, versions):
    copy_version(versions / "1", base / "1")
    copy_version(versions / "2", base / "2")
    manager.start()
    assert states(manager) == {2: State.AVAILABLE}
    manager.reload([ModelConfig("toy", base, latest=None)])
    assert (answer(manager, 1), answer(manager, 2), answer(manager)) == (1, 2, 2)
    manager.reload([ModelConfig("toy", base, specific=(1,))])
    assert answer(manager) == 1
    with pytest.raises(NativeError, match="label to version 2 of model toy, which is not"):
        manager.reload([ModelConfig("toy", base, specific=(1,), labels={"stable": 2})])
    assert answer(manager) == 1
    manager.reload([])
    with pytest.raises(NativeError, match=r"NOT_FOUND: .*Latest\(toy\)"):
        answer(manager)


def test_the_same_version_from_another_directory(manager, base, versions, tmp_path):
    copy_version(versions / "1", base / "1")
    manager.start()
    (tmp_path / "other").mkdir()
    copy_version(versions / "2", tmp_path / "other" / "1")
    manager.reload([ModelConfig("toy", tmp_path / "other")])
    assert answer(manager, version=1) == 2


def test_versions_go_with_their_directory(manager, base, versions):
    copy_version(versions / "1", base / "1")
    manager.start()
    shutil.rmtree(base / "1")
    wait_for(lambda: states(manager)[1] is State.END)


def test_an_unreadable_base_directory_changes_nothing(manager, base, versions):
    copy_version(versions / "1", base / "1")
    manager.start()
    base.rename(base.with_name("moved"))
    time.sleep(0.3)
    assert answer(manager) == 1
    base.with_name("moved").rename(base)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (predict_request(ids=np.array([[100]])), "is not in [0, 100)"),
        (predict_request(ids=np.array([[1]], np.int32)), "to be int64 but int32"),
    ],
)
def test_a_warm_up_record_that_fails_refuses_the_version(manager, base, versions, request_, reason):
    copy_version(versions / "1", base / "1")
    write_toy(base / "2", 2, warm_up=[request_])
    manager.start()
    assert states(manager) == {1: State.AVAILABLE, 2: State.END}
    assert reason in manager.versions("toy")[0].error.message


def test_warm_up_runs_before_requests(base):
    write_toy(base / "1", warm_up=[predict_request(ids=np.array([[1]]))] * 3)
    counts = []

    def counting(servable):
        counts.append((warm_up(servable, BOUND), servable.state))

    options = LoadingOptions(settle_seconds=SETTLE)
    manager = ModelManager([ModelConfig("toy", base)], options, Metrics(), counting)
    manager.start()
    manager.close()
    assert counts == [(3, State.LOADING)]


def test_damaged_warm_up_records(manager, base, versions):
    shutil.copytree(versions / "1", base / "1")
    records = base / "1" / "assets.extra" / "tf_serving_warmup_requests"
    records.parent.mkdir()
    records.write_bytes(b"\0" * 100)
    manager.start()
    assert "Warmup records" in manager.versions("toy")[0].error.message


@pytest.mark.slow
def test_hot_swaps_fail_no_request_of_ten_thousand(base, versions):
    copy_version(versions / "1", base / "1")
    wrong, answered, done = [], [], threading.Event()

    def ask(running):
        request = predict_request(ids=np.array([[7]]))
        while not done.is_set():
            try:
                response = running.predictions.Predict(request, timeout=60)
            except grpc.RpcError as error:
                wrong.append(f"{error.code()}: {error.details()}")
                continue
            scale = tf.make_ndarray(response.outputs["vectors"])[0, 0, 1] / 7
            version = response.model_spec.version.value
            answered.append(version)
            if scale != 2 - version % 2:
                wrong.append(f"version {version} multiplied by {scale}")

    with serving(base) as running, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, running) for _ in range(4)]
        version = 1
        while len(answered) < 10_000 or version < 6:
            version += 1
            copy_version(versions / str(2 - version % 2), base / str(version))
            damaged = base / str(1000 + version)
            shutil.copytree(versions / "1", base / ".damaged")
            (base / ".damaged" / "saved_model.pb").write_bytes(b"damaged")
            (base / ".damaged").rename(damaged)
            wait_for(lambda: running.states().get(version) == "AVAILABLE", 60)  # noqa: B023
            wait_for(lambda: running.states().get(1000 + version) == "END", 60)  # noqa: B023
        done.set()
        for one in asking:
            one.result()
        reload = model_management_pb2.ReloadConfigRequest()
        reload.config.model_config_list.SetInParent()
        running.models.HandleReloadConfigRequest(reload)
    assert wrong == []
    assert len(answered) >= 10_000
    assert sorted(set(answered))[:5] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_swaps_keep_no_memory(tmp_path, monkeypatch):
    """A table of 16 MB, then ten times the same: what was unloaded goes back to the system."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    base = tmp_path / "toy"
    base.mkdir()
    write_toy(tmp_path / "source", rows=2_000_000)
    copy_version(tmp_path / "source", base / "1")
    with serving(base) as running:
        running.predict(ids=np.array([[1_999_999]]))
        first = running.anonymous_kib()
        for version in range(2, 12):
            copy_version(tmp_path / "source", base / str(version))
            wait_for(lambda: running.states().get(version - 1) == "END", 60)  # noqa: B023
            running.predict(ids=np.array([[1_999_999]]))
        assert running.anonymous_kib() < first + 16_000_000 / 1024 / 2
