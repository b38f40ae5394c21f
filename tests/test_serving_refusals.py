"""What an exported click model refuses reaches the client over both protocols, batched or not."""

import os

import numpy as np
import pytest
from serving_toys import grpc, predict_request, serving, tf

if os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true"):
    pytest.skip("the models need tf_keras (TF_USE_LEGACY_KERAS=1)", allow_module_level=True)

from tf_compemb.collection import EmbeddingCollection
from tf_compemb.export import saved_model
from tf_compemb.export.exporter import Source
from tf_compemb.models import DLRM
from tf_compemb.serving.client import GrpcClient, RestClient, ServingError, predict

NOT_FINITE = [np.nan, np.inf, -np.inf]


class HashedNumbering:
    """Stands for a prepared data set."""

    manifest = {"encoder": {"name": "hash"}, "cardinalities": [50] * 26}  # noqa: RUF012


@pytest.fixture(scope="module", params=[[], ["--max-batch-size", 64]], ids=["alone", "batched"])
def server(request, tmp_path_factory):
    embeddings = EmbeddingCollection({f"C{i}": 50 for i in range(1, 27)}, 4, "full")
    model = DLRM(embeddings, bottom_units=(8,), top_units=(8,))
    model.build_on_one_row()
    base = tmp_path_factory.mktemp("models") / "clicks"
    saved_model(model, base, source=Source(numbering=HashedNumbering()))
    with serving(base, *request.param) as running:
        yield running


@pytest.fixture(params=["grpc", "rest"])
def client(request, server):
    rest = RestClient(f"http://127.0.0.1:{server.rest_port}")
    opened = GrpcClient(server.grpc_address) if request.param == "grpc" else rest
    yield opened
    opened.close()


def features(value=0.5):
    dense = np.zeros((3, 13), "float32")
    dense[1, 12] = value
    return {"dense": dense, "categorical": np.zeros((3, 26), "int64")}


def raw(value="5"):
    integers = np.full((3, 13), "1", dtype=object)
    integers[2, 0] = value
    return {"integers": integers, "categories": np.full((3, 26), "x", dtype=object)}


@pytest.mark.parametrize("value", NOT_FINITE)
def test_dense_that_is_not_finite_is_refused_with_its_place(client, value):
    said = rf"dense must be finite numbers of float32; row 1, column 12 \(from 0\) is {value}"
    with pytest.raises(ServingError, match=said):
        predict(client, "clicks", features(value))
    assert np.isfinite(predict(client, "clicks", features())["logit"]).all()


@pytest.mark.parametrize("value", ["+5", "5\t", "\n5", "nan", "1" * 5000])
def test_integers_that_are_none_are_refused_with_their_place(client, value):
    said = r"integers must be 64-bit integers as text, or empty; row 2, column 0 \(from 0\) is `"
    with pytest.raises(ServingError, match=said):
        predict(client, "clicks", raw(value), signature="raw")
    assert np.isfinite(predict(client, "clicks", raw(), signature="raw")["logit"]).all()


@pytest.mark.parametrize("form", ["instances", "inputs"])
@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"-Infinity", b"1e39", b"-1e400"])
def test_rest_answers_400(server, text, form):
    dense = b"[%s]" % b",".join([b"0"] * 12 + [text])
    ids = b"[%s]" % b",".join([b"0"] * 26)
    row = b'{"dense": %s, "categorical": %s}' % (dense, ids)
    column = b'{"dense": [%s], "categorical": [%s]}' % (dense, ids)
    body = b'{"instances": [%s]}' % row if form == "instances" else b'{"inputs": %s}' % column
    status, answer = server.rest("POST", "/v1/models/clicks:predict", body)
    assert (status, list(answer)) == (400, ["error"])
    status, answer = server.rest("POST", "/v1/models/clicks:predict", body.replace(text, b"-2"))
    assert status == 200


@pytest.mark.parametrize("value", NOT_FINITE)
def test_grpc_answers_invalid_argument(server, value):
    for wanted in ([], ["logit"], ["click_probability"]):
        request = predict_request("clicks", **features(value))
        request.output_filter.extend(wanted)
        with pytest.raises(grpc.RpcError) as raised:
            server.predictions.Predict(request, timeout=60)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "row 1, column 12 (from 0)" in raised.value.details()
    values = server.predictions.Predict(predict_request("clicks", **features()), timeout=60)
    assert np.isfinite(tf.make_ndarray(values.outputs["logit"])).all()
