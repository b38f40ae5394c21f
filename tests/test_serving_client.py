"""The client over both protocols: Criteo lines to probabilities, and what it says when it fails."""

import contextlib
import gzip
import http.server
import io
import json
import math
import re
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from criteo_rows import make_line
from hypothesis import given
from hypothesis import strategies as st
from serving_toys import serving, tf

from tf_compemb.serving import client_command
from tf_compemb.serving.__main__ import main
from tf_compemb.serving.client import GrpcClient, RestClient, ServingError, predict
from tf_compemb.serving.client_rows import RawRow, parse_line, raw_inputs

LINES = [
    make_line("1", [5, -2, "", 7], ["68fd1e64", "", "abc"]),
    make_line("0", ["", 1], []),
    make_line("0", [9_000_000_000], ["é"] * 26),
]


def expected_logit(line: str) -> float:
    """The toy's logit: the integers' sum plus a hundredth of the categories' bytes."""
    fields = line.split("\t")[1:]
    integers, categories = fields[:13], fields[13:]
    size = sum(len(category.encode()) for category in categories)
    return sum(int(value) for value in integers if value) + size / 100


class ToyClicks(tf.Module):
    def __init__(self):
        super().__init__()
        self.one = tf.Variable(1.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 13), tf.string, name="integers"),
            tf.TensorSpec((None, 26), tf.string, name="categories"),
        ]
    )
    def raw(self, integers, categories):
        given = tf.where(tf.equal(integers, ""), "0", integers)
        numbers = tf.cast(tf.strings.to_number(given, tf.int64), tf.float32)
        sizes = tf.cast(tf.strings.length(categories), tf.float32)
        logit = self.one * (tf.reduce_sum(numbers, 1) + tf.reduce_sum(sizes, 1) / 100)[:, None]
        return {"logit": logit, "click_probability": tf.sigmoid(logit)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
    def sole(self, x):
        return {"only": self.one * x}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "clicks"
    toy = ToyClicks()
    signatures = {"raw": toy.raw, "serving_default": toy.sole}
    tf.saved_model.save(toy, base / "1", signatures=signatures)
    tf.saved_model.save(toy, base.with_name("no-raw") / "1", signatures=toy.sole)
    with serving(base, base.with_name("no-raw")) as running:
        yield running


@pytest.fixture(params=["grpc", "rest"])
def address(request, server):
    """The options that name the server, for each protocol."""
    if request.param == "grpc":
        return ["--grpc", server.grpc_address]
    return ["--rest", f"http://127.0.0.1:{server.rest_port}"]


@pytest.fixture
def client(address):
    opened = GrpcClient(address[1]) if address[0] == "--grpc" else RestClient(address[1])
    yield opened
    opened.close()


def run(*arguments) -> int:
    return main(["predict", *map(str, arguments)])


def rows_of(lines):
    return [parse_line(line.encode()) for line in lines]


# --- The client --------------------------------------------------------------------------------


def test_raw_rows_give_the_toy_s_numbers(client):
    outputs = predict(client, "clicks", raw_inputs(rows_of(LINES)), signature="raw")
    assert outputs["logit"].shape == (3, 1)
    expected = [expected_logit(line) for line in LINES]
    np.testing.assert_allclose(outputs["logit"].ravel(), expected, rtol=1e-6)
    first = 1 / (1 + math.exp(-expected[0]))
    assert outputs["click_probability"][0, 0] == pytest.approx(first, rel=1e-6)


def test_bytes_that_are_no_utf8_arrive_as_they_are(client):
    row = RawRow((b"1",) * 13, (b"\xff\xfe\xfd",) + (b"",) * 25)
    outputs = predict(client, "clicks", raw_inputs([row]), signature="raw")
    assert outputs["logit"][0, 0] == pytest.approx(13.03)


def test_types_survive_over_grpc_only(server):
    client = GrpcClient(server.grpc_address)
    answer = predict(client, "clicks", {"x": np.array([1.5], np.float32)}, version=1)
    assert answer["only"].dtype == np.float32
    client.close()
    client = RestClient(f"http://127.0.0.1:{server.rest_port}")
    answer = predict(client, "clicks", {"x": np.array([1.5], np.float32)}, version=1)
    assert answer["output"].tolist() == [1.5]  # REST leaves a sole output's name out.
    client.close()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "received None"),
        ([[None] * 2], "received None"),
        (
            [[10**30, 1]],
            "numbers of at most 64 bits, or else bytes or text; received an integer of",
        ),
        (np.array([[b"a", 1.5]], object), "received a value of type float"),
        (np.array([["\udc80"]], object), "received text with half a surrogate pair"),
        ([[1], [1, 2]], "lists at one level must have one length"),
    ],
)
def test_what_is_no_tensor_is_refused_before_it_is_sent(client, value, words):
    with pytest.raises(ServingError, match=words) as caught:
        client.request("clicks", {"x": value}, "serving_default", None)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert str(caught.value).startswith("Input 'x': ")


