"""The client without TensorFlow: its messages are the stock ones; wrong addresses are sentences."""

import contextlib
import http.server
import re
import socket
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
from criteo_rows import make_line
from serving_toys import grpc, predict_pb2, tf

from tf_compemb.serving.__main__ import main
from tf_compemb.serving.client import GrpcClient, RestClient, ServingError, predict
from tf_compemb.serving.grpc_messages import MESSAGES, fill_tensor, state_name
from tf_compemb.serving.tensor_protos import array_of

LARGEST = 1 << 20


def stock_messages() -> dict:
    from google.protobuf import wrappers_pb2
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
    from tensorflow_serving.apis import get_model_status_pb2, model_pb2

    return {
        "Dim": tensor_shape_pb2.TensorShapeProto.Dim,
        "TensorShapeProto": tensor_shape_pb2.TensorShapeProto,
        "TensorProto": tensor_pb2.TensorProto,
        "Int64Value": wrappers_pb2.Int64Value,
        "ModelSpec": model_pb2.ModelSpec,
        "PredictRequest": predict_pb2.PredictRequest,
        "PredictResponse": predict_pb2.PredictResponse,
        "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest,
        "ModelVersionStatus": get_model_status_pb2.ModelVersionStatus,
        "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
    }


@pytest.mark.parametrize("name", MESSAGES)
def test_declared_fields_are_the_stock_message_s(name):
    stock = stock_messages()[name].DESCRIPTOR.fields_by_name
    kinds = {field.TYPE_ENUM: field.TYPE_INT32 for field in stock.values()}
    for ours in MESSAGES[name].DESCRIPTOR.fields:
        theirs = stock[ours.name]
        assert ours.number == theirs.number
        assert ours.is_repeated == theirs.is_repeated
        assert ours.type == kinds.get(theirs.type, theirs.type)
        assert ours.is_packed == theirs.is_packed


def test_states_have_the_stock_names():
    from tensorflow_serving.apis import get_model_status_pb2

    for name, number in get_model_status_pb2.ModelVersionStatus.State.items():
        assert state_name(number) == name


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array([[-(2**63)], [2**63 - 1]], np.int64),
    np.array([2**64 - 1], np.uint64),
    np.array(1.5),
    np.zeros((0, 13), np.float32),
    np.array([True, False]),
    np.array([1, -2], np.int8),
    np.array([1 + 2j], np.complex64),
    np.array([1.5, np.nan, -np.inf], np.float16),
    np.array([1.5, 3.0], ml_dtypes.bfloat16),
    np.array([[b"ab", b"\xff"], [b"", b"c"]], dtype=object),
    np.array(["é", ""], dtype=object),
    np.array(["é", "abc"]),
    np.array([b"abc", b"d"]),
    np.array([[1.0, 2.0], [3.0, 4.0]], np.float32).T,
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_tensors_are_what_tensorflow_reads_and_writes(array):
    ours = MESSAGES["TensorProto"]()
    fill_tensor(ours, array)
    theirs = tf.make_tensor_proto(array)
    read = tf.make_ndarray(type(theirs).FromString(ours.SerializeToString()))
    np.testing.assert_array_equal(read, tf.make_ndarray(theirs))
    assert read.dtype == tf.make_ndarray(theirs).dtype
    again = array_of(MESSAGES["TensorProto"].FromString(theirs.SerializeToString()), "x", LARGEST)
    np.testing.assert_array_equal(again, read)
    assert (again.dtype, again.shape) == (read.dtype, read.shape)


def test_the_order_of_bytes_is_the_machine_s():
    proto = MESSAGES["TensorProto"]()
    fill_tensor(proto, np.array([1.5, -2.0], ">f4"))
    assert array_of(proto, "x", LARGEST).tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("value", "dtype"), [([[1, 2]], "int64"), ([0.5], "float32"), (["a"], "object"), (3, "int64")]
)
def test_lists_have_the_types_of_ids_and_features(value, dtype):
    proto = MESSAGES["TensorProto"]()
    fill_tensor(proto, value)
    array = array_of(proto, "x", LARGEST)
    assert array.dtype == dtype
    assert array.shape == np.shape(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.array([object()], object), "or else bytes or text"),
        (np.array(["2020-01-01"], "datetime64[D]"), "no dtype for NumPy's datetime64"),
    ],
)
def test_what_is_no_tensor_is_an_error_of_the_input(value, words):
    client = GrpcClient("127.0.0.1:1")
    with pytest.raises(ServingError, match=f"Input 'ids': .*{words}") as caught:
        predict(client, "m", {"ids": value})
    assert caught.value.code == "INVALID_ARGUMENT"
    client.close()


