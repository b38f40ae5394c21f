"""FarmHash64 and ids by hash, against TensorFlow."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_compemb.data.encoders import hash_ids
from tf_compemb.data.farmhash import fingerprint64

BUCKETS = [1, 7, 2**20, 2**31, 2**40, 2**62]


@pytest.mark.parametrize("buckets", BUCKETS)
def test_every_length_to_200_bytes_hashes_as_in_tensorflow(buckets):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(0, 128, n))) for n in range(201) for _ in range(2)]
    expected = tf.strings.to_hash_bucket_fast(texts, buckets).numpy()
    np.testing.assert_array_equal(hash_ids(pa.array(texts), buckets), expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=90), min_size=1, max_size=20))
def test_any_unicode_hashes_as_in_tensorflow(texts):
    import tensorflow as tf

    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.cumsum([0] + [len(text) for text in encoded])
    result = fingerprint64(np.frombuffer(b"".join(encoded), np.uint8), offsets)
    expected = tf.strings.to_hash_bucket_fast(encoded, 2**62).numpy()
    np.testing.assert_array_equal(result % np.uint64(2**62), expected)


def test_a_slice_of_an_array_hashes_its_own_strings():
    whole = pa.array(["68fd1e64", "", "80e26c9b", "a longer one than eight"])
    np.testing.assert_array_equal(hash_ids(whole[1:3], 2**40), hash_ids(whole, 2**40)[1:3])


def test_arrays_without_strings():
    assert hash_ids(pa.array([], pa.string()), 5).tolist() == []
