"""Parts of the server alone: batching, tensors, metrics, the bound on requests, the program."""

import asyncio
import contextlib
import logging
import re
import signal
import socket
import subprocess
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from serving_toys import predict_request, program, serving, tf, write_toy

from tf_compemb.native_session import NativeError, NativeSession
from tf_compemb.serving.__main__ import main
from tf_compemb.serving.batching import Batcher, BatchingOptions
from tf_compemb.serving.metrics import Metrics
from tf_compemb.serving.tensor_protos import array_of, fill_proto
from tf_compemb.serving.workers import Workers

BOUND = 1 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "toy"
    base.mkdir()
    write_toy(base / "1")
    return base


class Recorded:
    """A session that notes the rows of each run."""

    def __init__(self, session):
        self.session, self.rows = session, []

    def run(self, name, inputs, outputs=None):
        self.rows.append([len(array) for array in inputs.values()][0])  # noqa: RUF015
        return self.session.run(name, inputs, outputs)


@pytest.fixture
def recorded(model):
    with NativeSession(model / "1") as session:
        yield Recorded(session)


def run_together(batcher, requests):
    """Each request in a thread of its own; results or errors, in order."""
    found = [None] * len(requests)

    def run(position):
        name, inputs = requests[position]
        try:
            found[position] = batcher.run(name, inputs)
        except NativeError as error:
            found[position] = error

    threads = [threading.Thread(target=run, args=(position,)) for position in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_requests_share_a_run(recorded):
    batcher = Batcher(recorded, BatchingOptions(8, timeout_seconds=20))
    requests = [("serving_default", {"ids": np.array([[n], [n + 1]])}) for n in range(4)]
    found = run_together(batcher, requests)
    assert recorded.rows == [8]  # Full, so nobody waited for the timeout.
    for n, result in enumerate(found):
        assert result["vectors"].tolist() == [[[n, n]], [[n + 1, n + 1]]]


def test_a_lone_request_does_not_wait_for_ever(recorded):
    batcher = Batcher(recorded, BatchingOptions(8, timeout_seconds=0.05))
    assert batcher.run("half", {"x": np.array([2], np.float32)}) == {"y": [3]}
    assert recorded.rows == [1]


def test_requests_of_other_shapes_dtypes_and_signatures_run_apart(recorded):
    batcher = Batcher(recorded, BatchingOptions(8, timeout_seconds=0.3))
    requests = [
        ("serving_default", {"ids": np.array([[1]])}),
        ("serving_default", {"ids": np.array([[1, 2]])}),
        ("serving_default", {"ids": np.array([[1]], np.int32)}),
        ("half", {"x": np.array([1], np.float32)}),
    ]
    found = run_together(batcher, requests)
    assert [len(result) if isinstance(result, dict) else result.code for result in found] == [
        *(1, 1, 3, 1)
    ]
    assert recorded.rows == [1, 1, 1, 1]


def test_a_wrong_id_is_no_error_of_the_others(recorded):
    batcher = Batcher(recorded, BatchingOptions(3, timeout_seconds=20))
    requests = [("serving_default", {"ids": np.array([[n]])}) for n in (5, 100, 6)]
    first, wrong, last = run_together(batcher, requests)
    assert (first["vectors"].tolist(), last["vectors"].tolist()) == ([[[5, 5]]], [[[6, 6]]])
    assert "100 is not in [0, 100)" in str(wrong)
    assert recorded.rows == [3, 1, 1, 1]


def test_outputs_without_rows_are_not_shared(recorded):
    batcher = Batcher(recorded, BatchingOptions(2, timeout_seconds=20))
    requests = [("total", {"x": np.array([n], np.float32)}) for n in (1, 2)]
    assert [float(result["total"]) for result in run_together(batcher, requests)] == [1, 2]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"ids": np.zeros((9, 1), np.int64)}, "Task size 9 is larger than maximum input batch si"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, r"same 0th dimension.*a \[2\], b \[3\]"),
        ({"ids": np.zeros(())}, "same 0th dimension"),
    ],
)
def test_batching_refuses(recorded, inputs, message):
    batcher = Batcher(recorded, BatchingOptions(8, timeout_seconds=0.01))
    with pytest.raises(NativeError, match=message) as refused:
        batcher.run("serving_default", inputs)
    assert refused.value.code_name == "INVALID_ARGUMENT"