# --- No TensorFlow, whatever happens -----------------------------------------------------------

PROGRAM = """
import sys
from tf_compemb.serving.__main__ import main
status = main(sys.argv[1:])
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(status, *[name for name in loaded if name in ("tensorflow", "tensorflow_serving", "keras")])
"""


def run_and_list(*arguments):
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.splitlines()[-1], done.stdout, done.stderr


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.txt"
    path.write_text("\n".join(make_line("0", [i], ["a"]) for i in range(3)))
    return path


class StubServer(grpc.GenericRpcHandler):
    """Answers any Predict with its rows, by TensorFlow's own classes, when it may."""

    def __init__(self, may_answer=None):
        self.may_answer = may_answer

    def service(self, call):
        if call.method != "/tensorflow.serving.PredictionService/Predict":
            return None

        def predict(request, context):
            if self.may_answer is not None:
                self.may_answer.wait(10)
            rows = request.inputs["integers"].tensor_shape.dim[0].size
            response = predict_pb2.PredictResponse()
            for name in ("click_probability", "logit"):
                value = np.full((rows, 1), 0.25, np.float32)
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

        return grpc.unary_unary_rpc_method_handler(
            predict,
            request_deserializer=predict_pb2.PredictRequest.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


@contextlib.contextmanager
def grpc_server(*handlers):
    from concurrent import futures

    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0)


def test_a_prediction_over_grpc_imports_no_tensorflow(rows):
    with grpc_server(StubServer()) as port:
        last, shown, _ = run_and_list(
            *("predict", "--grpc", f"127.0.0.1:{port}", "--model", "m", rows)
        )
    assert last == "0"
    assert shown.count("0.25\t0.25\n") == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "--grpc", "127.0.0.1:1", "--model", "m", "{rows}"], "No server answers"),
        (["predict", "--grpc", "127.0.0.1:1", "--model", "m", "none.txt"], "no such file"),
        (["predict", "--grpc", "localhost", "--model", "m", "{rows}"], "give HOST:PORT"),
        (["serve", "none"], "There is no directory"),
        (["compare", "none"], "holds no exported model"),
        (["compare", "{unfit}", "--out", "{out}"], "model_card.json cannot be read"),
        (["compare", "a=grpc://127.0.0.1:1", "--data", "none.txt"], "no such file"),
        (["compare", "a=grpc://127.0.0.1:1", "--data", "{rows}"], "No server answers"),
        (["compare", "a=http://127.0.0.1:1", "--data", "{rows}"], "No server answers"),
    ],
)
def test_mistakes_are_told_before_tensorflow_is_imported(arguments, words, rows, tmp_path):
    (tmp_path / "unfit" / "1").mkdir(parents=True)
    paths = {name: tmp_path / name for name in ("unfit", "out")}
    last, shown, said = run_and_list(*(a.format(rows=rows, **paths) for a in arguments))
    assert last == "2"
    assert shown == "2\n"
    (line,) = said.splitlines()
    assert line.startswith("error: ")
    assert words in line


# --- Addresses that are none, and servers of other kinds -----------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "http://localhost:8500",
        "h:99999",
        "h:0",
        "h:x",
        ":8500",
        "h:8500/x",
        "h:" + 9 * "1",
    ],
)
def test_an_address_that_is_not_grpc_s(address, rows, capsys):
    with pytest.raises(ValueError, match="give HOST:PORT"):
        GrpcClient(address)
    assert main(["predict", "--grpc", address, "--model", "m", str(rows)]) == 2
    shown = capsys.readouterr()
    assert (
        shown.err
        == f"error: {address!r} is no gRPC address; give HOST:PORT, with a port up to 65535.\n"
    )
    assert shown.out == ""


@pytest.mark.parametrize(
    "address", ["localhost:8500", "grpc://localhost:8500", "grpc://[::1]:8500/"]
)
def test_addresses_of_grpc(address):
    client = GrpcClient(address)
    assert client.address == "grpc://" + address.removeprefix("grpc://").rstrip("/")
    client.close()


