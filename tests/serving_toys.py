"""Toy SavedModels, and the server program running on them."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
grpc = pytest.importorskip("grpc")

from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)


class Toy(tf.Module):
    """Row `i` of the table is `[i, scale * i]`."""

    def __init__(self, scale=1.0, rows=100):
        column = tf.range(float(rows))
        self.table = tf.Variable(tf.stack([column, scale * column], axis=1))

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int64, name="ids")])
    def look_up(self, ids):
        return {"vectors": tf.gather(self.table, ids)}

    @tf.function(
        input_signature=[
            tf.TensorSpec((None,), tf.int32, name="a"),
            tf.TensorSpec((None, 2), tf.float32, name="b"),
        ]
    )
    def two(self, a, b):
        return {
            "product": tf.cast(a, tf.float32) * tf.reduce_sum(b, axis=1),
            "doubled": 2 * a,
        }

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def echo(self, text):
        return {"echo": text, "echo_bytes": text}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
    def half(self, x):
        return {"y": x / 2 + 2}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")])
    def total(self, x):
        return {"total": tf.reduce_sum(x)}

    def _x(self, examples):
        feature = tf.io.FixedLenFeature([], tf.float32)
        return tf.io.parse_example(examples, {"x": feature})["x"]

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="inputs")])
    def classify(self, inputs):
        x = self._x(inputs)
        classes = tf.tile([["low", "high"]], [tf.size(x), 1])
        return {"classes": classes, "scores": tf.stack([1 - x, x], axis=1)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="inputs")])
    def regress(self, inputs):
        return {"outputs": self._x(inputs)[:, None] / 2 + 2}


def write_toy(version_folder, scale=1.0, warm_up=(), rows=100):
    """Saves a toy under a temporary name and renames it."""
    toy = Toy(scale, rows)
    temporary = Path(version_folder).with_name(f".{Path(version_folder).name}.tmp")
    signatures = {
        name: getattr(toy, name) for name in ("two", "echo", "half", "total", "classify", "regress")
    }
    tf.saved_model.save(toy, temporary, {"serving_default": toy.look_up, **signatures})
    if warm_up:
        records = temporary / "assets.extra" / "tf_serving_warmup_requests"
        records.parent.mkdir()
        with tf.io.TFRecordWriter(str(records)) as writer:
            for request in warm_up:
                log = prediction_log_pb2.PredictionLog()
                log.predict_log.request.CopyFrom(request)
                writer.write(log.SerializeToString())
    temporary.rename(version_folder)
    return version_folder


def copy_version(source, target):
    """Another version with the same content, complete from its first moment."""
    temporary = Path(target).with_name(f".{Path(target).name}.tmp")
    shutil.copytree(source, temporary)
    temporary.rename(target)


def predict_request(model="toy", signature="", version=None, label=None, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


class Running:
    """The server program."""

    def __init__(self, process, grpc_address, rest_port):
        self.process, self.rest_port = process, rest_port
        self.grpc_address = grpc_address
        self.channel = grpc.insecure_channel(grpc_address)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def rest(self, method, path, body=None, timeout=60, headers=()):
        """Status and body; the body is JSON unless it is bytes already."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=timeout)
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, content, dict(headers))
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if not answer.getheader("Content-Type").startswith("application/json"):
            return answer.status, text
        return answer.status, json.loads(text)

    def predict(self, **request):
        return self.predictions.Predict(predict_request(**request), timeout=60)

    def states(self, model="toy"):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        response = self.models.GetModelStatus(request, timeout=60)
        name = get_model_status_pb2.ModelVersionStatus.State.Name
        return {one.version: name(one.state) for one in response.model_version_status}

    def metadata(self, model="toy", field="signature_def"):
        request = get_model_metadata_pb2.GetModelMetadataRequest()
        request.model_spec.name = model
        request.metadata_field.append(field)
        return self.predictions.GetModelMetadata(request, timeout=60)

    def anonymous_kib(self):
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+)", text)[1])


def program(*arguments):
    return [sys.executable, "-m", "tf_compemb.serving", "serve", *map(str, arguments)]


@contextlib.contextmanager
def serving(*arguments):
    """Runs the program on free ports; it must end with status 0 and no trace."""
    process = subprocess.Popen(
        program("--grpc-port", 0, "--rest-port", 0, "--poll-seconds", 0.1, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As a user has it: the program itself keeps TensorFlow's log away.
        env={k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
    )
    logged = []
    reader = threading.Thread(target=lambda: logged.extend(process.stderr))
    reader.start()
    try:
        ready = process.stdout.readline()
        ports = re.fullmatch(r"gRPC on (127.0.0.1:\d+), REST on http://127.0.0.1:(\d+)\n", ready)
        assert ports, (ready, logged)
        running = Running(process, ports[1], int(ports[2]))
        running.log = logged
        yield running
        running.channel.close()
        assert process.poll() is None, logged
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        reader.join(10)
        assert "Traceback" not in "".join(logged)
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        process.stdout.close()
        process.stderr.close()
