"""Methods whose fields share one memory, and the lookup of such fields in a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_compemb._keras import gather_rows, id_dtype, ops
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.fused import fusion_groups
from tf_compemb.layers.group_lookup import GroupLookup
from tf_compemb.storage.table import Spec, StateSpec, TableSpec, read_rows
from tf_compemb.storage.uniform_rows import UniformRows


class FieldState(NamedTuple):
    """Rows that fields keep beside their memory and do not train, as a method reads them.

    Attributes:
        counts: How many rows each field has, int64 (fields,).
        read: From row numbers (m, fields), each in its field's rows, to those rows.
    """

    counts: np.ndarray
    read: Callable[[Any], Any]


class Memory(NamedTuple):
    """A memory as a method reads it.

    Attributes:
        rows: How many rows it has.
        read: From row numbers of any shape to rows, shape + (width,).
        input_dim: Ids of every field are below it.
        state: By the names of `PooledEmbedding.state_specs`.
    """

    rows: int
    read: Callable[[Any], Any]
    input_dim: int
    state: Mapping[str, FieldState]


def memory_sizes(input_dim: int, output_dim: int) -> list[Settings]:
    """What `budget_grid` offers for an array: any `memory_size` from one vector's on."""
    return [
        Settings(
            (input_dim - 1) * output_dim + 1,
            lambda number: {"memory_size": output_dim + number},
        )
    ]


class PooledEmbedding(CompressedEmbedding):
    """Base of the methods whose fields read one memory, each at places of its own.

    A layer alone is field 0 and has its memory to itself. In an `EmbeddingCollection` the memory
    of all fields that agree in `pool_key` is one, as large as theirs together: a field's size says
    what it brings in, and its ids may lie anywhere.
    """

    def memory_spec(self) -> TableSpec:
        """The memory of this layer alone, or its share in a common one."""
        raise NotImplementedError

    def state_specs(self) -> dict[str, StateSpec]:
        """What this field keeps beside the memory and does not train: rows, of any number."""
        return {}

    @property
    def pool_key(self) -> tuple:
        """What fields of one memory have in common beside the class and the vectors' width."""
        raise NotImplementedError

    def vectors_in(self, memory: Memory, ids: Any, fields: np.ndarray) -> Any:
        """Vectors (m, f, output_dim) of ids (m, f) of the fields with the numbers `fields` (f,)."""
        raise NotImplementedError

    def table_specs(self) -> dict[str, Spec]:
        """The memory, and what is kept beside it."""
        return {"memory": self.memory_spec(), **self.state_specs()}

    def lookup(self, ids: Any) -> Any:
        """Vectors of the layer alone."""
        memory = Memory(
            self.memory_spec().rows,
            lambda rows: self.rows("memory", rows),
            self.input_dim,
            {
                name: FieldState(np.asarray(spec.shape[:1]), _reader(getattr(self, name)))
                for name, spec in self.state_specs().items()
            },
        )
        return self.vectors_in(memory, ops.expand_dims(ids, 1), np.zeros(1, "int64"))[:, 0]


class PooledLookup(GroupLookup):
    """Several fields in one memory.

    Args:
        layers: The fields' layers, which agree in `pool_key`. They are read for what they are and
            are never built.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, layers: Sequence[PooledEmbedding], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._method = lambda: layers[0]  # Keras would track a layer that is only read.
        self.vector_shape = layers[0].vector_shape
        self._specs = tuple(layer.memory_spec() for layer in layers)
        self._ends = np.cumsum([spec.rows for spec in self._specs])
        self._states = tuple(
            _StackedState(name, tuple(layer.state_specs()[name] for layer in layers))
            for name in layers[0].state_specs()
        )
        self._input_dim = max(layer.input_dim for layer in layers)
        # Rows serve all fields, so that there is no single right variance: the smallest is taken.
        self._limit = min(spec.limit for spec in self._specs)

    def build(self, input_shape: Any = None) -> None:
        """Creates the memory, and what the fields keep beside it."""
        if self.built:
            return
        for state in self._states:
            setattr(self, state.name, state.spec.build(self, state.name))
        table = TableSpec(int(self._ends[-1]), self._specs[0].width, self._limit)
        initializer = self._method().embeddings_initializer
        self.memory = table.build(
            self, "memory", initializer or UniformRows([(table.rows, table.limit)])
        )
        self.built = True

    def call(self, ids: Any) -> Any:
        """Vectors (batch, fields, output_dim) of ids (batch, fields) that are in range."""
        return self._vectors(ids, np.arange(len(self._specs)))

    def field_vectors(self, position: int, ids: Any) -> Any:
        """Vectors (m, output_dim) of ids (m,) of one field."""
        return self._vectors(ops.expand_dims(ids, 1), np.asarray([position]))[:, 0]

    def field_tables(self, position: int) -> Iterator[tuple[str, Any, int, int]]:
        """The share of one field, which belongs to it in a file only, and its own state."""
        end = int(self._ends[position])
        yield "memory", self.memory, end - self._specs[position].rows, end
        for state in self._states:
            start = int(state.starts[position])
            count = int(state.counts[position])
            yield state.name, getattr(self, state.name), start, start + count

    def _vectors(self, ids: Any, fields: np.ndarray) -> Any:
        memory = Memory(
            int(self._ends[-1]),
            lambda rows: read_rows(self.memory, rows, self.compute_dtype),
            self._input_dim,
            {
                state.name: FieldState(
                    state.counts[fields],
                    _reader(getattr(self, state.name), state.starts[fields]),
                )
                for state in self._states
            },
        )
        return self._method().vectors_in(memory, ids, fields)


class _StackedState(NamedTuple):
    """State of one name of all fields, one field's rows after the other's."""

    name: str
    specs: tuple[StateSpec, ...]

    @property
    def counts(self) -> np.ndarray:
        return np.asarray([spec.shape[0] for spec in self.specs], "int64")

    @property
    def starts(self) -> np.ndarray:
        return np.cumsum(self.counts) - self.counts

    @property
    def spec(self) -> StateSpec:
        first = self.specs[0]
        return StateSpec(
            (int(self.counts.sum()), *first.shape[1:]),
            first.dtype,
            lambda: np.concatenate([spec.values() for spec in self.specs]),
        )


def _reader(variable: Any, starts: np.ndarray | None = None) -> Callable[[Any], Any]:
    """From row numbers (m, fields) to rows of a variable in which each field's have a start."""
    if starts is None:
        return lambda rows: gather_rows(variable, rows)
    return lambda rows: gather_rows(variable, rows + constants(starts))


def lookup_groups(layers: Sequence[CompressedEmbedding], fused: bool) -> list[list[int]]:
    """Which layers are looked up as one: lists of positions, each in ascending order.

    Args:
        layers: The fields' layers.
        fused: Whether layers that could be looked up alone are fused. A common memory is one in
            any case.
    """
    pools: dict[Any, list[int]] = {}
    others = []
    for i, layer in enumerate(layers):
        if isinstance(layer, PooledEmbedding):
            key = (type(layer), layer.output_dim, layer.pool_key)
            pools.setdefault(key, []).append(i)
        else:
            others.append(i)
    if fused:
        found = [[others[i] for i in group] for group in fusion_groups([layers[i] for i in others])]
    else:
        found = [[i] for i in others]
    return sorted([*pools.values(), *found])


def constants(values: np.ndarray) -> Any:
    """Integers as a tensor of the type in which ids are computed."""
    return ops.convert_to_tensor(values, dtype=id_dtype())