NUMBERS = st.sampled_from(
    [*"fdFD?", "float16", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
)


def test_large_integers_go_round_beside_small_ones():
    for numbers, dtype in (([0, 2**63 + 1], np.uint64), ([-(2**63), 2**63 - 1], np.int64)):
        proto = tf.make_tensor_proto(0, tf.as_dtype(dtype))
        number = proto.dtype
        proto.Clear()
        fill_proto(proto, np.array(numbers, dtype), number)
        assert array_of(proto, "x", BOUND).tolist() == numbers


@settings(max_examples=200, deadline=None)
@given(data=st.data(), dtype=NUMBERS, as_tensorflow=st.booleans())
def test_tensors_go_round(data, dtype, as_tensorflow):
    """Also between TensorFlow's own conversion and this one."""
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
    proto = tf.make_tensor_proto(array)
    if not as_tensorflow:
        number = proto.dtype
        proto.Clear()
        fill_proto(proto, array, number)
        np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    found = array_of(proto, "x", BOUND)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


def proto_of(dtype, shape, **values):
    proto = tf.make_tensor_proto(0)
    proto.Clear()
    proto.dtype = dtype.as_datatype_enum
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    for name, value in values.items():
        if name == "tensor_content":
            proto.tensor_content = value
        else:
            getattr(proto, name).extend(value)
    return proto


def test_few_values_are_repeated_as_in_tensorflow():
    assert array_of(proto_of(tf.int64, [4], int64_val=[1, 2]), "x", BOUND).tolist() == [1, 2, 2, 2]
    assert array_of(proto_of(tf.float32, [2]), "x", BOUND).tolist() == [0, 0]
    assert array_of(proto_of(tf.string, [2]), "x", BOUND).tolist() == [b"", b""]
    assert array_of(proto_of(tf.string, [2], string_val=[b"a"]), "x", BOUND).tolist() == [b"a"] * 2


# Of each kind of field: its dtypes, and values that they hold.
FIELDS = {
    "float_val": ((tf.float32,), st.floats(width=32)),
    "double_val": ((tf.float64,), st.floats()),
    "int_val": ((tf.int32, tf.int16, tf.int8, tf.uint8, tf.uint16), st.integers(0, 127)),
    "int64_val": ((tf.int64,), st.integers(-(2**63), 2**63 - 1)),
    "uint32_val": ((tf.uint32,), st.integers(0, 2**32 - 1)),
    "uint64_val": ((tf.uint64,), st.integers(0, 2**64 - 1)),
    "bool_val": ((tf.bool,), st.booleans()),
    "half_val": ((tf.float16, tf.bfloat16), st.integers(0, 2**16 - 1)),
    "scomplex_val": ((tf.complex64,), st.floats(width=32)),
    "dcomplex_val": ((tf.complex128,), st.floats()),
    "string_val": ((tf.string,), st.binary(max_size=3)),
}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), field=st.sampled_from(sorted(FIELDS)))
def test_any_number_of_values_is_read_as_tensorflow_reads_it(data, field):
    """More values than the shape has, fewer, or bytes that do or do not fit."""
    dtypes, values = FIELDS[field]
    shape = data.draw(st.lists(st.integers(0, 3), max_size=2))
    proto = proto_of(
        data.draw(st.sampled_from(dtypes)), shape, **{field: data.draw(st.lists(values))}
    )
    proto.tensor_content = data.draw(st.binary(max_size=12) | st.just(b""))
    dtype = tf.as_dtype(proto.dtype)
    try:
        expected = tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy()
    except tf.errors.InvalidArgumentError:
        with pytest.raises(NativeError, match="Tensor parsing error, input 'x'"):
            array_of(proto, "x", BOUND)
        return
    found = array_of(proto, "x", BOUND)
    assert found.shape == np.shape(expected)
    if dtype == tf.string:
        assert found.tolist() == np.array(expected, object).tolist()
    else:
        assert found.dtype == dtype.as_numpy_dtype
        assert found.tobytes() == np.asarray(expected).tobytes()


@settings(max_examples=100, deadline=None)
@given(strings=st.lists(st.binary(max_size=300), max_size=5))
def test_strings_in_tensor_content(strings):
    lengths = b"".join(
        bytes([len(it)]) if len(it) < 128 else bytes([len(it) & 127 | 128, len(it) >> 7])
        for it in strings
    )
    proto = proto_of(tf.string, [len(strings)], tensor_content=lengths + b"".join(strings))
    assert array_of(proto, "x", BOUND).tolist() == strings


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (proto_of(tf.int64, [10**12], int64_val=[1]), "takes 8000000000000 bytes, more than"),
        (proto_of(tf.int64, [0, 10**12]), "takes 8000000000000 bytes, more than"),
        (proto_of(tf.int64, [-1]), "negative size"),
        (proto_of(tf.int64, [1] * 33), "33 axes; 32 at most"),
        (proto_of(tf.int64, [2], tensor_content=b"12345678"), r"1 values for shape \[2\]"),
        (proto_of(tf.int64, [1], tensor_content=b"123"), "buffer size must be a multiple"),
        (proto_of(tf.string, [1], tensor_content=b"1"), "not have the lengths that it says"),
        (
            proto_of(tf.string, [2], tensor_content=b"\x00\x80"),
            "in the middle of a string's length",
        ),
        (proto_of(tf.int8, [1], int_val=[300]), "int_val holds numbers that are not int8"),
        (proto_of(tf.resource, [1]), "dtype resource cannot be sent"),
        (proto_of(tf.string, [9], string_val=[b"x" * BOUND]), "repeated 9 times is more than"),
    ],
)
def test_tensors_that_cannot_be(proto, message):
    with pytest.raises(NativeError, match=message) as refused:
        array_of(proto, "ids", BOUND)
    assert refused.value.message.startswith("Tensor parsing error, input 'ids': ")