@pytest.mark.parametrize(
    "url",
    ["localhost:8501", "http://h:99999", "http://h:x", "http://h:0", "http://[::1", "http://a b"],
)
def test_an_address_that_is_not_rest_s(url, rows, capsys):
    assert main(["predict", "--rest", url, "--model", "m", str(rows)]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(
        f"error: {url!r} is no address of a REST API; give http://HOST:PORT"
    )
    assert shown.out == ""


@contextlib.contextmanager
def talking(first: bytes, *, waits_for_a_request=False):
    """A server of another kind: what it says first, and then closes."""

    def answer():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    if waits_for_a_request:
                        connection.recv(65536)
                    connection.sendall(first)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


class Page(http.server.BaseHTTPRequestHandler):
    """A web server that is no model server."""

    def do_POST(self):
        body = b"<html>\n<b>\x1b[2J hello\n"
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def web_server(status):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.status = status
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


SERVERS = {
    "grpc": grpc_server,
    "web 404": lambda: web_server(404),
    "web 200": lambda: web_server(200),
    "ssh": lambda: talking(b"SSH-2.0-OpenSSH_9.2\r\n", waits_for_a_request=True),
    "nothing": lambda: talking(b"", waits_for_a_request=True),
    "half": lambda: talking(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", waits_for_a_request=True
    ),
}


@pytest.mark.parametrize(
    ("option", "kind", "words"),
    [
        (
            "--rest",
            "grpc",
            "does not speak HTTP; if it is a server's gRPC port, use gRPC: 127.0.0.1:",
        ),
        ("--rest", "ssh", "does not speak HTTP; if it is"),
        ("--rest", "nothing", "closed the connection"),
        ("--rest", "half", "closed the connection"),
        ("--rest", "web 404", "answered 404: <html> <b>\N{REPLACEMENT CHARACTER}[2J hello"),
        (
            "--rest",
            "web 200",
            "answered otherwise than TensorFlow Serving's REST API does: <html> ",
        ),
        (
            "--grpc",
            "web 404",
            "does not speak gRPC; if it is a server's REST port, use REST: http://",
        ),
        ("--grpc", "ssh", "does not speak gRPC; if it is"),
        ("--grpc", "nothing", "(?:closed the connection|No server answers)"),
        ("--grpc", "grpc", "answered UNIMPLEMENTED: .*; it may be a gRPC server of another kind"),
    ],
)
def test_servers_of_another_kind_are_one_printable_sentence(option, kind, words, rows, capsys):
    with SERVERS[kind]() as port:
        place = f"127.0.0.1:{port}" if option == "--grpc" else f"http://127.0.0.1:{port}"
        assert main(["predict", option, place, "--model", "m", str(rows)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.isprintable()
    assert str(port) in line
    assert re.search(words.replace("[2J", r"\[2J"), line), line


def test_a_server_that_does_not_answer_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        client = RestClient(f"http://{place}", timeout=0.2)
        with pytest.raises(ServingError, match=r"did not answer within 0.2 s") as caught:
            client.state("m")
        assert caught.value.code == "DEADLINE_EXCEEDED"
        client.close()
    may_answer = threading.Event()
    with grpc_server(StubServer(may_answer)) as port:
        client = GrpcClient(f"127.0.0.1:{port}", timeout=0.2)
        with pytest.raises(ServingError, match=r"did not answer within 0.2 s") as caught:
            predict(client, "m", {"integers": np.zeros(3)})
        may_answer.set()
        assert caught.value.code == "DEADLINE_EXCEEDED"
        client.close()


def test_an_answer_that_cannot_be_read_is_one_sentence():
    client = GrpcClient("127.0.0.1:1")
    response = MESSAGES["PredictResponse"]()
    response.outputs["x"].dtype = 20
    with pytest.raises(ServingError, match=r"answered what cannot be read: .*resource"):
        client.decode(response)
    client.close()


@pytest.mark.parametrize("kind", ["web 200", "grpc"])
def test_the_state_of_a_server_of_another_kind_is_one_sentence(kind):
    with SERVERS[kind]() as port:
        client = RestClient(f"http://127.0.0.1:{port}")
        with pytest.raises(ServingError, match=r"answered otherwise|does not speak HTTP"):
            client.state("m")
        client.close()
