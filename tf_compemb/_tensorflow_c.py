"""TensorFlow's C API through ctypes: the library, its errors, and tensors from and to NumPy."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tf_compemb.missing_packages import missing

STRING = 7

# The numbers are those of `DataType` in TensorFlow's types.proto.
_NUMPY = {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    7: np.object_,
    8: np.complex64,
    9: np.int64,
    10: np.bool_,
    11: np.int8,
    12: np.uint8,
    13: np.int32,
    14: ml_dtypes.bfloat16,
    15: np.int16,
    16: np.uint16,
    17: np.uint16,
    18: np.complex128,
    19: np.float16,
    22: np.uint32,
    23: np.uint64,
    24: ml_dtypes.float8_e5m2,
    25: ml_dtypes.float8_e4m3fn,
    29: ml_dtypes.int4,
    30: ml_dtypes.uint4,
}
NUMPY_DTYPES = {number: np.dtype(dtype) for number, dtype in _NUMPY.items()}

_QUANTIZED = {11: "qint8", 12: "quint8", 13: "qint32", 15: "qint16", 16: "quint16"}
_NAMES = {
    **{number: dtype.name for number, dtype in NUMPY_DTYPES.items()},
    **_QUANTIZED,
    STRING: "string",
    20: "resource",
    21: "variant",
}
_NUMBERS = {
    dtype: number for number, dtype in NUMPY_DTYPES.items() if number not in (*_QUANTIZED, STRING)
}

CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)


class NativeError(RuntimeError):
    """What TensorFlow's C++ refused, with its own code.

    Attributes:
        code: The number, as in gRPC; 3 is INVALID_ARGUMENT.
        code_name: The name of that code.
        message: TensorFlow's message.
    """

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.code_name = CODES[code] if code < len(CODES) else str(code)
        self.message = message
        super().__init__(f"{self.code_name}: {message}")


class Output(ctypes.Structure):
    """`TF_Output`: one output of an operation."""

    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class Buffer(ctypes.Structure):
    """`TF_Buffer`: bytes that the library owns, or that are lent to it."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    )


_P, _INT, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
_BUFFER = ctypes.POINTER(Buffer)
_DIMENSIONS = ctypes.POINTER(ctypes.c_int64)
_OUTPUTS, _POINTERS = ctypes.POINTER(Output), ctypes.POINTER(_P)

_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    # name: result, arguments
    "TF_NewStatus": (_P,),
    "TF_DeleteStatus": (None, _P),
    "TF_GetCode": (_INT, _P),
    "TF_Message": (_TEXT, _P),
    "TF_NewBuffer": (_BUFFER,),
    "TF_DeleteBuffer": (None, _BUFFER),
    "TF_NewGraph": (_P,),
    "TF_DeleteGraph": (None, _P),
    "TF_GraphOperationByName": (_P, _P, _TEXT),
    "TF_NewSessionOptions": (_P,),
    "TF_DeleteSessionOptions": (None, _P),
    "TF_SetConfig": (None, _P, _TEXT, _SIZE, _P),
    "TF_LoadSessionFromSavedModel": (
        *(_P, _P, _BUFFER, _TEXT, ctypes.POINTER(_TEXT), _INT, _P, _BUFFER, _P),
    ),
    "TF_CloseSession": (None, _P, _P),
    "TF_DeleteSession": (None, _P, _P),
    "TF_SessionRun": (
        *(None, _P, _BUFFER, _OUTPUTS, _POINTERS, _INT, _OUTPUTS, _POINTERS, _INT),
        *(_POINTERS, _INT, _BUFFER, _P),
    ),
    "TF_AllocateTensor": (_P, _INT, _DIMENSIONS, _INT, _SIZE),
    "TF_DeleteTensor": (None, _P),
    "TF_TensorFromProto": (None, _BUFFER, _P, _P),
    "TF_TensorType": (_INT, _P),
    "TF_NumDims": (_INT, _P),
    "TF_Dim": (ctypes.c_int64, _P, _INT),
    "TF_TensorByteSize": (_SIZE, _P),
    "TF_TensorData": (_P, _P),
    "TF_StringGetDataPointer": (_P, _P),
    "TF_StringGetSize": (_SIZE, _P),
}
_STRING_BYTES = 24  # sizeof(TF_TString)


@functools.cache
def library() -> ctypes.CDLL:
    """TensorFlow's C++ library, the same that `import tensorflow` loads, without that import.

    Raises:
        ImportError: TensorFlow is not installed, or without a separate C++ library.
    """
    found = importlib.util.find_spec("tensorflow")
    if found is None or not found.submodule_search_locations:
        raise missing("tensorflow", "Loading a SavedModel", "serving")
    folder = Path(found.submodule_search_locations[0])
    ending = "{}.2.dylib" if sys.platform == "darwin" else "{}.so.2"
    paths = [folder / ending.format(f"libtensorflow_{part}") for part in ("framework", "cc")]
    if not paths[1].exists():
        raise ImportError(f"This TensorFlow has no {paths[1].name}; Linux and macOS wheels do.")
    # Not RTLD_GLOBAL: TensorFlow's own OpenSSL would take the place of the one that Python's
    # hashlib is linked with, and importing that afterwards would crash.
    _, tensorflow = [ctypes.CDLL(str(path)) for path in paths]
    for name, (result, *arguments) in _PROTOTYPES.items():
        function = getattr(tensorflow, name)
        function.restype, function.argtypes = result, arguments
    return tensorflow


