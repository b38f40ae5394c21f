"""A table as whoever reads it must see it: its rows, up to date, whatever an optimiser put off."""

from __future__ import annotations

import contextlib
import gc
import inspect
import warnings
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_compemb._keras import BACKEND, LEGACY, gather_rows, keras, ops
from tf_compemb.native_kernels import may_read
from tf_compemb.storage import small_table

if BACKEND == "tensorflow":
    import tensorflow as tf

    from tf_compemb.storage.current_variable import give_current_rows, rows_as_stored

# Exact optimisers that have yet to be built. What is traced meanwhile must already read by them.
_unbuilt: weakref.WeakSet[Any] = weakref.WeakSet()
# Where models have functions, which `compile` drops, though the model goes on tracking them.
_FUNCTIONS_OF_MODELS = ("train_function", "test_function", "predict_function")


def expect_deferred_updates(optimizer: Any) -> None:
    """Announces an optimiser that will defer updates of the tables that it is built with.

    Args:
        optimizer: Has `is_built`, `rule` (what deferred updates depend on, to be compared), and
            `deferred_update(table)`, which makes what the table reads through meanwhile.
    """
    _unbuilt.add(optimizer)


@dataclass(frozen=True)
class _Reader:
    """A graph that reads a table.

    Attributes:
        graph: Gives it, or None when it is gone.
        outermost: Gives that of the outermost function.
        function: Its name.
        corrections: Give the deferred updates by which it reads.
    """

    graph: Any
    outermost: Any
    function: str
    corrections: list[Any]

    def lacks(self, deferred_update: Any) -> bool:
        """Whether the graph is there still, and reads without a deferred update."""
        if self.graph() is None:
            return False
        return not any(c() is deferred_update for c in self.corrections)


class Table:
    """The rows of a table's variable: the one door through which they are read and written.

    An exact optimiser may leave idle rows as they were last updated and defer what they lack
    (see `tf_compemb.optimizers.deferred_update`). Who reads through `read`, or by any interface of
    the variable itself, gets current rows all the same.

    Args:
        variable: The table's variable in the layer, shape (rows, width).

    Attributes:
        row_constraint: None, or the constraint of single rows that the optimiser applies.
        served_rows: None, or, while a model is exported, ids to float32 rows of what is served
            instead of the variable.
    """

    def __init__(self, variable: Any) -> None:
        self.variable = variable
        self.row_constraint: Any = None
        self.served_rows: Callable[[Any], Any] | None = None
        # What optimisers have deferred. Movements of idle rows do not depend on the rows, so those
        # of several optimisers add up.
        self._deferred: list[Any] = []
        # What the next optimiser will defer, for graphs that are traced before it is built.
        self._reserved: Any = None
        self._readers: list[_Reader] = []

    @property
    def raw_variable(self) -> Any:
        """The framework's own variable."""
        if BACKEND == "tensorflow" and not LEGACY:
            return getattr(self.variable, "value", self.variable)
        return self.variable

    @property
    def is_deferred(self) -> bool:
        """Whether stored rows may lack updates when what is run now, or traced, reads them."""
        return bool(self._corrections())

    def read(self, ids: Any, dtype: str, neutral: float | None = None) -> Any:
        """Rows as vectors of the compute type. See `tf_compemb.storage.table.read_rows`."""
        if self.served_rows is not None:
            rows = self._served_rows(ids, neutral)
        elif neutral is not None or self.variable.shape[0] <= small_table.SMALL_TABLE:
            rows = small_table.gather_with_dense_gradient(self._all_rows(), ids, neutral)
        else:
            rows = self._corrected(self._stored_rows(ids), ids)
        return rows if dtype == "float32" else ops.cast(rows, dtype)

    def write(self, rows: Any, values: Any) -> None:
        """Overwrites distinct rows (n,) by current values (n, width), on TensorFlow."""
        for deferred_update in self._deferred:
            deferred_update.bring_up_to_date(rows)
        with rows_as_stored():
            self.raw_variable.scatter_update(tf.IndexedSlices(values, rows))

    def materialize(self) -> None:
        """Brings every stored row up to date."""
        for deferred_update in self._deferred:
            deferred_update.materialize()

    def correction(self, ids: Any) -> Any:
        """What stored rows lack: add it to them. None where they lack nothing."""
        total = None
        for deferred_update in self._corrections():
            correction = deferred_update.correction(ids)
            total = correction if total is None else total + correction
        return total

    def attach(self, deferred_update: Any) -> None:
        """Lets an optimiser defer updates from now on."""
        self._reserved = None
        self._deferred.append(deferred_update)
        if deferred_update.stays_current is None:
            deferred_update.stays_current = self._is_read_without(deferred_update)
        give_current_rows(self.raw_variable, self.materialize, self.correction)
        for replica in getattr(self.raw_variable, "values", ()):
            give_current_rows(replica, self.materialize)

    def detach(self, deferred_update: Any) -> None:
        """Brings every row up to date and no longer lets an optimiser defer updates."""
        self._apart(deferred_update.materialize)
        self._deferred.remove(deferred_update)

    def forget_former_optimizers(self) -> None:
        """Detaches what optimisers that are gone had deferred."""
        if self._deferred:
            gc.collect()
        for deferred_update in list(self._deferred):
            if deferred_update.owner() is None:
                self.detach(deferred_update)

    def reserved_for(self, rule: Any) -> Any:
        """What graphs that were traced before an optimiser of this rule was built read, or None."""
        reserved = self._reserved
        return reserved if reserved is not None and reserved.rule == rule else None

    def _corrected(self, rows: Any, ids: Any) -> Any:
        correction = self.correction(ids)
        return rows if correction is None else rows + correction

    def _corrections(self) -> list[Any]:
        if BACKEND != "tensorflow":
            return []
        if tf.executing_eagerly():
            return self._deferred
        self._reserve()
        found = [*self._deferred, *([] if self._reserved is None else [self._reserved])]
        self._note_readers(found)
        return found

    def _reserve(self) -> None:
        """Makes what the one optimiser will need that is likely to be built with this table."""
        if self._reserved is not None or not self.variable.trainable or not _expected():
            return
        self.forget_former_optimizers()
        expected = _expected()
        if self._deferred or len({o.rule for o in expected}) != 1:
            return
        self._reserved = self._apart(lambda: expected[0].deferred_update(self))

    def _apart(self, call: Callable[[], Any]) -> Any:
        """What a function returns that runs in a thread of its own.

        There no graph is traced, in which functions that were traced before may make no variables,
        and no replica runs, which could not update the others' variables.
        """
        strategy = getattr(self.raw_variable, "distribute_strategy", None)

        def run() -> Any:
            with contextlib.nullcontext() if strategy is None else strategy.scope():
                return call()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(run).result()

    def _note_readers(self, corrections: list[Any]) -> None:
        self._readers = [reader for reader in self._readers if reader.graph() is not None]
        known = {id(reader.graph()) for reader in self._readers}
        references = [weakref.ref(correction) for correction in corrections]
        graphs = _graphs_being_traced()
        self._readers += [
            _Reader(weakref.ref(graph), weakref.ref(graphs[-1]), graphs[-1].name, references)
            for graph in graphs
            if id(graph) not in known
        ]

    def _is_read_without(self, deferred_update: Any) -> bool:
        """Whether a graph that may still be run reads the table without a deferred update."""
        if any(reader.lacks(deferred_update) for reader in self._readers):
            gc.collect()
        stale = [reader for reader in self._readers if reader.lacks(deferred_update)]
        if stale:
            dropped = _graphs_dropped_by_models()
            stale = [reader for reader in stale if id(reader.outermost()) not in dropped]
        if stale:
            warnings.warn(
                f"The function {stale[0].function} was traced before the optimizer of the table "
                f"{self.variable.name} was made, and reads stored rows only. So that it sees "
                "current ones every step now visits the whole table, which is slow: make the "
                "optimizer, and build it if there are several, before the model is first called "
                "in a tf.function.",
                stacklevel=2,
            )
        return bool(stale)

    def _stored_rows(self, ids: Any) -> Any:
        if BACKEND != "tensorflow":
            return gather_rows(self.variable, ids)
        if may_read():
            from tf_compemb.native_kernels.reading import rows_by_kernel

            rows = rows_by_kernel(self.raw_variable, ids)
            if rows is not None:
                return rows
        with rows_as_stored():
            return gather_rows(self.variable, ids)

    def _all_rows(self) -> Any:
        if BACKEND != "tensorflow":
            return ops.convert_to_tensor(self.variable)
        with rows_as_stored():
            rows = ops.convert_to_tensor(self.variable)
        return self._corrected(rows, np.arange(self.variable.shape[0]))

    def _served_rows(self, ids: Any, neutral: float | None) -> Any:
        assert self.served_rows is not None
        if neutral is None:
            return self.served_rows(ids)
        count = self.variable.shape[0]
        rows = self.served_rows(ops.minimum(ids, count - 1))
        return ops.where(ops.expand_dims(ids == count, -1), ops.cast(neutral, rows.dtype), rows)


