"""The local server answers as TensorFlow Serving 2.20 does, or as the guide's table says."""

import gzip
import json
import math
from pathlib import Path

import grpc
import numpy as np
import pytest
from serving_toys import predict_request, serving, tf, write_toy
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
)

from tf_compemb.serving.server import ServerOptions

PREDICT = "/v1/models/toy:predict"
ROW = b'{"instances": [[1]]}'
ONE = {"predictions": [[[1.0, 1.0]]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "toy"
    base.mkdir()
    write_toy(base / "3")
    return base


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder) as running:
        yield running


def half(*values):
    return {"signature_name": "half", "instances": list(values)}


FLOAT32 = [
    (16777217, 16777216),
    (-16777217, -16777216),
    (2**63 + 5, 2.0**63),
    (2**100, 2.0**100),
    (0.1, float(np.float32(0.1))),
    (3.4028235e38, float(np.float32(3.4028235e38))),
    (1e39, math.inf),
    (-1e300, -math.inf),
    (10**39, math.inf),
    (1e-50, 0),
    (2**1023, math.inf),
]


@pytest.mark.parametrize(("sent", "held"), FLOAT32, ids=[str(row[0])[:12] for row in FLOAT32])
def test_numbers_become_the_nearest_float32(server, sent, held):
    status, answer = server.rest("POST", PREDICT, half(sent))
    assert status == 200
    found = np.array(answer["predictions"], np.float32)
    assert found == np.float32(held) / np.float32(2) + np.float32(2)


TOO_BIG = [b"1e400", b"-1e400", b"1" + b"0" * 400, b"%d" % (2**1024 - 1), b"-%d" % 2**1024]


@pytest.mark.parametrize("number", TOO_BIG, ids=["e", "-e", "digits", "rounds up", "negative"])
def test_numbers_beyond_float64_are_refused(server, number):
    body = b'{"signature_name": "half", "instances": [1, %s]}' % number
    status, answer = server.rest("POST", PREDICT, body)
    assert status == 400
    assert "Number too big to be stored in double" in answer["error"]
    body = b'{"signature_name": "regress", "examples": [{"x": %s}]}' % number
    assert server.rest("POST", "/v1/models/toy:regress", body)[0] == 400


LENIENT = [
    ("text after the object", ROW + b" and more"),
    ("another object after it", ROW + b'{"instances": [[2]]}'),
    ("no UTF-8 after it", ROW + b"\xff\xfe"),
    ("byte order mark", b"\xef\xbb\xbf" + ROW),
    ("white space", b" \r\n\t" + ROW + b" \n"),
    ("repeated key", b'{"instances": [[1]], "instances": [[2]]}'),
    ("repeated signature", b'{"signature_name": "", "instances": [[1]], "signature_name": "half"}'),
    ("unknown key", b'{"instances": [[1]], "x": [[2]]}'),
]


@pytest.mark.parametrize("body", [row[1] for row in LENIENT], ids=[row[0] for row in LENIENT])
def test_json_that_is_taken(server, body):
    assert server.rest("POST", PREDICT, body) == (200, ONE)


def test_unknown_columns_are_ignored(server):
    one = (200, {"outputs": [[[1.0, 1.0]]]})
    assert server.rest("POST", PREDICT, {"inputs": {"ids": [[1]], "x": ["?"]}}) == one
    body = b'{"inputs": {"x": 1, "ids": [[1]], "ids": [[2]]}}'
    assert server.rest("POST", PREDICT, body) == one


STRICT = [
    ("unknown key in a row", {"instances": [{"ids": [1], "x": 1}]}, "keys must be equal: ids"),
    ("two byte order marks", b"\xef\xbb\xbf" * 2 + ROW, "JSON Parse error"),
    ("UTF-16", ROW.decode().encode("utf-16"), "JSON Parse error"),
    ("comment", b"// x\n" + ROW, "JSON Parse error"),
    ("comma at the end", b'{"instances": [[1,]]}', "JSON Parse error"),
    ("leading zero", b'{"instances": [[01]]}', "JSON Parse error"),
    ("leading plus", b'{"instances": [[+1]]}', "JSON Parse error"),
    ("single quotes", b"{'instances': [[1]]}", "JSON Parse error"),
    ("control character", b'{"x": "\n", "instances": [[1]]}', "JSON Parse error"),
    ("only white space", b"  \n", "JSON Parse error"),
    ("text before it", b"x" + ROW, "JSON Parse error"),
    ("object in a list", {"instances": [[{}]]}, "Type: Object is not of expected type: int64"),
    ("Null", {"inputs": None}, "Type: Null is not of expected type: int64"),
    ("1.0 for an integer", {"instances": [[1.0]]}, "1.0 Type: Number is not of expected type"),
    ("text for a number", half("1"), "Type: String is not of expected type: float"),
    ("true for a number", half(True), "Type: Bool is not of expected type: float"),
]


@pytest.mark.parametrize(
    ("body", "message"), [row[1:] for row in STRICT], ids=[row[0] for row in STRICT]
)
def test_json_that_is_refused(server, body, message):
    status, answer = server.rest("POST", PREDICT, body)
    assert message in answer["error"]
    assert status == 400


@pytest.mark.parametrize("encoded", ["/w==", "/w", " / w = =\n", "/w=\t="])
def test_base64_may_lack_padding_and_have_white_space(server, encoded):
    request = {"signature_name": "echo", "instances": [{"b64": encoded}]}
    status, answer = server.rest("POST", PREDICT, request)
    assert (status, answer["predictions"][0]["echo_bytes"]) == (200, {"b64": "/w=="})


@pytest.mark.parametrize("encoded", ["/", "/w=", "/w===", "_w==", "/w==/w==", "?"])
def test_other_base64_is_refused(server, encoded):
    request = {"signature_name": "echo", "instances": [{"b64": encoded}]}
    status, answer = server.rest("POST", PREDICT, request)
    assert status == 400
    assert "Unable to base64 decode" in answer["error"]


PATHS = [
    # method, target, status, a part of the message
    ("POST", "/V1/MODELS/toy:predict", 400, "Malformed request: POST /V1/MODELS/toy:predict"),
    ("POST", "/v1/Models/toy:predict", 400, "Malformed request"),
    ("POST", "/v1/models/toy:PREDICT", 400, "Malformed request"),
    ("POST", "/v1/models/toy:predict?x=1", 400, "Malformed request: POST /v1/models/toy:predict?"),
    ("POST", "/v1/models/toy:predict/", 400, "Malformed request"),
    ("POST", "/v1/models/toy/:predict", 400, "Malformed request"),
    ("POST", "/v1/models//toy:predict", 400, "Malformed request"),
    ("POST", "/v1/models/toy/versions/-3:predict", 400, "Malformed request"),
    ("POST", "/v1/models/toy/versions/3/labels/x:predict", 400, "Malformed request"),
    ("POST", "/v1/models/toy/labels/x/versions/3:predict", 400, "Malformed request"),
    ("POST", "/v1/models/toy", 400, "Malformed request"),
    ("GET", "/V1/MODELS/toy", 400, "Malformed request"),
    ("GET", "/v1/models/toy/", 400, "Malformed request"),
    ("GET", "/v1/models/", 400, "Malformed request"),
    ("GET", "/v1/models/toy/metadata?x=1", 400, "Malformed request"),
    ("GET", "/v1/models/toy/METADATA", 400, "Malformed request"),
    ("GET", "/v1/models", 400, "Missing model name in request."),
    ("GET", "/v1/models/versions/3", 400, "Missing model name in request."),
    ("GET", "/v1/models/toy?x=1", 404, "Could not find any versions of model toy?x=1"),
    ("GET", "/v1/models/metadata", 404, "Could not find any versions of model metadata"),
    ("GET", f"/v1/models/toy/versions/{2**63 - 1}", 404, f"Could not find version {2**63 - 1} of"),
    ("GET", f"/v1/models/toy/versions/{2**63}", 400, "to numeric"),
    ("GET", "/v1/models/toy/labels/x/metadata", 400, "Unrecognized servable version label: x"),
    ("GET", "//v1/models/toy", 404, "Not found"),
    ("GET", "/", 404, "Not found"),
]


@pytest.mark.parametrize(("method", "target", "status", "message"), PATHS)
def test_paths(server, method, target, status, message):
    got, answer = server.rest(method, target, ROW if method == "POST" else None)
    assert message in answer["error"]
    assert got == status


@pytest.mark.parametrize(
    "target", ["/v1/models/%74oy", "http://somewhere:1/v1/models/toy", "/v1/models/toy/versions/03"]
)
def test_paths_that_are_taken(server, target):
    status, answer = server.rest("GET", target)
    assert status == 200
    assert answer["model_version_status"][0]["version"] == "3"


def test_the_path_of_the_metrics_takes_no_query(server):
    path = "/monitoring/prometheus/metrics"
    assert server.rest("GET", path)[0] == 200
    status, text = server.rest("GET", f"{path}?x=1")
    assert (status, text) == (400, f"Unexpected path: {path}?x=1. Should be {path}")


def test_status_by_a_label_is_that_of_all_versions(server):
    status, answer = server.rest("GET", "/v1/models/toy/labels/nothing")
    assert status == 200
    assert [row["version"] for row in answer["model_version_status"]] == ["3"]
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version_label = "toy", "nothing"
    found = server.models.GetModelStatus(request).model_version_status
    assert [one.version for one in found] == [3]


GZIP = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
def test_gzip_requests(server, encoding):
    headers = {"Content-Encoding": encoding}
    body = gzip.compress(b'{"instances": [[1' + b" " * 3_000_000 + b"]]}")
    assert len(body) < 10_000
    assert server.rest("POST", PREDICT, body, headers=headers) == (200, ONE)
    assert server.rest("POST", PREDICT, ROW, headers={"Content-Encoding": "identity"})[0] == 200


COMPRESSED = gzip.compress(ROW)
DAMAGED = [
    ("no gzip", ROW),
    ("nothing", b""),
    ("cut", COMPRESSED[:-9]),
    ("wrong checksum", COMPRESSED[:-8] + b"\0\0\0\0" + COMPRESSED[-4:]),
    ("declares less", COMPRESSED[:-4] + (3).to_bytes(4, "little")),
    ("declares more", COMPRESSED[:-4] + (3000).to_bytes(4, "little")),
    ("two members", COMPRESSED + COMPRESSED),
]


@pytest.mark.parametrize("body", [row[1] for row in DAMAGED], ids=[row[0] for row in DAMAGED])
def test_gzip_that_is_damaged(server, body):
    status, answer = server.rest("POST", PREDICT, body, headers=GZIP)
    assert status in (400, 413)  # What is cut may end in a huge size.
    assert "gzip" in answer["error"]


def test_other_encodings_are_refused(server):
    status, answer = server.rest("POST", PREDICT, ROW, headers={"Content-Encoding": "br"})
    assert (status, answer["error"]) == (415, "Content-Encoding br is not taken; send gzip or none")


SHAPES = [
    # signature, request, a part of the message
    ("", {"instances": [1]}, "Input ids of signature serving_default takes shape [?, ?], where ? "
     "is any size; received [1]"),
    ("", {"inputs": [[[1]]]}, "Input ids of signature serving_default takes shape [?, ?], where ?"),
    ("half", {"inputs": 5}, "Input x of signature half takes shape [?], where ? is any size; "
     "received [] (a single value)"),
    ("two", {"instances": [{"a": 1, "b": [1, 2, 3]}]}, "Input b of signature two takes shape "
     "[?, 2], where ? is any size; received [1, 3]"),
    ("two", {"inputs": {"a": [[1]], "b": [[1, 2]]}}, "Input a of signature two takes shape [?]"),
]  # fmt: skip


@pytest.mark.parametrize(("signature", "request_", "message"), SHAPES)
def test_wrong_shapes_name_input_expected_and_received(server, signature, request_, message):
    status, answer = server.rest("POST", PREDICT, {"signature_name": signature, **request_})
    assert message in answer["error"]
    assert status == 400


def test_wrong_shapes_over_grpc(server):
    with pytest.raises(grpc.RpcError) as refused:
        server.predict(signature="half", x=np.float32(5))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Input x of signature half takes shape [?]" in refused.value.details()


def test_requests_of_23_megabytes(server):
    values = np.ones(6_000_000, np.float32)
    response = server.predict(signature="total", x=values)
    assert list(response.outputs["total"].float_val) == [6_000_000]


def test_more_values_than_the_shape_has(server):
    request = predict_request(ids=np.array([[1]]))
    request.inputs["ids"].int64_val[:] = [5, 6, 7]
    response = server.predictions.Predict(request)
    assert list(response.outputs["vectors"].float_val) == [5, 5]


def example(request, *tasks):
    """A request of one example, for one signature or for tasks of method and signature."""
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(1)
    for method, signature in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "toy", signature
    return request


EXAMPLES = [
    # method, signature, code, a part of the message
    ("Classify", "nope", "INVALID_ARGUMENT", "No signature was found with the name: nope"),
    ("Regress", "nope", "INVALID_ARGUMENT", "No signature was found with the name: nope"),
    ("Classify", "two", "INVALID_ARGUMENT", "Expected one input Tensor."),
    ("Regress", "two", "INVALID_ARGUMENT", "Expected one input Tensor."),
    ("Classify", "half", "FAILED_PRECONDITION", "No classification inputs found"),
    ("Regress", "half", "FAILED_PRECONDITION", "No regression inputs found"),
    ("Classify", "regress", "FAILED_PRECONDITION", "Expected classification signature outputs"),
    ("Regress", "classify", "INVALID_ARGUMENT", "Expected one output Tensor."),
]


@pytest.mark.parametrize(("method", "signature", "code", "message"), EXAMPLES)
def test_signatures_that_take_no_examples(server, method, signature, code, message):
    kinds = {
        "Classify": classification_pb2.ClassificationRequest,
        "Regress": regression_pb2.RegressionRequest,
    }
    request = example(kinds[method]())
    request.model_spec.name, request.model_spec.signature_name = "toy", signature
    with pytest.raises(grpc.RpcError) as refused:
        getattr(server.predictions, method)(request)
    assert message in refused.value.details()
    assert refused.value.code().name == code
    body = {"signature_name": signature, "examples": [{"x": 1.0}]}
    status, answer = server.rest("POST", f"/v1/models/toy:{method.lower()}", body)
    assert message in answer["error"]
    assert status == 400


TASKS = [
    ([], "INVALID_ARGUMENT", "no tasks"),
    ([("regress", "nope")], "INVALID_ARGUMENT", "No signature was found with the name: nope"),
    ([("regress", "regress")] * 2, "INVALID_ARGUMENT", "Duplicate evaluation of signature: regr"),
    ([("predict", "regress")], "UNIMPLEMENTED", "Unsupported signature method_name"),
]


@pytest.mark.parametrize(("tasks", "code", "message"), TASKS)
def test_multi_inference_refusals(server, tasks, code, message):
    request = example(inference_pb2.MultiInferenceRequest(), *tasks)
    with pytest.raises(grpc.RpcError, match=message) as refused:
        server.predictions.MultiInference(request)
    assert refused.value.code().name == code


FEATURES = [
    ({"x": [1.5]}, 200),
    ({"x": 1e39}, 200),
    ({"x": True}, 400),  # An int64 feature, which the model's parser refuses.
    ({"x": 1}, 400),
    ({"x": [1.5, 2]}, 400),
    ({"x": [1, 2.5]}, 400),
    ({"x": 2**63}, 400),
    ({"x": None}, 400),
    ({"x": [[1.5]]}, 400),
    ({}, 400),
]


@pytest.mark.parametrize(("features", "status"), FEATURES)
def test_features(server, features, status):
    body = {"signature_name": "regress", "examples": [features]}
    assert server.rest("POST", "/v1/models/toy:regress", body)[0] == status


def reload_of(folder, **model):
    request = model_management_pb2.ReloadConfigRequest()
    listed = request.config.model_config_list.config
    listed.add(name="toy", base_path=str(folder), model_platform="tensorflow")
    listed.add(base_path=str(folder), **model)
    return request


def test_reload_takes_a_model_without_a_name(server, folder):
    try:
        server.models.HandleReloadConfigRequest(reload_of(folder, name=""))
        assert server.states("") == {3: "AVAILABLE"}
        with pytest.raises(grpc.RpcError, match="ModelSpec has no name specified"):
            server.predict(model="", ids=np.array([[1]]))
    finally:
        request = reload_of(folder)
        del request.config.model_config_list.config[1]
        server.models.HandleReloadConfigRequest(request)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"model_platform": "caffe"}, "Model other requests unsupported platform caffe"),
        ({"model_platform": "TensorFlow"}, "requests unsupported platform TensorFlow"),
        ({"model_type": 2}, "model_type choice 2 not supported"),
        ({"model_type": 1, "model_platform": "tensorflow"}, "Illegal setting both"),
    ],
)
def test_reload_refuses_other_platforms(server, folder, model, message):
    with pytest.raises(grpc.RpcError, match=message) as refused:
        server.models.HandleReloadConfigRequest(reload_of(folder, name="other", **model))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert server.states() == {3: "AVAILABLE"}


