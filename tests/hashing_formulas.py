"""The hashing methods' formulas in Python's own integers, apart from the layers' code."""

import numpy as np


def ceil_div(n, m):
    return -(-n // m)


def frequencies(n):
    """Frequent and rare ids in no order, with ties; id 1 is among the most frequent."""
    return (n - (np.arange(n) - 1) * 37 % n) // 2


def frequent_ids(n, count):
    """The most frequent ids, ascending, by Python's own stable sort."""
    counts = frequencies(n).tolist()
    return np.array(sorted(sorted(range(n), key=lambda i: (-counts[i], i))[:count]))


def own_rows(w, ids, n, common_row):
    """Rows of frequent ids by a dictionary made of the layer's map."""
    rows = {i: row for row, i in enumerate(w["frequent_ids"].tolist())}
    assert sorted(rows) == frequent_ids(n, len(rows)).tolist()
    return np.array([rows.get(int(i), common_row) for i in ids])


def universal_hash_buckets(ids, m, seed):
    """The universal hash in Python's own integers."""
    from tf_compemb.partitions.universal_hash import draw_coefficients

    a, _, b = draw_coefficients(seed)
    return np.array([(a * int(i) + b) % (2**31 - 1) % m for i in ids])


def bit_blocks(ids, blocks):
    """Blocks of bits as numbers, by strings: each block is the positions of its bits."""
    text = [f"{int(i):063b}"[::-1] for i in ids]
    return [
        np.array([int("".join(t[p] for p in reversed(block)), 2) for t in text]) for block in blocks
    ]


def succession(n, bits):
    length = (n - 1).bit_length()
    return [range(p, min(p + bits, length)) for p in range(0, length, bits)]


def skipping(n, bits):
    length = (n - 1).bit_length()
    blocks = ceil_div(length, bits)
    return [range(first, length, blocks) for first in range(blocks)]


def distinct_multisets(n, bits):
    blocks = bit_blocks(range(n), succession(n, bits))
    return len({tuple(sorted(numbers)) for numbers in zip(*blocks, strict=True)})


def double_hash(w, ids, n):
    own = own_rows(w, ids, n, -1)
    tail = sum(w[f"tail_{j}"][rows] for j, rows in enumerate(tail_buckets(ids, len(w["tail_0"]))))
    return np.where(own[:, None] >= 0, w["frequent"][own], tail)


def tail_buckets(ids, m):
    return [universal_hash_buckets(ids, m, 0), universal_hash_buckets(ids, m, 2**32)]


def distinct_of_double_hash(n, frequent, m):
    rare = sorted(set(range(n)) - set(frequent_ids(n, frequent).tolist()))
    return frequent + len(set(zip(*tail_buckets(rare, m), strict=True)))


def chunk_rows(ids, m, chunks, seed=0, field=0):
    """Row numbers of each chunk."""
    first = field * chunks
    return [universal_hash_buckets(ids, m, seed + 2**32 * (first + j)) for j in range(chunks)]


def robe(w, ids, block_size, width, circular=True, signs=True, field=0, seed=0):
    """Number by number, in Python's own integers."""
    from tf_compemb.partitions.universal_hash import draw_coefficients

    def hashed(n, i, c):
        b, _, d = draw_coefficients(seed + 2**32 * n)
        of_part, of_field, _ = draw_coefficients(seed + 2**32 * (n + 1))
        return (of_field * field + b * i + of_part * c + d) % (2**31 - 1)

    memory = w["memory"][:, 0]
    m = len(memory)
    vectors = np.zeros((len(ids), width))
    for row, i in enumerate(map(int, ids)):
        for k in range(width):
            start = hashed(0, i, k // block_size) % (m if circular else m - block_size + 1)
            sign = 2 * (hashed(2, i, k) % 2) - 1 if signs else 1
            vectors[row, k] = sign * memory[(start + k % block_size) % m]
    return vectors


def distinct_of_robe(n):
    """Blocks as long as the vectors: as many vectors as different starts."""
    numbered = {"memory": np.arange(ceil_div(n, 5) * WIDTHS[n])[:, None]}
    vectors = robe(numbered, range(n), WIDTHS[n], WIDTHS[n], circular=False, signs=False)
    return len(np.unique(vectors, axis=0))


def sampled_ids(n):
    """Two ids a row: some ids are in many rows, some in none, some twice in one."""
    rows = np.arange(2 * n)
    return np.stack([rows * rows % n, rows * 7 % n // 3], axis=1)


def minhash_signatures(n, buckets, num_minhashes, seed):
    """Signatures by sets of rows, of the four ids with the most rows in each bucket."""
    rows_of = {}
    for r, ids in enumerate(sampled_ids(n).tolist()):
        for i in ids:
            rows_of.setdefault(i, set()).add(r)
    draws = [
        np.random.Philox(key=seed + 2**32 * (4 + j)).random_raw(2 * n).tolist()
        for j in range(num_minhashes)
    ]
    found = {}
    for b in range(buckets):
        members = [i for i in rows_of if i % buckets == b and len(rows_of[i]) >= 2]
        for i in sorted(members, key=lambda i: (-len(rows_of[i]), i))[:4]:
            found[i] = [min(draw[r] for r in rows_of[i]) % 16 for draw in draws]
    return found


def lma_buckets(n, width, memory_size):
    return ceil_div(min(n, memory_size // width), 4)


def lma(w, ids, n, num_minhashes=16, key_length=8, seed=0):
    """Number by number, in Python's own integers."""
    from tf_compemb.partitions.universal_hash import draw_coefficients

    width, memory = WIDTHS[n], w["memory"][:, 0]
    buckets = lma_buckets(n, width, len(memory))
    signatures = minhash_signatures(n, buckets, num_minhashes, seed)
    assert sorted(w["signed_ids"][w["signed_ids"] >= 0]) == sorted(signatures)
    raw = np.random.Philox(key=seed + 3 * 2**32).random_raw(width * num_minhashes).tolist()
    of_key, of_number, shift = draw_coefficients(seed + 2 * 2**32)
    unsigned = robe(w, ids, 1, width, signs=False, seed=seed)
    vectors = np.zeros((len(ids), width))
    for row, i in enumerate(map(int, ids)):
        for k in range(width):
            drawn = raw[k * num_minhashes : (k + 1) * num_minhashes]
            slots = sorted(range(num_minhashes), key=drawn.__getitem__)[:key_length]
            key = (
                sum(signatures[i][j] * 16**t for t, j in enumerate(slots)) if i in signatures else 0
            )
            hashed = (of_key * key + of_number * k + shift) % (2**31 - 1)
            place = hashed % len(memory)
            vectors[row, k] = memory[place] if i in signatures else unsigned[row, k]
    return vectors


def distinct_of_lma(n, memory_size, **options):
    """By the numbers' places."""
    numbered = {"memory": np.arange(memory_size)[:, None]}
    buckets = lma_buckets(n, WIDTHS[n], memory_size)
    seed, count = options.get("seed", 0), options.get("num_minhashes", 16)
    numbered["signed_ids"] = np.array(list(minhash_signatures(n, buckets, count, seed)))
    return len(np.unique(lma(numbered, range(n), n, **options), axis=0))


def with_important_ids(layer):
    """Two ids with rows in a CAFE's sketch, one without."""
    ids, rows = np.full((9, 4), -1), np.zeros((9, 4))
    ids[1, :2], rows[1, :2] = (1, 10), (3, 0)
    ids[0, 1], rows[0, 1] = 0, 1
    layer.sketch_ids.assign(ids)
    layer.sketch_rows.assign(rows)


# Output widths that the checks use at these numbers of ids, where `multiple` is 4.
WIDTHS = {50: 8, 97: 4, 1000: 16}
