"""Ids by hash: fixed for all time, of any strings, in range."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_compemb.data.encoders import hash_ids

# Made by an independent implementation of FarmHash64, in NumPy.
EXPECTED_20 = [576134, 16463, 102796, 163840, 719076]
EXPECTED_LENGTHS = "b29f1dd7e42cfc1f74e0d2130eb702155f4960e91c954f48eb22857a1ff46de4"


def test_ids_are_fixed_for_all_time():
    """Prepared data and served models outlive a release: FarmHash64's values must not move."""
    texts = ["68fd1e64", "", "80e26c9b", "a longer one than eight", "ä\t"]
    assert hash_ids(pa.array(texts), 2**20).tolist() == EXPECTED_20
    every_length = ["x" * n + "y" for n in range(200)]
    digest = hashlib.sha256(hash_ids(pa.array(every_length), 2**62).astype("<i8").tobytes())
    assert digest.hexdigest() == EXPECTED_LENGTHS


@pytest.mark.parametrize("buckets", [1, 7, 2**20, 2**31, 2**40, 2**62])
@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(max_size=90), max_size=20))
def test_ids_are_in_range_and_equal_strings_share_one(texts, buckets):
    values = pa.array([*texts, *texts], pa.string())
    ids = hash_ids(values, buckets)
    assert ids.dtype == np.int64
    assert ((ids >= 0) & (ids < buckets)).all()
    np.testing.assert_array_equal(ids[: len(texts)], ids[len(texts) :])


def test_ids_modulo_a_divisor_are_those_of_fewer_buckets():
    values = pa.array([f"{i:08x}" for i in range(500)])
    np.testing.assert_array_equal(hash_ids(values, 2**40) % 2**10, hash_ids(values, 2**10))
    assert len(np.unique(hash_ids(values, 2**40))) == 500


def test_a_slice_of_an_array_hashes_its_own_strings():
    whole = pa.array(["68fd1e64", "", "80e26c9b", "a longer one than eight"])
    np.testing.assert_array_equal(hash_ids(whole[1:3], 2**40), hash_ids(whole, 2**40)[1:3])
