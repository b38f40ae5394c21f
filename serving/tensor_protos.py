"""`TensorProto` to NumPy and back, with bounds: a message of few bytes can claim any shape."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from tf_compemb._tensorflow_c import NUMPY_DTYPES, STRING, dtype_name
from tf_compemb.serving.status_codes import invalid_argument

_LARGEST_RANK = 32  # NumPy 1's own limit.

# The field of a TensorProto that holds the values of a dtype, where they are not in tensor_content.
_VALUE_FIELDS = {
    1: "float_val",
    2: "double_val",
    9: "int64_val",
    10: "bool_val",
    22: "uint32_val",
    23: "uint64_val",
    **dict.fromkeys((3, 4, 5, 6, 11, 12, 13, 15, 16, 17, 29, 30), "int_val"),
}
_HALF, _BFLOAT16 = 19, 14
_COMPLEX = {8: "scomplex_val", 18: "dcomplex_val"}


def array_of(proto: Any, name: str, largest_bytes: int) -> np.ndarray:
    """The array that a `TensorProto` stands for.

    As in TensorFlow, a value field with fewer values than elements is filled up with its last one,
    and an empty one with zeros; of one with more the first are taken.

    Args:
        proto: The message.
        name: The input's name, for messages.
        largest_bytes: Bytes that the array may take; a string counts eight and its length.

    Raises:
        NativeError: INVALID_ARGUMENT: no such dtype, an impossible or too large shape, or content
            that does not fit the shape.
    """
    if proto.dtype not in NUMPY_DTYPES:
        raise _wrong(name, f"dtype {dtype_name(proto.dtype)} cannot be sent")
    dtype = NUMPY_DTYPES[proto.dtype]
    shape = _checked_shape(proto, name, dtype.itemsize, largest_bytes)
    size = int(np.prod(shape, dtype=np.int64))
    if not size:
        return np.empty(shape, dtype)
    try:
        if proto.tensor_content and proto.dtype != STRING:
            values = np.frombuffer(proto.tensor_content, dtype)
            if values.size != size:
                raise _wrong(name, f"{values.size} values for shape {list(shape)}")
        elif proto.tensor_content:
            values = _strings_of(proto.tensor_content, size)
        else:
            values = _filled(_values(proto, dtype), size, dtype, largest_bytes, name)
        return values.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise _wrong(name, str(error)) from None


def _checked_shape(proto: Any, name: str, itemsize: int, largest_bytes: int) -> tuple[int, ...]:
    if proto.tensor_shape.unknown_rank:
        raise _wrong(name, "the shape's rank is unknown")
    if len(proto.tensor_shape.dim) > _LARGEST_RANK:
        raise _wrong(name, f"{len(proto.tensor_shape.dim)} axes; {_LARGEST_RANK} at most")
    shape = tuple(axis.size for axis in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise _wrong(name, f"shape {list(shape)} has a negative size")
    # Empty axes are counted as 1: a size of 2^62 beside one of 0 breaks arithmetic further on.
    claimed = itemsize
    for size in shape:
        claimed *= max(size, 1)
    if claimed > largest_bytes:
        raise _wrong(name, f"shape {list(shape)} takes {claimed} bytes, more than {largest_bytes}")
    return shape


def _strings_of(content: bytes, size: int) -> np.ndarray:
    """Strings as TensorFlow packs them: all lengths as varints, then all bytes.

    Raises:
        ValueError: The lengths are not those of the bytes.
    """
    position, ends = 0, [0]
    for _ in range(size):
        length, position = _varint(content, position)
        ends.append(ends[-1] + length)
    if position + ends[-1] != len(content):
        raise ValueError("tensor_content does not have the lengths that it says")
    values = np.empty(size, object)
    values[:] = [content[position + start : position + end] for start, end in pairwise(ends)]
    return values


def _varint(content: bytes, position: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 35, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("tensor_content ends in the middle of a string's length")


def _values(proto: Any, dtype: np.dtype) -> np.ndarray:
    number = proto.dtype
    if number == STRING:
        values = np.empty(len(proto.string_val), object)
        values[:] = proto.string_val
        return values
    if number in (_HALF, _BFLOAT16):
        bits = np.array(proto.half_val, np.int64)
        if bits.size and (bits.min() < 0 or bits.max() > 0xFFFF):
            raise ValueError("half_val holds numbers of more than 16 bits")
        return bits.astype(np.uint16).view(dtype)
    if number in _COMPLEX:
        parts = getattr(proto, _COMPLEX[number])
        return np.array(parts[: len(parts) // 2 * 2], dtype.char.lower()).view(dtype)
    if number not in _VALUE_FIELDS:  # The 8-bit floats.
        return np.frombuffer(proto.float8_val, dtype)
    numbers = getattr(proto, _VALUE_FIELDS[number])
    if dtype.kind in "iu" and dtype.itemsize == 8:  # NumPy would choose float64 for some.
        return np.array(numbers, dtype)
    values = np.array(numbers)
    if values.dtype.kind == "i" and dtype.kind in "iu" and dtype.itemsize < 4:
        bounds = np.iinfo(dtype)
        if values.size and (values.min() < bounds.min or values.max() > bounds.max):
            raise ValueError(f"int_val holds numbers that are not {dtype}")
    with np.errstate(invalid="ignore"):  # Of a signalling NaN.
        return values.astype(dtype)


def _filled(
    values: np.ndarray, size: int, dtype: np.dtype, largest_bytes: int, name: str
) -> np.ndarray:
    if values.size >= size:
        return values[:size]
    result = np.empty(size, dtype)
    result[: values.size] = values
    last: Any = values[-1] if values.size else (b"" if dtype.kind == "O" else np.zeros((), dtype))
    if isinstance(last, bytes) and len(last) * size > largest_bytes:
        raise _wrong(name, f"one string repeated {size} times is more than {largest_bytes} bytes")
    result[values.size :] = last
    return result


def fill_proto(proto: Any, array: np.ndarray, number: int) -> None:
    """Writes an array into an empty `TensorProto`.

    Args:
        proto: The message.
        array: The values; strings as an object array of bytes.
        number: The dtype's number in types.proto.
    """
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if number == STRING:
        proto.string_val.extend(array.ravel().tolist())
    elif number in _VALUE_FIELDS and array.dtype.kind in "fiub":
        getattr(proto, _VALUE_FIELDS[number]).extend(array.ravel().tolist())
    elif number in (_HALF, _BFLOAT16):
        proto.half_val.extend(array.ravel().view(np.uint16).tolist())
    else:
        proto.tensor_content = array.tobytes()


def _wrong(name: str, what: str) -> Exception:
    return invalid_argument(f"Tensor parsing error, input {name!r}: {what}")
