"""Whatever arrives on its ports, the server answers with a code, goes on, and stays small."""

import contextlib
import gzip
import json
import socket
import threading
import time

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_toys import predict_request, serving, write_toy
from tensorflow_serving.apis import predict_pb2

REFUSALS = {"INVALID_ARGUMENT", "INTERNAL", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"}
FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MIB = 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "toy"
    base.mkdir()
    write_toy(base / "1")
    with serving(base, "--max-request-bytes", 1 << 20, "--max-requests", 64) as running:
        for _ in range(50):
            good(running)
        before = running.anonymous_kib()
        yield running
        good(running)
        assert running.anonymous_kib() < before + 150 * MIB


def good(running):
    """A request that must succeed whatever came before it."""
    response = running.predict(ids=np.array([[7]]))
    assert list(response.outputs["vectors"].float_val) == [7, 7]


def raw_call(running, method, request):
    """The status of a call with these bytes as its message."""
    call = running.channel.unary_unary(f"/tensorflow.serving.{method}")
    try:
        call(request, timeout=60)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


METHODS = [
    *(f"PredictionService/{name}" for name in ("Predict", "Classify", "Regress")),
    *("PredictionService/MultiInference", "PredictionService/GetModelMetadata"),
    *("ModelService/GetModelStatus", "ModelService/HandleReloadConfigRequest"),
]


@FUZZ
@given(method=st.sampled_from(METHODS), request_=st.binary(max_size=300))
def test_random_bytes_as_messages(server, method, request_):
    # An empty list of models is a good request that would end the test.
    if b"\x0a" in request_ and method.endswith("ReloadConfigRequest"):
        return
    assert raw_call(server, method, request_) in REFUSALS


@FUZZ
@given(data=st.data())
def test_damaged_messages(server, data):
    request = bytearray(predict_request(ids=np.array([[1, 2, 3]])).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        request[data.draw(st.integers(0, len(request) - 1))] = data.draw(st.integers(0, 255))
    assert raw_call(server, METHODS[0], bytes(request)) in {*REFUSALS, "OK"}


SIZES = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 2, 10**12, 2**31, 2**62])


@FUZZ
@given(
    dtype=st.integers(0, 40) | st.integers(-(2**31), 2**31 - 1),
    shape=st.lists(SIZES, max_size=5),
    content=st.binary(max_size=40),
    values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    strings=st.lists(st.binary(max_size=8), max_size=3),
    signature=st.sampled_from(["", "two", "echo", "half", "total", "classify"]),
    name=st.sampled_from(["ids", "a", "b", "text", "x", "inputs"]),
)
def test_tensors_that_claim_anything(
    server, dtype, shape, content, values, strings, signature, name
):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", signature
    tensor = request.inputs[name]
    tensor.dtype, tensor.tensor_content = dtype, content
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.int64_val.extend(values)
    tensor.int_val.extend(value % 2**31 for value in values)
    tensor.string_val.extend(strings)
    assert raw_call(server, METHODS[0], request.SerializeToString()) in {*REFUSALS, "OK"}


@pytest.mark.parametrize("shape", [[10**12], [10**6, 10**6], [0, 2**62], [1] * 300, [2**21]])
@pytest.mark.parametrize("signature", ["", "half", "echo"])
def test_huge_shapes(server, shape, signature):
    name, field = {
        "": ("ids", "int64_val"),
        "half": ("x", "float_val"),
        "echo": ("text", "string_val"),
    }[signature]
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", signature
    tensor = request.inputs[name]
    tensor.dtype = {"int64_val": 9, "float_val": 1, "string_val": 7}[field]
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    getattr(tensor, field).append(b"x" if field == "string_val" else 1)
    assert raw_call(server, METHODS[0], request.SerializeToString()) == "INVALID_ARGUMENT"
    good(server)


def test_one_long_string_for_many_elements(server):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", "echo"
    tensor = request.inputs["text"]
    tensor.dtype = 7
    tensor.tensor_shape.dim.add(size=100_000)
    tensor.string_val.append(b"x" * 500_000)
    assert raw_call(server, METHODS[0], request.SerializeToString()) == "INVALID_ARGUMENT"


