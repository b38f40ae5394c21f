"""The C++ loader behind `NativeSession`, against models that `tf.Module` saved."""

import os
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_compemb._tensorflow_c import string_tensor_proto
from tf_compemb.native_session import NativeError, NativeSession

tf = pytest.importorskip("tensorflow")

DTYPES = [
    *(tf.float16, tf.float32, tf.float64, tf.bfloat16, tf.complex64, tf.complex128, tf.bool),
    *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
    *(tf.dtypes.experimental.float8_e5m2, tf.dtypes.experimental.float8_e4m3fn),
]


class Table(tf.Module):
    def __init__(self, rows=100, width=2):
        self.table = tf.Variable(tf.reshape(tf.range(float(rows * width)), (rows, width)))

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int64, name="ids")])
    def look_up(self, ids):
        return {"vectors": tf.gather(self.table, ids), "shape": tf.shape(ids)}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def repeat(self, text):
        return {"same": text, "twice": text + text, "size": tf.strings.length(text)}


def identity(dtype):
    spec = tf.TensorSpec(None, dtype, name="x")
    return tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[spec])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("table")
    table = Table()
    signatures = {"serving_default": table.look_up, "text": table.repeat}
    tf.saved_model.save(table, path, signatures=signatures)
    return path


@pytest.fixture(scope="module")
def session(model):
    with NativeSession(model, intra_op_threads=1, inter_op_threads=1) as session:
        yield session


def test_signatures(session):
    assert sorted(session.signatures) == ["serving_default", "text"]
    signature = session.signatures["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    ids, vectors = signature.inputs["ids"], signature.outputs["vectors"]
    assert (ids.name, ids.dtype, ids.shape) == ("serving_default_ids:0", "int64", (None, None))
    assert (vectors.dtype, vectors.shape) == ("float32", (None, None, 2))
    assert session.signatures["text"].inputs["text"].dtype == "string"


def test_serialized_signatures_are_tensorflows(session):
    from tensorflow.core.protobuf import meta_graph_pb2

    assert "__saved_model_init_op" in session.serialized_signatures
    definition = meta_graph_pb2.SignatureDef.FromString(
        session.serialized_signatures["serving_default"]
    )
    assert definition.inputs["ids"].dtype == tf.int64.as_datatype_enum
    assert [axis.size for axis in definition.outputs["vectors"].tensor_shape.dim] == [-1, -1, 2]


def test_lookup(session):
    got = session.run("serving_default", {"ids": np.array([[0, 99]])})
    assert got["vectors"].tolist() == [[[0.0, 1.0], [198.0, 199.0]]]
    assert got["vectors"].dtype == np.float32
    assert got["shape"].tolist() == [1, 2]


def test_chosen_outputs_lists_and_no_rows(session):
    assert list(session.run("serving_default", {"ids": [[5]]}, ["shape"])) == ["shape"]
    got = session.run("serving_default", {"ids": np.zeros((0, 3), np.int64)})
    assert got["vectors"].shape == (0, 3, 2)


@pytest.mark.parametrize(
    ("signature", "inputs", "code", "message"),
    [
        ("nope", {}, "FAILED_PRECONDITION", 'Serving signature key "nope" not found.'),
        ("serving_default", {}, "INVALID_ARGUMENT", "missing inputs: ids"),
        ("serving_default", {"ids": [[1]], "x": 1}, "INVALID_ARGUMENT", "unknown inputs: x"),
        ("serving_default", {"ids": [["a"]]}, "INVALID_ARGUMENT", "Input 'ids' is not int64"),
        ("serving_default", {"ids": [[1], [1, 2]]}, "INVALID_ARGUMENT", "Input 'ids' is not"),
        ("serving_default", {"ids": [[2**70]]}, "INVALID_ARGUMENT", "Input 'ids' is not int64"),
        (
            "serving_default",
            {"ids": np.zeros((1, 1), np.int32)},
            "INVALID_ARGUMENT",
            "Expects arg[0] to be int64 but int32 is provided",
        ),
        (
            "serving_default",
            {"ids": np.zeros((1, 1), "datetime64[s]")},
            "INVALID_ARGUMENT",
            "TensorFlow has no dtype for NumPy's datetime64[s]",
        ),
        ("serving_default", {"ids": [[0, 100]]}, "INVALID_ARGUMENT", "= 100 is not in [0, 100)"),
        ("serving_default", {"ids": [[-1]]}, "INVALID_ARGUMENT", "= -1 is not in [0, 100)"),
        ("text", {"text": np.array([1.5], object)}, "INVALID_ARGUMENT", "of type float"),
    ],
)
def test_refusals(session, signature, inputs, code, message):
    with pytest.raises(NativeError) as refused:
        session.run(signature, inputs)
    assert refused.value.code_name == code
    assert message in refused.value.message


def test_unknown_output(session):
    with pytest.raises(NativeError, match="unknown outputs: nope"):
        session.run("serving_default", {"ids": [[1]]}, ["nope"])


def test_no_model(tmp_path):
    with pytest.raises(NativeError, match="NOT_FOUND: Could not find SavedModel") as refused:
        NativeSession(tmp_path)
    assert refused.value.code == 5


def test_no_such_tags(model):
    with pytest.raises(NativeError, match=r"NOT_FOUND.*gpu"):
        NativeSession(model, tags=("serve", "gpu"))


def test_damaged_model(model, tmp_path):
    content = (model / "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(content[: len(content) // 2])
    with pytest.raises(NativeError):
        NativeSession(tmp_path)


def test_strings(session):
    long = b"longer than the 22 bytes that need no allocation" * 50
    text = [b"", b"a", b"\xff\x00\x01", "é", b"22 bytes 1234567890123", long]
    got = session.run("text", {"text": np.array(text, object)})
    expected = [value.encode() if isinstance(value, str) else value for value in text]
    assert got["same"].tolist() == expected
    assert got["twice"].tolist() == [value * 2 for value in expected]
    assert got["size"].tolist() == [0, 1, 3, 2, 22, 2400]


def test_numpy_text_arrays(session):
    assert session.run("text", {"text": np.array(["a", "bcd"])})["same"].tolist() == [b"a", b"bcd"]
    assert session.run("text", {"text": ["x"]})["same"].tolist() == [b"x"]


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.binary(max_size=300), max_size=8))
def test_string_tensors_are_tensorflows(values):
    from tensorflow.core.framework import tensor_pb2

    for shape in [(len(values),), (1, len(values)), (len(values), 1, 1)]:
        array = np.array([*values, None], object)[:-1].reshape(shape)
        parsed = tensor_pb2.TensorProto.FromString(string_tensor_proto(array))
        assert list(parsed.string_val) == values
        assert [axis.size for axis in parsed.tensor_shape.dim] == list(shape)