def test_metrics_text():
    metrics = Metrics()
    for seconds in (5e-6, 100e-6, 1e9):
        metrics.request('a"\\\n', "predict", "GRPC", "OK", seconds)
    lines = metrics.text().splitlines()
    assert lines[0] == "# TYPE :tensorflow:serving:request_count counter"
    assert lines[1] == (':tensorflow:serving:request_count{model_name="a\\"\\\\\\n",status="OK"} 3')
    buckets = [int(line.split()[-1]) for line in lines if "_bucket{" in line]
    assert (buckets[0], buckets[-2], buckets[-1]) == (1, 2, 3)
    assert buckets == sorted(buckets)
    assert lines[-1].endswith("} 3")
    assert lines[-2].endswith("} 1e+15")


def test_one_request_too_many_is_refused():
    async def scenario():
        workers = Workers(threads=1, most_requests=2, most_bytes=100)
        free = threading.Event()
        waiting = [asyncio.ensure_future(workers.run(free.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(NativeError, match="RESOURCE_EXHAUSTED: The server has 2 requests"):
            await workers.run(int)
        waiting[1].cancel()  # Its place stays taken: nothing ends a thread.
        await asyncio.sleep(0)
        with pytest.raises(NativeError, match="RESOURCE_EXHAUSTED"):
            await workers.run(int)
        free.set()
        assert await waiting[0]
        await workers.idle()
        assert await workers.run(int) == 0
        workers.close()

    asyncio.run(scenario())


def test_more_bytes_of_requests_than_the_bound_are_refused():
    async def scenario():
        workers = Workers(threads=1, most_requests=9, most_bytes=100)
        free = threading.Event()
        waiting = [asyncio.ensure_future(workers.run(free.wait, size=50)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(NativeError, match="RESOURCE_EXHAUSTED: The server has 100 bytes of"):
            await workers.run(int, size=1)
        assert not free.is_set()
        free.set()
        assert [await one for one in waiting] == [True, True]
        assert await workers.run(int, size=100) == 0
        workers.close()

    asyncio.run(scenario())


def test_help_says_what_it_is(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "no replacement of TensorFlow Serving" in text
    assert "--grpc-port" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/nothing"], "There is no directory {folder}/nothing; give the one with the"),
        (["{toy}/1"], "{toy}/1 is one version; give the directory that holds it"),
        (["a/b={toy}"], "'a/b' cannot name a model; give NAME=DIR."),
        (["{toy}", "{toy}"], "Two models are called toy; give one another name"),
        (["{toy}", "--host", "203.0.113.1"], "Cannot listen on 203.0.113.1, port 8500: "),
    ],
)
def test_what_the_user_can_mend(model, tmp_path, capsys, arguments, message):
    names = {"folder": tmp_path, "toy": model}
    assert main(["serve", *[one.format(**names) for one in arguments]]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: " + message.format(**names))
    assert printed.out == ""


def test_a_port_in_use(model, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(model), "--grpc-port", "0", "--rest-port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: Cannot listen on 127.0.0.1, port {port}: Address already in ")
    assert not logging.getLogger("tf_compemb.serving").handlers


@pytest.mark.slow
def test_nothing_but_damaged_models(tmp_path):
    (tmp_path / "damaged" / "1").mkdir(parents=True)
    (tmp_path / "damaged" / "1" / "saved_model.pb").write_bytes(b"no model")
    arguments = program(tmp_path / "damaged", "--grpc-port", 0, "--rest-port", 0)
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 2
    assert "refused damaged version 1: " in done.stderr
    assert done.stderr.endswith("error: No model can be served; the reasons are above.\n")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("option", ["--grpc-port", "--rest-port"])
@pytest.mark.parametrize("value", ["-1", "65536", "x"])
def test_no_such_port(option, value, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "toy", option, value])
    assert stopped.value.code == 2
    assert option in capsys.readouterr().err


def test_the_program_with_batching_stops_when_requests_are_answered(model):
    with serving(model, "--max-batch-size", 64, "--batch-timeout-micros", 3_000_000) as running:
        assert "embedded default for one machine" in "".join(running.log)
        assert re.search(r"loaded toy version 1 in \d+\.\d\d s\n", "".join(running.log))
        with contextlib.ExitStack() as stack:
            calls = [
                running.predictions.Predict.future(predict_request(ids=np.array([[n]])), timeout=60)
                for n in range(8)
            ]
            # All wait for their batch's timeout when the signal comes.
            time.sleep(1.5)
            stack.callback(running.process.wait, 60)
            running.process.send_signal(signal.SIGINT)
            values = [list(call.result().outputs["vectors"].float_val) for call in calls]
        assert values == [[n, n] for n in range(8)]
        running.process.poll = lambda: None  # It has stopped already, as it should.
        assert running.process.returncode == 0