def test_a_request_over_the_bound(server):
    request = predict_request(ids=np.zeros((1, 1 << 17), np.int64)).SerializeToString()
    assert raw_call(server, METHODS[0], request) == "RESOURCE_EXHAUSTED"
    body = b'{"instances": [[' + b"1, " * (1 << 19) + b"1]]}"
    with exchange(server, head("POST", len(body)) + body) as answer:
        assert answer.startswith(b"HTTP/1.1 413 ")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just({"b64": "YQ=="}),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["ids", "a", "b", "b64", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@FUZZ
@given(
    key=st.sampled_from(["instances", "inputs", "examples"]),
    value=JSON,
    signature=st.sampled_from(["serving_default", "two", "echo", "half", "total", "classify"]),
    verb=st.sampled_from(["predict", "classify", "regress"]),
)
def test_json_of_any_form(server, key, value, signature, verb):
    body = json.dumps({"signature_name": signature, key: value}).encode()
    status, answer = server.rest("POST", f"/v1/models/toy:{verb}", body)
    assert (status == 200) != ("error" in answer)
    assert status in (200, 400)


@FUZZ
@given(
    body=st.binary(max_size=200), first=st.integers(0, 60), encoding=st.sampled_from(["gzip", "x"])
)
def test_random_encoded_bodies(server, body, first, encoding):
    """Gzip with bytes changed somewhere, or what says that it is gzip."""
    whole = gzip.compress(BODY)
    for content in (body, whole[:first] + body + whole[first + len(body) :]):
        with exchange(server, encoded(encoding, content)) as answer:
            assert answer[:12] in (
                b"HTTP/1.1 200",
                b"HTTP/1.1 400",
                b"HTTP/1.1 413",
                b"HTTP/1.1 415",
            )


@FUZZ
@given(body=st.binary(max_size=200))
def test_random_bodies(server, body):
    status, answer = server.rest("POST", "/v1/models/toy:predict", body)
    assert (status, list(answer)) == (400, ["error"])


@contextlib.contextmanager
def exchange(running, sent, port=None):
    """Everything that comes back for these bytes, until the server closes or 20 s pass."""
    with socket.create_connection(("127.0.0.1", port or running.rest_port), timeout=20) as link:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            link.sendall(sent)
            link.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := link.recv(65536):
                received += part
        yield received


def head(method, length, path="/v1/models/toy:predict"):
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


@FUZZ
@given(sent=st.binary(min_size=1, max_size=300))
def test_random_bytes_on_the_rest_port(server, sent):
    with exchange(server, sent) as answer:
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@FUZZ
@given(sent=st.binary(min_size=1, max_size=300))
def test_random_bytes_on_the_grpc_port(server, sent):
    with exchange(server, sent, int(server.grpc_address.split(":")[1])):
        pass
    good(server)


BODY = b'{"instances": [[1]]}'
# 50 MB that say they are 1000 bytes.
BOMB = gzip.compress(bytes(50_000_000))[:-4] + (1000).to_bytes(4, "little")


def encoded(encoding, body):
    sent = head("POST", len(body)).replace(b"\r\n\r\n", b"\r\nContent-Encoding: %s\r\n\r\n")
    return sent % encoding.encode() + body


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head("POST", len(BODY)) + BODY, b"200"),
        (head("POST", len(BODY) - 1) + BODY, b"400"),
        (head("POST", len(BODY) + 10) + BODY, b"400"),
        (head("POST", -1) + BODY, b"400"),
        (head("POST", "1, 2") + BODY, b"400"),
        (head("POST", 10**15) + BODY, b"413"),
        (head("POST", 10**30) + BODY, b"400"),
        (head("POST", 0), b"400"),
        (b"POST /v1/models/toy:predict HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", b"4"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x: y\r\n" * 20_000 + b"\r\n", b"431"),
        (encoded("br", BODY), b"415"),
        (encoded("gzip", BODY), b"400"),
        (encoded("gzip", gzip.compress(BODY)), b"200"),
        (encoded("gzip", gzip.compress(BODY + b" " * (2 << 20))), b"413"),
        (encoded("gzip", BOMB), b"400"),
        (
            b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
            b"200",
        ),
    ],
    ids=lambda value: None if len(value) > 3 else value.decode(),
)
def test_http(server, sent, status):
    with exchange(server, sent) as answer:
        assert answer.startswith(b"HTTP/1.1 " + status)
    good(server)