def _expected() -> list[Any]:
    return [optimizer for optimizer in _unbuilt if not optimizer.is_built]


def table_of(variable: Any) -> Table:
    """The table of a layer's variable; made on first use where a copy of a layer has none."""
    if not is_table(variable):
        variable.table = Table(variable)
    return variable.table


def is_table(variable: Any) -> bool:
    """Whether a variable is a table whose layer reads it by rows."""
    return isinstance(getattr(variable, "table", None), Table)


def _graphs_dropped_by_models() -> set[int]:
    """Ids of the graphs of Keras' own functions that no model runs any more."""
    objects = gc.get_objects()
    models = [o for o in objects if issubclass(type(o), keras.Model)]
    kept = _functions_within(vars(m).get(name) for m in models for name in _FUNCTIONS_OF_MODELS)
    modules = {cls.__module__ for cls in keras.Model.__mro__}
    return {
        id(concrete.graph)
        for function in objects
        if _is_traceable(function)
        and getattr(function.python_function, "__module__", "") in modules
        and id(function) not in kept
        for concrete in function._list_all_concrete_functions()
    }


def _functions_within(values: Iterable[Any]) -> set[int]:
    """Ids of functions, and of those that they have in variables around them."""
    found: set[int] = set()
    left = list(values)
    while left:
        value = left.pop()
        if id(value) in found or not (_is_traceable(value) or inspect.isfunction(value)):
            continue
        found.add(id(value))
        function = value.python_function if _is_traceable(value) else value
        left += [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    return found


def _is_traceable(value: Any) -> bool:
    return issubclass(type(value), tf.types.experimental.PolymorphicFunction)


def _graphs_being_traced() -> list[Any]:
    """The function's graph that is traced and those around it, but none that infers a shape."""
    graph = tf.compat.v1.get_default_graph()
    graphs = []
    while getattr(graph, "outer_graph", None) is not None:
        graphs.append(graph)
        graph = graph.outer_graph
    infers_a_shape = any(g.name.endswith(("keras_graph", "scratch_graph")) for g in graphs)
    return [] if infers_a_shape else graphs