def test_strings_of_any_shape_are_sent_over_rest():
    client = RestClient("http://127.0.0.1:1")
    for strings, sent in [("a", "a"), ([["a", b"\xff"]], [["a", {"b64": "/w=="}]]), (b"", "")]:
        _, body = client.request("m", {"x": np.array(strings, object)}, "s", None)
        assert json.loads(body)["inputs"]["x"] == sent
    with pytest.raises(ServingError, match="complex128 has no form in JSON"):
        client.request("m", {"x": [1j]}, "s", None)


def test_state(client):
    assert client.state("clicks") == "AVAILABLE"


@pytest.mark.parametrize(
    ("model", "signature", "inputs", "codes", "words"),
    [
        ("nope", "raw", "good", {"NOT_FOUND"}, "nope"),
        ("clicks", "none", "good", {"FAILED_PRECONDITION", "INVALID_ARGUMENT"}, "none"),
        ("clicks", "raw", {}, {"INVALID_ARGUMENT"}, "integers|categories"),
    ],
)
def test_what_the_server_refuses(client, model, signature, inputs, codes, words):
    if inputs == "good":
        inputs = raw_inputs(rows_of(LINES))
    with pytest.raises(ServingError, match=words) as caught:
        predict(client, model, inputs, signature=signature)
    assert caught.value.code in codes
    assert str(caught.value).startswith(client.address)
    # A refused call does not spoil the next.
    assert client.state("clicks") == "AVAILABLE"


def test_an_unknown_version_is_not_found(client):
    with pytest.raises(ServingError) as caught:
        predict(client, "clicks", {"x": np.array([1.0])}, version=7)
    assert caught.value.code == "NOT_FOUND"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("kind", [GrpcClient, RestClient])
def test_nobody_there(kind):
    place = f"127.0.0.1:{closed_port()}"
    client = kind(place if kind is GrpcClient else f"http://{place}")
    with pytest.raises(ServingError, match=f"No server answers at .*{place}") as caught:
        client.state("clicks")
    assert caught.value.code == "UNREACHABLE"
    client.close()


@pytest.mark.parametrize("url", ["localhost:8501", "ftp://host", "http://", "http://h?x=1"])
def test_an_address_that_is_none(url):
    with pytest.raises(ValueError, match=re.escape("give http://HOST:PORT")):
        RestClient(url)