def test_one_connection_for_many_requests(server):
    sent = 3 * (head("POST", len(BODY)) + BODY)
    with exchange(server, sent) as answer:
        assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3


def test_clients_that_stand_still_are_in_nobodys_way(server):
    links = []
    try:
        for _ in range(100):
            link = socket.create_connection(("127.0.0.1", server.rest_port))
            link.sendall(head("POST", 1000) + b'{"inst')
            links.append(link)
            link = socket.create_connection(server.grpc_address.split(":"))
            link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM")
            links.append(link)
        good(server)
        assert server.rest("POST", "/v1/models/toy:predict", BODY)[0] == 200
    finally:
        for link in links:
            link.close()


def test_calls_that_clients_give_up(server):
    request = predict_request(ids=np.ones((1, 100_000), np.int64))
    for _ in range(100):
        call = server.predictions.Predict.future(request, timeout=60)
        call.cancel()
    good(server)


def test_more_requests_than_the_bound_are_refused_and_not_lost(server):
    request = predict_request(ids=np.ones((1, 60_000), np.int64))
    calls = [server.predictions.Predict.future(request, timeout=60) for _ in range(300)]
    codes = {call.code().name for call in calls}
    assert codes <= {"OK", "RESOURCE_EXHAUSTED"}
    assert "OK" in codes
    good(server)


def test_unknown_names_take_no_memory(server):
    before = len(server.rest("GET", "/monitoring/prometheus/metrics")[1])
    for number in range(200):
        server.rest("POST", f"/v1/models/name{number}:predict", BODY)
    after = len(server.rest("GET", "/monitoring/prometheus/metrics")[1])
    assert after < before + 10_000


def test_slow_clients_lose_their_connection(tmp_path):
    """The reader has a deadline for the whole request, not for each byte."""
    import asyncio

    from tf_compemb.serving.http_server import Answer, HttpLimits, HttpServer

    async def respond(*_):
        return Answer(200, b"{}")

    async def scenario():
        limits = HttpLimits(1000, request_seconds=0.3, idle_seconds=0.3, connections=2)
        server = HttpServer(respond, lambda status, text: Answer(status, text.encode()), limits)
        port = await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.ensure_future(reader.read())
        for byte in head("POST", 100):
            if answer.done():
                break
            with contextlib.suppress(ConnectionError):
                writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
        slow = await answer
        writer.close()
        reader, idle = await asyncio.open_connection("127.0.0.1", port)
        silent = await reader.read()
        idle.close()
        await server.stop(1)
        return slow, silent

    slow, silent = asyncio.run(scenario())
    assert slow.startswith(b"HTTP/1.1 408 ")
    assert silent == b""


def test_contents_that_arrive_together_are_bounded():
    """Of three that send most of a large request each, one is refused and the others answered."""
    import asyncio

    from tf_compemb.serving.http_server import Answer, HttpLimits, HttpServer

    async def respond(request):
        return Answer(200, str(len(request.body)).encode())

    async def scenario():
        limits = HttpLimits(1000, held_bytes=2500, request_seconds=20)
        server = HttpServer(respond, lambda status, text: Answer(status, text.encode()), limits)
        port = await server.start("127.0.0.1", 0)
        answers = {}
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answers[asyncio.ensure_future(reader.read(12))] = writer
            writer.write(head("POST", 1000) + b" " * 900)
        (refused,), waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        for answer in waiting:
            answers[answer].write(b" " * 100)
        found = [await answer for answer in (refused, *waiting)]
        # What is answered makes room.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(2 * (head("POST", 1000) + b" " * 1000))
        found.append(await reader.read(12))
        for one in (*answers.values(), writer):
            one.close()
        await server.stop(1)
        return found

    assert asyncio.run(scenario()) == [b"HTTP/1.1 429", *[b"HTTP/1.1 200"] * 3]


def test_parallel_fuzz_and_good_requests(server):
    """Good requests succeed in the middle of bad ones."""
    stop = threading.Event()

    def bad():
        generator = np.random.default_rng(0)
        while not stop.is_set():
            raw_call(server, METHODS[0], generator.bytes(200))
            server.rest("POST", "/v1/models/toy:predict", generator.bytes(200))

    threads = [threading.Thread(target=bad) for _ in range(3)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 1
    while time.monotonic() < until:
        good(server)
    stop.set()
    for thread in threads:
        thread.join()
