"""Entries of products of rows, (field, table, divisor, modulus, offset) each, without the kernels.

Of field f's ids an entry reads the row `id // divisor % modulus + offset` of its table.
"""

import numpy as np
import optimizer_oracle as oracle


def attributes_of(tables, sizes, entries):
    """What the ops of products are told of tables, of the number of ids, and of entries."""
    fields, of, divisors, moduli, offsets = map(list, zip(*entries, strict=True))
    return {
        "rows": [len(table) for table in tables],
        "width": tables[0].shape[1],
        "num_fields": len(sizes),
        "fields": fields,
        "tables_of_entries": of,
        "sizes": list(sizes),
        "divisors": divisors,
        "moduli": moduli,
        "offsets": offsets,
    }


def row_numbers(entries, ids):
    """int32 (batch, entries of the table) of each table."""
    count = 1 + max(table for _, table, *_ in entries)
    columns = [[] for _ in range(count)]
    for field, table, divisor, modulus, offset in entries:
        columns[table].append(ids[:, field] // divisor % modulus + offset)
    return [np.stack(of_table, axis=1).astype("int32") for of_table in columns]


def gradients(tables, entries, ids, upstream):
    """Those of the tables, float64, from that of the vectors, (batch, fields, width)."""
    totals = [np.zeros(table.shape) for table in tables]
    for own in entries:
        field, table, divisor, modulus, offset = own
        product = upstream[:, field].astype("float64")
        for other in entries:
            if other is not own and other[0] == field:
                rows = ids[:, field] // other[2] % other[3] + other[4]
                product = product * tables[other[1]][rows]
        np.add.at(totals[table], ids[:, field] // divisor % modulus + offset, product)
    return totals


def step(rule, tables, entries, ids, upstream, rate):
    """Tables and, but for SGD, accumulators after a step of a rule of the oracle, float64."""
    moved, states = [], []
    for table, gradient in zip(tables, gradients(tables, entries, ids, upstream), strict=True):
        dense = oracle.RULES[rule](table.shape)
        moved.append(dense.step(table.astype("float64"), gradient, 1, rate))
        states.append(getattr(dense, "a", None))
    return moved, states