class Status:
    """`TF_Status` as a context: a block that ends with a bad status raises `NativeError`."""

    def __enter__(self) -> ctypes.c_void_p:
        self._status = ctypes.c_void_p(library().TF_NewStatus())
        return self._status

    def __exit__(self, kind: object, *_: object) -> None:
        tf = library()
        code, message = tf.TF_GetCode(self._status), tf.TF_Message(self._status)
        tf.TF_DeleteStatus(self._status)
        if code and kind is None:
            raise NativeError(code, message.decode(errors="replace"))


def dtype_name(number: int) -> str:
    """The name of a dtype in `tf.dtypes`, such as `"int64"` or `"string"`."""
    return _NAMES.get(number, f"dtype {number}")


def dtype_number(array: np.ndarray, wanted: int) -> int:
    """The dtype that an array has for TensorFlow: `wanted` where the array can be that.

    Raises:
        NativeError: TensorFlow has no such dtype.
    """
    if NUMPY_DTYPES.get(wanted) == array.dtype:
        return wanted
    if array.dtype.kind in "OSU":
        return STRING
    if array.dtype not in _NUMBERS:
        raise NativeError(3, f"TensorFlow has no dtype for NumPy's {array.dtype.name}")
    return _NUMBERS[array.dtype]


def new_tensor(array: np.ndarray, number: int) -> ctypes.c_void_p:
    """A `TF_Tensor` with a copy of the array; `TF_DeleteTensor` is the caller's duty."""
    tf = library()
    if number == STRING:
        return _new_string_tensor(array)
    array = np.ascontiguousarray(array).reshape(array.shape)
    tensor = ctypes.c_void_p(
        tf.TF_AllocateTensor(number, _dimensions(array.shape), array.ndim, array.nbytes)
    )
    if tensor.value is None:
        raise NativeError(8, f"No memory for a tensor of {array.nbytes} bytes")
    ctypes.memmove(tf.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
    return tensor


def _new_string_tensor(array: np.ndarray) -> ctypes.c_void_p:
    # From a TensorProto, because only then the strings are freed when TensorFlow's last use of the
    # tensor ends, which may be after the run.
    tf = library()
    encoded = string_tensor_proto(array)
    lent = Buffer(ctypes.cast(ctypes.c_char_p(encoded), ctypes.c_void_p), len(encoded), None)
    tensor = ctypes.c_void_p(tf.TF_AllocateTensor(1, _dimensions(()), 0, 4))
    try:
        with Status() as status:
            tf.TF_TensorFromProto(ctypes.byref(lent), tensor, status)
    except NativeError:
        tf.TF_DeleteTensor(tensor)
        raise
    return tensor


def string_tensor_proto(array: np.ndarray) -> bytes:
    """A serialized `TensorProto` with the array's strings; text is encoded as UTF-8.

    Raises:
        NativeError: An element is neither bytes nor text.

    >>> string_tensor_proto(np.array([b"ab"], object)).hex(" ")
    '08 07 12 04 12 02 08 01 42 02 61 62'
    """
    sizes = [b"\x08" + varint(size) for size in array.shape]
    shape = b"".join(b"\x12" + varint(len(size)) + size for size in sizes)
    values = encoded_strings(array)
    lengths = {length: b"\x42" + varint(length) for length in set(map(len, values))}
    content = b"".join([part for value in values for part in (lengths[len(value)], value)])
    return b"\x08\x07\x12" + varint(len(shape)) + shape + content


def encoded_strings(array: np.ndarray) -> list[bytes]:
    """The array's strings in order; text is encoded as UTF-8.

    Raises:
        NativeError: An element is neither bytes nor text that UTF-8 has.
    """
    values = array.ravel().tolist()
    try:
        return [v.encode() if isinstance(v, str) else bytes(memoryview(v)) for v in values]
    except (TypeError, ValueError) as error:
        wrong = next(value for value in values if not _is_string(value))
        raise NativeError(
            3,
            "A tensor takes numbers of at most 64 bits, or else bytes or text; received "
            f"{_in_words(wrong)}",
        ) from error


def _is_string(value: Any) -> bool:
    try:
        value.encode() if isinstance(value, str) else memoryview(value)
        return True
    except (TypeError, ValueError):
        return False


def _in_words(value: Any) -> str:
    """What a value that is no string is, not at its whole length."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return "text with half a surrogate pair"
    if isinstance(value, int):
        return f"an integer of {value.bit_length()} bits"
    return f"a value of type {type(value).__name__}"


def varint(value: int) -> bytes:
    """An unsigned integer as protobuf writes it: seven bits a byte, the lowest first.

    >>> varint(300).hex()
    'ac02'
    """
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def to_numpy(tensor: ctypes.c_void_p) -> np.ndarray:
    """A copy of a `TF_Tensor`; strings become an object array of bytes.

    Raises:
        NativeError: NumPy has no such dtype (resources, variants).
    """
    tf = library()
    number = tf.TF_TensorType(tensor)
    if number not in NUMPY_DTYPES:
        raise NativeError(12, f"An output of dtype {dtype_name(number)} has no NumPy form")
    shape = tuple(tf.TF_Dim(tensor, axis) for axis in range(tf.TF_NumDims(tensor)))
    result = np.empty(shape, NUMPY_DTYPES[number])
    data = tf.TF_TensorData(tensor)
    if number != STRING:
        ctypes.memmove(result.ctypes.data, data, result.nbytes)
        return result
    flat = result.reshape(-1)
    for position in range(flat.size):
        string = data + position * _STRING_BYTES
        flat[position] = ctypes.string_at(
            tf.TF_StringGetDataPointer(string), tf.TF_StringGetSize(string)
        )
    return result


def _dimensions(shape: tuple[int, ...]) -> Any:
    return (ctypes.c_int64 * len(shape))(*shape)