def test_rest_answers_are_json_of_the_same_values_as_grpc(server):
    values = np.array([0.2, 1 / 3, 1e-30, 16777217, 1e39], np.float64)
    body = half(*values.tolist())
    status, answer = server.rest("POST", PREDICT, body)
    assert status == 200
    with np.errstate(over="ignore"):
        sent = values.astype(np.float32)
    found = tf.make_ndarray(server.predict(signature="half", x=sent).outputs["y"])
    assert np.array(json.loads(json.dumps(answer["predictions"])), np.float32).tolist() == (
        found.tolist()
    )


# What differs on purpose: the table in the guide.
DIFFERENCES = [
    ("Inf", b'{"signature_name": "half", "instances": [Inf]}', "JSON Parse error"),
    ("-NaN", b'{"signature_name": "half", "instances": [-NaN]}', "JSON Parse error"),
    ("no UTF-8", b'{"signature_name": "echo", "instances": ["\xff"]}', "JSON Parse error"),
    ("33 levels", b'{"inputs": ' + b"[" * 33 + b"1" + b"]" * 33 + b"}", "more than 32 levels"),
]


@pytest.mark.parametrize(
    ("body", "message"), [row[1:] for row in DIFFERENCES], ids=[row[0] for row in DIFFERENCES]
)
def test_what_is_refused_here(server, body, message):
    status, answer = server.rest("POST", PREDICT, body)
    assert message in answer["error"]
    assert status == 400


def test_the_first_of_a_repeated_key_counts_in_rows_and_examples_too(server):
    body = b'{"instances": [{"ids": [1], "ids": [2]}, {"ids": [3]}]}'
    status, answer = server.rest("POST", PREDICT, body)
    assert (status, answer["predictions"]) == (200, [[[1.0, 1.0]], [[3.0, 3.0]]])
    body = b'{"signature_name": "regress", "examples": [{"x": 1.0, "x": 4.0}]}'
    assert server.rest("POST", "/v1/models/toy:regress", body) == (200, {"results": [2.5]})


def test_the_guide_says_the_bounds():
    guide = (Path(__file__).parent.parent / "serving/README.md").read_text(encoding="utf-8")
    bound = ServerOptions().max_request_bytes
    assert f"| {bound >> 20} MiB decompressed (`--max-request-bytes`)" in guide
    assert f"have {ServerOptions().bytes_at_once >> 20} MiB together" in guide
    assert f"| {ServerOptions().max_requests} run or wait (`--max-requests`)" in guide
