"""Tensors in JSON, without a server: every dtype, and the rows of an answer."""

import json

import numpy as np
import pytest
from serving_toys import tf

from tf_compemb.native_session import NativeError, Signature, TensorInfo
from tf_compemb.serving.json_requests import parse_object
from tf_compemb.serving.json_tensors import arrays_of, response_body


def one_input(dtype):
    info = TensorInfo("x:0", dtype.name, dtype.as_datatype_enum, (None,))
    return Signature({"x": info}, {}, "tensorflow/serving/predict")


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        *((tf.int8, 128), (tf.int8, -129), (tf.uint8, 256), (tf.uint8, -1), (tf.int16, 2**15)),
        *((tf.uint16, 2**16), (tf.int32, 2**31), (tf.uint32, -1), (tf.uint64, 2**64)),
        *((tf.int64, 2**63), (tf.int64, -(2**63) - 1), (tf.int64, 10**300)),
    ],
)
def test_integers_that_a_dtype_cannot_hold_are_refused(dtype, number):
    with pytest.raises(NativeError, match=f"Input x is not {dtype.name}: ") as refused:
        arrays_of({"instances": [number]}, one_input(dtype))
    assert refused.value.code_name == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("dtype", "numbers", "wrong"),
    [
        (tf.int64, [1, 2**63], 2**63),
        (tf.uint8, [7, -1], -1),
        (tf.int32, [-(2**31) - 1], -(2**31) - 1),
    ],
)
def test_a_refusal_names_the_number(dtype, numbers, wrong):
    with pytest.raises(NativeError) as refused:
        arrays_of({"instances": numbers}, one_input(dtype))
    assert refused.value.message == f"Input x is not {dtype.name}: {wrong} is out of range"


def test_an_integer_of_thousands_of_digits_is_a_number_too_big():
    with pytest.raises(NativeError, match="JSON Parse error: Number too big to be stored"):
        parse_object(b'{"instances": [' + b"9" * 5000 + b"]}")


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [
        (tf.int8, [-128, 127]),
        (tf.uint16, [0, 2**16 - 1]),
        (tf.uint32, [2**32 - 1]),
        (tf.uint64, [2**64 - 1]),
        (tf.int64, [-(2**63), 2**63 - 1]),
        (tf.float16, [0.5, 3]),
        (tf.bfloat16, [0.5, 256]),
        (tf.float64, [0.1, 2**53]),
        (tf.bool, [True, False]),
    ],
)
def test_numbers_of_every_dtype(dtype, numbers):
    arrays, in_rows = arrays_of({"instances": numbers}, one_input(dtype))
    assert in_rows
    assert arrays["x"].dtype == dtype.as_numpy_dtype
    assert arrays["x"].tolist() == numbers
    assert json.loads(response_body(arrays, in_rows=True)) == {"predictions": numbers}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, 3), None),  # Whatever the request had.
        ((3, 2), "Tensor name: b has inconsistent batch size: 2 expecting: 3"),
        ((0, 0), "Tensor name: a has invalid batch size: 0"),
    ],
)
def test_outputs_in_rows_agree_with_each_other(sizes, message):
    outputs = {name: np.zeros(size) for name, size in zip("ab", sizes, strict=True)}
    if message is None:
        assert len(json.loads(response_body(outputs, in_rows=True))["predictions"]) == 3
        return
    with pytest.raises(NativeError, match=message):
        response_body(outputs, in_rows=True)
