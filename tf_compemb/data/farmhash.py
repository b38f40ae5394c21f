"""FarmHash64's fingerprint of many strings at once, bit-identical to TensorFlow's.

`tf.strings.to_hash_bucket_fast(x, n)` is `fingerprint64(x) % n`, so ids prepared here are the ids
that a served graph computes from raw strings, and preparing data needs no TensorFlow. The function
is Google's `farmhashna::Hash64` (https://github.com/google/farmhash, `src/farmhash.cc`), which is
fixed for all time; here it works on NumPy arrays of equally long strings.
"""

from __future__ import annotations

import numpy as np

U64 = np.uint64
K0 = U64(0xC3A5C85C97CB3127)
K1 = U64(0xB492B66FBE98F273)
K2 = U64(0x9AE16A3B2F90404F)


def fingerprint64(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns the 64-bit fingerprints of strings given as Arrow gives them.

    Args:
        data: uint8 `[bytes]`, the strings one after another.
        offsets: integers `[n + 1]`; string `i` is `data[offsets[i]:offsets[i + 1]]`.

    Returns:
        uint64 `[n]`.

    >>> text = np.frombuffer(b"68fd1e64", dtype=np.uint8)
    >>> int(fingerprint64(text, np.array([0, 8]))[0]) % 2**20
    576134
    """
    starts = np.asarray(offsets[:-1], dtype=np.int64)
    lengths = np.asarray(offsets[1:], dtype=np.int64) - starts
    result = np.empty(len(lengths), dtype=U64)
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        text = data[starts[chosen][:, None] + np.arange(length)[None, :]]
        result[chosen] = _hash_equal_lengths(np.ascontiguousarray(text), int(length))
    return result


def _hash_equal_lengths(text: np.ndarray, length: int) -> np.ndarray:
    """Hashes the rows of uint8 `[n, length]`; arithmetic on uint64 wraps, as it should."""
    if length == 0:
        return np.full(len(text), K2)
    if length < 4:
        return _hash_1_to_3(text, length)
    if length < 8:
        multiplier = K2 + U64(2 * length)
        first = U64(length) + (_fetch32(text, 0) << U64(3))
        return _hash_16(first, _fetch32(text, length - 4), multiplier)
    if length <= 16:
        return _hash_8_to_16(text, length)
    if length <= 32:
        return _hash_17_to_32(text, length)
    if length <= 64:
        return _hash_33_to_64(text, length)
    return _hash_long(text, length)


def _fetch64(text: np.ndarray, at: int) -> np.ndarray:
    return np.ascontiguousarray(text[:, at : at + 8]).view("<u8")[:, 0]


def _fetch32(text: np.ndarray, at: int) -> np.ndarray:
    return np.ascontiguousarray(text[:, at : at + 4]).view("<u4")[:, 0].astype(U64)


def _rotate(value: np.ndarray, bits: int) -> np.ndarray:
    return (value >> U64(bits)) | (value << U64(64 - bits))


def _shift_mix(value: np.ndarray) -> np.ndarray:
    return value ^ (value >> U64(47))


def _hash_16(u: np.ndarray, v: np.ndarray, multiplier: np.ndarray | np.uint64) -> np.ndarray:
    a = _shift_mix((u ^ v) * multiplier)
    return _shift_mix((v ^ a) * multiplier) * multiplier


def _hash_1_to_3(text: np.ndarray, length: int) -> np.ndarray:
    first, middle, last = (text[:, i].astype(U64) for i in (0, length >> 1, length - 1))
    y = first + (middle << U64(8))
    z = U64(length) + (last << U64(2))
    return _shift_mix(y * K2 ^ z * K0) * K2


def _hash_8_to_16(text: np.ndarray, length: int) -> np.ndarray:
    multiplier = K2 + U64(2 * length)
    a = _fetch64(text, 0) + K2
    b = _fetch64(text, length - 8)
    c = _rotate(b, 37) * multiplier + a
    d = (_rotate(a, 25) + b) * multiplier
    return _hash_16(c, d, multiplier)


def _hash_17_to_32(text: np.ndarray, length: int) -> np.ndarray:
    multiplier = K2 + U64(2 * length)
    a = _fetch64(text, 0) * K1
    b = _fetch64(text, 8)
    c = _fetch64(text, length - 8) * multiplier
    d = _fetch64(text, length - 16) * K2
    return _hash_16(
        _rotate(a + b, 43) + _rotate(c, 30) + d, a + _rotate(b + K2, 18) + c, multiplier
    )


def _hash_33_to_64(text: np.ndarray, length: int) -> np.ndarray:
    multiplier = K2 + U64(2 * length)
    a = _fetch64(text, 0) * K2
    b = _fetch64(text, 8)
    c = _fetch64(text, length - 8) * multiplier
    d = _fetch64(text, length - 16) * K2
    y = _rotate(a + b, 43) + _rotate(c, 30) + d
    z = _hash_16(y, a + _rotate(b + K2, 18) + c, multiplier)
    e = _fetch64(text, 16) * multiplier
    f = _fetch64(text, 24)
    g = (y + _fetch64(text, length - 32)) * multiplier
    h = (z + _fetch64(text, length - 24)) * multiplier
    return _hash_16(_rotate(e + f, 43) + _rotate(g, 30) + h, e + _rotate(f + a, 18) + g, multiplier)


def _weak_hash(
    text: np.ndarray, at: int, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    w, x, y, z = (_fetch64(text, at + 8 * i) for i in range(4))
    a = a + w
    b = _rotate(b + a + z, 21)
    c = a
    a = a + x + y
    return a + z, b + _rotate(a, 44) + c


def _hash_long(text: np.ndarray, length: int) -> np.ndarray:
    """Strings of 65 bytes and more: 56 bytes of state, 64 bytes a round."""
    zero = np.zeros(len(text), dtype=U64)
    x = (zero + U64(81)) * K2 + _fetch64(text, 0)
    y = (zero + U64(81)) * K1 + U64(113)
    z = _shift_mix(y * K2 + U64(113)) * K2
    v, w = (zero, zero), (zero, zero)
    for at in range(0, (length - 1) // 64 * 64, 64):
        x = _rotate(x + y + v[0] + _fetch64(text, at + 8), 37) * K1
        y = _rotate(y + v[1] + _fetch64(text, at + 48), 42) * K1
        x = x ^ w[1]
        y = y + v[0] + _fetch64(text, at + 40)
        z = _rotate(z + w[0], 33) * K1
        v = _weak_hash(text, at, v[1] * K1, x + w[0])
        w = _weak_hash(text, at + 32, z + w[1], y + _fetch64(text, at + 16))
        x, z = z, x
    return _finish_long(text, length, (x, y, z), v, w)


def _finish_long(
    text: np.ndarray,
    length: int,
    xyz: tuple[np.ndarray, np.ndarray, np.ndarray],
    v: tuple[np.ndarray, np.ndarray],
    w: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """The last 64 bytes, which may overlap the round before."""
    x, y, z = xyz
    multiplier = K1 + ((z & U64(0xFF)) << U64(1))
    at = length - 64
    w = (w[0] + U64((length - 1) & 63), w[1])
    v = (v[0] + w[0], v[1])
    w = (w[0] + v[0], w[1])
    x = _rotate(x + y + v[0] + _fetch64(text, at + 8), 37) * multiplier
    y = _rotate(y + v[1] + _fetch64(text, at + 48), 42) * multiplier
    x = x ^ (w[1] * U64(9))
    y = y + v[0] * U64(9) + _fetch64(text, at + 40)
    z = _rotate(z + w[0], 33) * multiplier
    v = _weak_hash(text, at, v[1] * multiplier, x + w[0])
    w = _weak_hash(text, at + 32, z + w[1], y + _fetch64(text, at + 16))
    x, z = z, x
    return _hash_16(
        _hash_16(v[0], w[0], multiplier) + _shift_mix(y) * K0 + z,
        _hash_16(v[1], w[1], multiplier) + x,
        multiplier,
    )