def test_every_dtype(tmp_path):
    functions = {dtype.name: identity(dtype) for dtype in DTYPES}
    tf.saved_model.save(tf.Module(), tmp_path, signatures=functions)
    with NativeSession(tmp_path) as session:
        for dtype in DTYPES:
            info = session.signatures[dtype.name].inputs["x"]
            assert (info.dtype, info.numpy_dtype) == (dtype.name, dtype.as_numpy_dtype)
            assert info.shape is None
            for values in ([[1, 0], [1, 1]], 1, []):
                array = np.array(values).astype(dtype.as_numpy_dtype)
                got = session.run(dtype.name, {"x": array})["y"]
                assert got.dtype == array.dtype
                np.testing.assert_array_equal(got, array)


def test_bfloat16_is_not_taken_for_uint16(tmp_path):
    tf.saved_model.save(tf.Module(), tmp_path, signatures={"bf": identity(tf.bfloat16)})
    with NativeSession(tmp_path) as session:
        assert session.run("bf", {"x": [1.5]})["y"].tolist() == [ml_dtypes.bfloat16(1.5)]
        with pytest.raises(NativeError, match=r"Expects arg.* to be bfloat16 but uint16"):
            session.run("bf", {"x": np.array([1], np.uint16)})


def test_string_table_from_an_asset(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("red\ngreen\n")

    class Words(tf.Module):
        def __init__(self):
            initializer = tf.lookup.TextFileInitializer(
                *(str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
                *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
            )
            self.table = tf.lookup.StaticHashTable(initializer, -1)

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="word")])
        def number(self, word):
            return {"number": self.table.lookup(word)}

    module = Words()
    tf.saved_model.save(module, tmp_path / "1", signatures={"serving_default": module.number})
    words.unlink()
    with NativeSession(tmp_path / "1") as session:
        got = session.run("serving_default", {"word": [b"green", b"blue", b"red"]})
        assert got["number"].tolist() == [1, -1, 0]


def test_runs_from_many_threads(session):
    def check(first):
        for row in range(first, 100, 8):
            vectors = session.run("serving_default", {"ids": [[row]]})["vectors"]
            results.append(vectors.tolist() == [[[2.0 * row, 2.0 * row + 1]]])

    results: list[bool] = []
    threads = [threading.Thread(target=check, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 100
    assert all(results)


def test_close_waits_for_the_runs_that_have_begun(model):
    session = NativeSession(model)
    good, closed = [], []

    def run():
        while True:
            try:
                session.run("serving_default", {"ids": np.zeros((64, 64), np.int64)})
                good.append(1)
            except NativeError as error:
                closed.append(str(error))
                return

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(good) < 20:
        pass
    session.close()
    session.close()
    for thread in threads:
        thread.join()
    assert closed == [f"FAILED_PRECONDITION: The session of {model} is closed"] * 4


def test_memory_comes_and_goes_in_a_process_without_tensorflow_imported(tmp_path):
    rows, width = 250_000, 16
    table = Table(rows, width)
    tf.saved_model.save(table, tmp_path, signatures={"serving_default": table.look_up})
    script = """
import sys
from tf_compemb.native_session import NativeSession

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

NativeSession(sys.argv[1]).close()
before = resident()
session = NativeSession(sys.argv[1])
vectors = session.run("serving_default", {"ids": [[1, 249_999]]})["vectors"]
loaded = resident()
session.close()
print(vectors[0, :, 0].tolist(), loaded - before, resident() - before, "tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        # The allocators give freed tables back only so: oneDNN's pool keeps all, glibc's heap some.
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "MALLOC_MMAP_THRESHOLD_": "131072"},
        capture_output=True,
        text=True,
        check=True,
    )
    vectors, kept = done.stdout.split("]")[0], done.stdout.split("]")[1].split()
    assert vectors == "[16.0, 3999984.0"
    table_kib = rows * width * 4 / 1024
    assert 0.95 * table_kib < int(kept[0]) < 1.1 * table_kib
    assert int(kept[1]) < 0.1 * table_kib
    assert kept[2] == "False"


def test_the_library_leaves_other_libraries_their_symbols():
    script = """
from tf_compemb._tensorflow_c import library
library()
import hashlib, tensorflow
print(hashlib.sha256(b"").hexdigest()[:8], int(tensorflow.constant(3)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "e3b0c442 3\n"), done.stderr
