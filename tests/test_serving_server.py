"""The local server's API: a table of good and bad requests with TensorFlow Serving's answers."""

import json
import re

import grpc
import numpy as np
import pytest
from serving_toys import predict_request, serving, tf, write_toy
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("models") / "toy"
    base.mkdir()
    write_toy(base / "0003", warm_up=[predict_request(ids=np.array([[1]]))])
    return base


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder) as running:
        yield running


def int64(*shape, value=1):
    return np.full(shape, value, np.int64)


IDS = {"ids": np.array([[1, 2]])}
TWO = {"a": np.array([3], np.int32), "b": np.array([[1, 2]], np.float32)}

GRPC = [
    # what, request, code, a part of the message
    ("good", IDS, "OK", ""),
    ("no rows", {"ids": int64(0, 4)}, "OK", ""),
    ("version", {**IDS, "version": 3}, "OK", ""),
    ("signature", {**TWO, "signature": "two"}, "OK", ""),
    ("no model", {**IDS, "model": ""}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ("unknown model", {**IDS, "model": "x"}, "NOT_FOUND", "for request: Latest(x)"),
    ("unknown version", {**IDS, "version": 9}, "NOT_FOUND", "for request: Specific(toy, 9)"),
    ("negative version", {**IDS, "version": -1}, "NOT_FOUND", "for request: Specific(toy, -1)"),
    (
        "unknown label",
        {**IDS, "label": "canary"},
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: canary",
    ),
    (
        "unknown signature",
        {**IDS, "signature": "nope"},
        "FAILED_PRECONDITION",
        'Serving signature key "nope" not found.',
    ),
    (
        "wrong input",
        {"x": int64(1, 1)},
        "INVALID_ARGUMENT",
        "Signature input alias: ids(feed name: serving_default_ids:0) not found in request",
    ),
    ("no input", {}, "INVALID_ARGUMENT", "Missing but required: {ids}"),
    ("extra input", {**IDS, "x": int64(1)}, "INVALID_ARGUMENT", "Sent extra: {x}"),
    (
        "wrong dtype",
        {"ids": np.array([[1]], np.int32)},
        "INVALID_ARGUMENT",
        "Expects arg[0] to be int64 but int32 is provided",
    ),
    ("float ids", {"ids": np.array([[1.0]])}, "INVALID_ARGUMENT", "to be int64 but double"),
    ("wrong shape", {**TWO, "a": np.array([3, 4, 5], np.int32), "signature": "two",
                     "b": np.ones((2, 2), np.float32)}, "INVALID_ARGUMENT",
     "inputs of signature two have different numbers of rows: a 3, b 2"),
    ("id too large", {"ids": int64(1, 1, value=100)}, "INVALID_ARGUMENT",
     "indices[0,0] = 100 is not in [0, 100)"),
    ("negative id", {"ids": int64(1, 1, value=-1)}, "INVALID_ARGUMENT", "= -1 is not in"),
    ("int64's bounds", {"ids": int64(1, 1, value=-(2**63))}, "INVALID_ARGUMENT", "is not in"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "code", "message"), [row[1:] for row in GRPC], ids=[row[0] for row in GRPC]
)
def test_grpc_predict(server, request_, code, message):
    if code == "OK":
        assert server.predict(**request_).model_spec.version.value == 3
        return
    with pytest.raises(grpc.RpcError) as refused:
        server.predict(**request_)
    assert refused.value.code().name == code
    assert message in refused.value.details()


def test_grpc_predict_values(server):
    response = server.predict(ids=np.array([[5, 99], [0, 1]]))
    values = tf.make_ndarray(response.outputs["vectors"])
    np.testing.assert_array_equal(
        values, np.array([[[5, 5], [99, 99]], [[0, 0], [1, 1]]], np.float32)
    )
    assert (response.model_spec.name, response.model_spec.signature_name) == (
        "toy",
        "serving_default",
    )
    # Clients read the typed field, as they do with TensorFlow Serving.
    assert list(response.outputs["vectors"].float_val) == [5, 5, 99, 99, 0, 0, 1, 1]


def test_grpc_output_filter(server):
    request = predict_request(signature="two", **TWO)
    request.output_filter.append("product")
    response = server.predictions.Predict(request)
    assert {k: list(v.float_val) for k, v in response.outputs.items()} == {"product": [9.0]}
    for names, message in [(["x"], "not found in signature: x"), (["product"] * 2, "duplicate")]:
        del request.output_filter[:]
        request.output_filter.extend(names)
        with pytest.raises(grpc.RpcError, match=message):
            server.predictions.Predict(request)


REST_GOOD = [
    # what, path after the model's name, request, response
    ("row", "", {"instances": [[1, 2]]}, {"predictions": [[[1.0, 1.0], [2.0, 2.0]]]}),
    ("column", "", {"inputs": [[3]]}, {"outputs": [[[3.0, 3.0]]]}),
    ("named row", "", {"instances": [{"ids": [4]}]}, {"predictions": [[[4.0, 4.0]]]}),
    ("named column", "", {"inputs": {"ids": [[4]]}}, {"outputs": [[[4.0, 4.0]]]}),
    ("version", "/versions/3", {"instances": [[1]]}, {"predictions": [[[1.0, 1.0]]]}),
    ("version, zeros", "/versions/0003", {"instances": [[1]]}, {"predictions": [[[1.0, 1.0]]]}),
    (
        "two outputs, row",
        "",
        {"signature_name": "two", "instances": [{"a": 1, "b": [1, 0.5]}, {"a": 2, "b": [0, 1]}]},
        {"predictions": [{"doubled": 2, "product": 1.5}, {"doubled": 4, "product": 2.0}]},
    ),
    (
        "two outputs, column",
        "",
        {"signature_name": "two", "inputs": {"a": [1, 2], "b": [[1, 0.5], [0, 1]]}},
        {"outputs": {"doubled": [2, 4], "product": [1.5, 2.0]}},
    ),
    (
        "strings and b64",
        "",
        {"signature_name": "echo", "instances": ["a", {"b64": "/w=="}, "é"]},
        {
            "predictions": [
                {"echo": "a", "echo_bytes": {"b64": "YQ=="}},
                {"echo": {"b64": "/w=="}, "echo_bytes": {"b64": "/w=="}},
                {"echo": "é", "echo_bytes": {"b64": "w6k="}},
            ]
        },
    ),
    (
        "shortest decimals",
        "",
        {"signature_name": "half", "instances": [0.2]},
        {"predictions": [2.1]},
    ),
    ("no row axis", "", {"signature_name": "total", "inputs": [1, 2]}, {"outputs": 3.0}),
]


@pytest.mark.parametrize(
    ("path", "request_", "response"),
    [row[1:] for row in REST_GOOD],
    ids=[row[0] for row in REST_GOOD],
)
def test_rest_predict(server, path, request_, response):
    assert server.rest("POST", f"/v1/models/toy{path}:predict", request_) == (200, response)


def test_rest_nan_and_infinity_are_bare_tokens(server):
    body = b'{"signature_name": "half", "instances": [NaN, Infinity, -Infinity]}'
    status, answer = server.rest("POST", "/v1/models/toy:predict", body)
    assert status == 200
    assert json.dumps(answer) == '{"predictions": [NaN, Infinity, -Infinity]}'


ROW = {"instances": [[1]]}
ECHO = {"signature_name": "echo"}
TWO_ = {"signature_name": "two"}
PREDICT = "/v1/models/toy:predict"
REST_BAD = [
    # what, method, path, request, status, a part of the message
    ("unknown model", "POST", "/v1/models/x:predict", ROW, 404, "Latest(x)"),
    ("unknown version", "POST", "/v1/models/toy/versions/9:predict", ROW, 404, "Specific(toy, 9)"),
    ("huge version", "POST", f"/v1/models/toy/versions/{10**30}:predict", ROW, 400, "to numeric"),
    ("unknown label", "POST", "/v1/models/toy/labels/x:predict", ROW, 400, "version label: x"),
    ("unknown verb", "POST", "/v1/models/toy:explain", ROW, 400, "Malformed request: POST"),
    ("wrong method", "GET", PREDICT, None, 400, "Malformed request: GET"),
    ("wrong method", "PUT", PREDICT, ROW, 400, "Malformed request: PUT"),
    ("no such path", "GET", "/healthz", None, 404, "Not found"),
    ("unknown model", "GET", "/v1/models/x", None, 404, "Could not find any versions of model x"),
    ("unknown version", "GET", "/v1/models/toy/versions/9", None, 404, "Could not find version 9"),
    ("unknown model", "GET", "/v1/models/x/metadata", None, 404, "Latest(x)"),
    (
        "unknown signature", "POST", PREDICT, {**ROW, "signature_name": "nope"}, 400,
        'Serving signature name: "nope" not found in signature def',
    ),
    ("signature no text", "POST", PREDICT, {**ROW, "signature_name": 1}, 400, "must be a string"),
    ("empty", "POST", PREDICT, b"", 400, "The document is empty"),
    ("no JSON", "POST", PREDICT, b"{", 400, "JSON Parse error"),
    ("no UTF-8", "POST", PREDICT, b'{"\xff": 1}', 400, "JSON Parse error"),
    ("too deep", "POST", PREDICT, b'{"instances":' + b"[" * 200_000, 400, "nested too deeply"),
    ("deep", "POST", PREDICT, b'{"instances":' + b"[" * 60 + b"]" * 60 + b"}", 400, "32 levels"),
    ("list", "POST", PREDICT, [1], 400, "not a JSON object but Array"),
    ("neither", "POST", PREDICT, {}, 400, "exactly one of 'instances' and 'inputs'"),
    ("both", "POST", PREDICT, {**ROW, "inputs": [[1]]}, 400, "exactly one of"),
    ("no list", "POST", PREDICT, {"instances": 1}, 400, "'instances' to be a list"),
    ("no rows", "POST", PREDICT, {"instances": []}, 400, "at least one element"),
    ("ragged", "POST", PREDICT, {"instances": [[1], [1, 2]]}, 400, "different lengths"),
    ("uneven depth", "POST", PREDICT, {"instances": [1, [2]]}, 400, "list at unexpected level"),
    ("missing", "POST", PREDICT, {"inputs": {}}, 400, "Missing named input: ids in 'inputs'"),
    ("missing in row", "POST", PREDICT, {"instances": [{"x": 1}]}, 400, "keys must be equal: ids"),
    ("unnamed, two inputs", "POST", PREDICT, {**TWO_, "instances": [1]}, 400, "with 2 inputs"),
    ("fraction", "POST", PREDICT, {"instances": [[0.5]]}, 400, "0.5 Type: Number is not of exp"),
    ("text", "POST", PREDICT, {"instances": [["1"]]}, 400, "Type: String is not of expected type"),
    ("true", "POST", PREDICT, {"instances": [[True]]}, 400, "Type: Bool is not of expected type"),
    ("null", "POST", PREDICT, {"instances": [[None]]}, 400, "Type: Null is not of expected type"),
    ("NaN id", "POST", PREDICT, b'{"instances": [[NaN]]}', 400, "is not of expected type: int64"),
    ("beyond int64", "POST", PREDICT, {"instances": [[2**63]]}, 400, "is not int64"),
    ("digits", "POST", PREDICT, b'{"instances": [[' + b"9" * 9999 + b"]]}", 400, "Parse error"),
    ("out of range", "POST", PREDICT, {"instances": [[100]]}, 400, "= 100 is not in [0, 100)"),
    ("negative", "POST", PREDICT, {"instances": [[-1]]}, 400, "= -1 is not in [0, 100)"),
    ("number as text", "POST", PREDICT, {**ECHO, "instances": [1]}, 400, "expected type: string"),
    (
        "rows that differ", "POST", PREDICT,
        {"signature_name": "two", "inputs": {"a": [1, 2, 3], "b": [[1, 0.5], [2, 1]]}}, 400,
        "The inputs of signature two have different numbers of rows: a 3, b 2",
    ),
    ("bad b64", "POST", PREDICT, {**ECHO, "instances": [{"b64": "?"}]}, 400, "base64 decode"),
    ("half a pair", "POST", PREDICT, {**ECHO, "instances": ["\ud800"]}, 400, "no Unicode"),
    (
        "no row axis", "POST", PREDICT, {"signature_name": "total", "instances": [1.0]}, 400,
        "Tensor name: total has no shape information",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "request_", "status", "message"),
    [row[1:] for row in REST_BAD],
    ids=[row[0] for row in REST_BAD],
)
def test_rest_refusals(server, method, path, request_, status, message):
    got, answer = server.rest(method, path, request_)
    assert list(answer) == ["error"]
    assert message in answer["error"]
    assert got == status


def test_status(server):
    assert server.states() == {3: "AVAILABLE"}
    status = {"error_code": "OK", "error_message": ""}
    expected = {"model_version_status": [{"version": "3", "state": "AVAILABLE", "status": status}]}
    for path in ("", "/versions/3"):
        assert server.rest("GET", f"/v1/models/toy{path}") == (200, expected)
    with pytest.raises(grpc.RpcError, match="Could not find any versions of model x"):
        server.states("x")
    with pytest.raises(grpc.RpcError, match="Missing ModelSpec"):
        server.models.GetModelStatus(get_model_status_pb2.GetModelStatusRequest())


def test_metadata(server):
    response = server.metadata()
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    ids = signatures.signature_def["serving_default"].inputs["ids"]
    assert (ids.name, ids.dtype) == ("serving_default_ids:0", tf.int64.as_datatype_enum)
    status, answer = server.rest("GET", "/v1/models/toy/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "toy", "signature_name": "", "version": "3"}
    in_rest = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert in_rest["inputs"]["ids"]["dtype"] == "DT_INT64"
    assert in_rest["method_name"] == "tensorflow/serving/predict"
    with pytest.raises(grpc.RpcError, match="Metadata field x is not supported"):
        server.metadata(field="x")


def fill(request, signature, values):
    request.model_spec.name, request.model_spec.signature_name = "toy", signature
    for value in values:
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(value)
    return request


def test_grpc_classify_and_regress(server):
    request = fill(classification_pb2.ClassificationRequest(), "classify", [0.25, 1])
    rows = server.predictions.Classify(request).result.classifications
    found = [[(one.label, one.score) for one in row.classes] for row in rows]
    assert found == [[("low", 0.75), ("high", 0.25)], [("low", 0.0), ("high", 1.0)]]
    request = fill(regression_pb2.RegressionRequest(), "regress", [1, 2])
    regressions = server.predictions.Regress(request).result.regressions
    assert [one.value for one in regressions] == [2.5, 3.0]


@pytest.mark.parametrize(
    ("signature", "values", "message"),
    [
        ("classify", [], "Input is empty"),
        ("two", [1], "Expected one input Tensor."),
    ],
)
def test_grpc_classify_refusals(server, signature, values, message):
    request = fill(classification_pb2.ClassificationRequest(), signature, values)
    with pytest.raises(grpc.RpcError, match=message) as refused:
        server.predictions.Classify(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_multi_inference(server):
    request = inference_pb2.MultiInferenceRequest()
    for kind in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{kind}")
        task.model_spec.name, task.model_spec.signature_name = "toy", kind
    example = request.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(1)
    first, second = server.predictions.MultiInference(request).results
    assert [one.score for one in first.classification_result.classifications[0].classes] == [0, 1]
    assert second.regression_result.regressions[0].value == 2.5
    request.tasks[0].method_name = "tensorflow/serving/predict"
    with pytest.raises(grpc.RpcError, match="Unsupported signature method_name"):
        server.predictions.MultiInference(request)


def test_rest_classify_and_regress(server):
    request = {"signature_name": "regress", "examples": [{"x": 1.0}, {"x": [2.0]}]}
    answer = server.rest("POST", "/v1/models/toy:regress", request)
    assert answer == (200, {"results": [2.5, 3.0]})
    request = {"signature_name": "classify", "context": {"x": 0.25}, "examples": [{}, {"x": 1.0}]}
    status, answer = server.rest("POST", "/v1/models/toy:classify", request)
    assert status == 200
    assert answer["results"][0] == [["low", 0.75], ["high", 0.25]]
    for wrong in ({}, {"examples": []}, {"examples": [1]}, {"examples": [{"x": [1, "a"]}]}):
        body = {"signature_name": "classify", **wrong}
        assert server.rest("POST", "/v1/models/toy:classify", body)[0] == 400


def test_metrics(server):
    server.rest("POST", PREDICT, ROW)
    server.rest("POST", "/v1/models/invented:predict", ROW)
    status, text = server.rest("GET", "/monitoring/prometheus/metrics")
    assert status == 200
    assert ':tensorflow:serving:request_count{model_name="toy",status="OK"} ' in text
    assert ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"} ' in text
    assert "invented" not in text
    latency = ':tensorflow:serving:request_latency_count{model_name="toy",API="predict",'
    assert latency + 'entrypoint="REST"} ' in text
    assert ":tensorflow:serving:model_warmup_latency_count{" in text


def test_reload_replaces_the_list(server, folder):
    request = model_management_pb2.ReloadConfigRequest()
    listed = request.config.model_config_list.config
    listed.add(name="toy", base_path=str(folder))
    listed.add(name="again", base_path=str(folder)).version_labels["stable"] = 3
    assert server.models.HandleReloadConfigRequest(request).status.error_code == 0
    assert server.predict(model="again", label="stable", **IDS).model_spec.version.value == 3
    path = "/v1/models/again/labels/stable:predict"
    assert server.rest("POST", path, ROW)[0] == 200
    del listed[1]
    server.models.HandleReloadConfigRequest(request)
    with pytest.raises(grpc.RpcError, match=r"Latest\(again\)"):
        server.predict(model="again", **IDS)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([("toy", "relative")], "to have an absolute path"),
        ([("toy", "/nowhere")], "Could not find base path /nowhere for servable toy"),
        ([("toy", None), ("toy", None)], "Illegal to list model toy multiple times"),
    ],
)
def test_reload_refusals(server, folder, models, message):
    request = model_management_pb2.ReloadConfigRequest()
    for name, path in models:
        request.config.model_config_list.config.add(name=name, base_path=path or str(folder))
    with pytest.raises(grpc.RpcError, match=message) as refused:
        server.models.HandleReloadConfigRequest(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert server.states() == {3: "AVAILABLE"}


def test_no_line_for_a_request(server):
    server.rest("POST", PREDICT, ROW)
    server.rest("POST", PREDICT, {"instances": [[100]]})
    # What it is, and "loaded" for each load: the warm-up record is read without a word too.
    first, *loaded = server.log
    assert first.startswith("tf-compemb serving: Serves SavedModels")
    assert all(re.fullmatch(r"..:..:.. (un)?loaded \w+ version 3.*\n", line) for line in loaded)