class Odd(http.server.BaseHTTPRequestHandler):
    """What proxies and old connections do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.calls += 1
        if "page" in self.path:
            self.answer(502, b"<html>Bad Gateway</html>")
        elif self.server.calls > 1 and "closes" in self.path:
            self.server.calls = -1  # The second call finds the connection closed.
            self.close_connection = True
        else:
            self.answer(200, b'{"model_version_status": [{"version": "1", "state": "END"}]}')

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def odd():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        server.calls = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield RestClient(f"http://127.0.0.1:{server.server_port}/proxy/")
        server.shutdown()


def test_an_answer_that_is_no_json_is_shown(odd):
    with pytest.raises(ServingError, match=r"answered 502: <html>Bad Gateway</html>"):
        odd.state("page")
    odd.close()


def test_a_connection_that_was_closed_is_opened_again(odd):
    assert odd.state("closes") == "END"
    assert odd.state("closes") == "END"
    odd.close()


# --- Lines -------------------------------------------------------------------------------------

texts = st.text(max_size=6).filter(lambda text: not set(text) & set("\t\r\n")).map(str.encode)
integers = st.integers(-(2**63), 2**63 - 1).map(lambda number: str(number).encode()) | st.just(b"")


@given(
    label=st.sampled_from([None, b"0", b"1", b""]),
    numbers=st.lists(integers, min_size=13, max_size=13),
    categories=st.lists(texts, min_size=26, max_size=26),
)
def test_a_line_is_what_it_was_made_of(label, numbers, categories):
    fields = [*([] if label is None else [label]), *numbers, *categories]
    row = parse_line(b"\t".join(fields))
    assert row.integers == tuple(numbers)
    assert row.categories == tuple(categories)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_row_or_a_sentence(text):
    with pytest.raises(ValueError, match="tab-separated fields instead of 39, or 40"):
        parse_line(text)


@pytest.mark.parametrize("value", [b"1.5", b"0x1f", b"9223372036854775808", b"-", b" ", b"+1"])
def test_integers_that_are_none(value):
    line = b"\t".join([b"1", b"2", value, *[b""] * 37])
    with pytest.raises(ValueError, match="field I2 must be a 64-bit integer or empty, but is"):
        parse_line(line)


# --- The program -------------------------------------------------------------------------------


def test_a_file_to_a_table(address, tmp_path, capsys):
    (tmp_path / "rows.txt").write_text("\n".join(LINES), encoding="utf-8")
    assert run(*address, "--model", "clicks", "--batch-size", 2, tmp_path / "rows.txt") == 0
    header, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert header == ["click_probability", "logit"]
    for (probability, logit), line in zip(rows, LINES, strict=True):
        assert float(logit) == pytest.approx(expected_logit(line), rel=1e-6)
        assert float(probability) == pytest.approx(1 / (1 + math.exp(-float(logit))), rel=1e-6)


def test_lines_without_a_label_and_compressed_to_json(address, tmp_path, capsys):
    without = [line.split("\t", 1)[1] for line in LINES]
    (tmp_path / "rows.gz").write_bytes(gzip.compress("\r\n".join(without).encode()))
    arguments = ["--model", "clicks", "--format", "jsonl", tmp_path / "rows.gz"]
    assert run(*address, *arguments) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [expected_logit(line) for line in LINES]
    assert [row["logit"] for row in rows] == pytest.approx(expected, rel=1e-6)


def test_both_protocols_print_the_same(server, tmp_path, capsys):
    (tmp_path / "rows.txt").write_text("\n".join(LINES), encoding="utf-8")
    printed = []
    for where in (
        ["--grpc", server.grpc_address],
        ["--rest", f"http://127.0.0.1:{server.rest_port}"],
    ):
        assert run(*where, "--model", "clicks", tmp_path / "rows.txt") == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


@pytest.mark.parametrize("wanted", [1 + 3 * 200, 2])
def test_standard_input_and_a_reader_that_leaves(server, wanted):
    command = [sys.executable, "-m", "tf_compemb.serving", "predict", "--model", "clicks"]
    command += ["--rest", f"http://127.0.0.1:{server.rest_port}", "--batch-size", "50"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as process:
        writer = threading.Thread(target=feed, args=(process.stdin, LINES * 200))
        writer.start()
        lines = [process.stdout.readline() for _ in range(wanted)]
        process.stdout.close()
        writer.join()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert lines[0] == b"click_probability\tlogit\n"
    assert float(lines[-1].split()[1]) == pytest.approx(expected_logit(LINES[(wanted - 2) % 3]))


def feed(pipe, lines):
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write("\n".join(lines).encode())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "clicks", "{missing}"], "missing.txt: there is no such file"),
        (["--model", "clicks", "{bad}"], "bad.txt:2: the line has 3 tab-separated fields"),
        (["--model", "nope", "{good}"], "nope"),
        (["--model", "no-raw", "{good}"], "Model no-raw has no signature raw"),
        (["--model", "clicks", "--version", "5", "{good}"], "5"),
    ],
)
def test_mistakes_are_one_sentence(address, arguments, words, tmp_path, capsys):
    paths = {name: tmp_path / f"{name}.txt" for name in ("missing", "bad", "good")}
    paths["bad"].write_text(f"{LINES[0]}\n1\t2\t3\n", encoding="utf-8")
    paths["good"].write_text(LINES[0], encoding="utf-8")
    assert run(*address, *(argument.format(**paths) for argument in arguments)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_a_server_that_is_not_there_is_one_sentence(tmp_path, capsys):
    (tmp_path / "good.txt").write_text(LINES[0], encoding="utf-8")
    for option in ("--grpc", "--rest"):
        place = f"127.0.0.1:{closed_port()}"
        where = place if option == "--grpc" else f"http://{place}"
        assert run(option, where, "--model", "clicks", tmp_path / "good.txt") == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        assert line.startswith("error: No server answers at")
        assert place in line


@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "-inf", "Infinity", "1e400"])
@pytest.mark.parametrize("column", ["I1", "I13"])
def test_dense_values_that_are_no_numbers_are_not_sent(address, value, column, tmp_path, capsys):
    values = [1] * 13
    values[int(column[1:]) - 1] = value
    lines = [LINES[0], make_line("0", values, ["a"])]
    (tmp_path / "rows.txt").write_text("\n".join(lines), encoding="utf-8")
    assert run(*address, "--model", "clicks", tmp_path / "rows.txt") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"rows.txt:2: field {column} must be a 64-bit integer or empty" in shown.err
    assert value in shown.err


def test_what_was_answered_before_a_mistake_stays(address, tmp_path, capsys):
    (tmp_path / "rows.txt").write_text(f"{LINES[0]}\n1\t2\n", encoding="utf-8")
    assert run(*address, "--model", "clicks", "--batch-size", 1, tmp_path / "rows.txt") == 2
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert "rows.txt:2: the line has 2" in shown.err


def test_an_empty_standard_input_is_one_sentence(address, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run(*address, "--model", "clicks") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: standard input: it is empty; give Criteo rows.\n"


def test_a_model_with_other_outputs_is_one_sentence(address, monkeypatch, capsys):
    monkeypatch.setattr(client_command, "_COLUMNS", ("click_probability", "score"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LINES[0].encode())))
    assert run(*address, "--model", "clicks") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "answers with click_probability, logit instead of click_probability and sc" in shown.err
