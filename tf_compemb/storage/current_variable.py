"""TensorFlow variables of tables, read and written by others than the table's own layer.

An exact optimiser leaves idle rows in the variable as they were last updated. Whoever takes them
out of it, by whatever interface (`numpy`, `tf.gather`, Keras' `get_weights` and saving, a
`tf.train.Checkpoint`, `copy.deepcopy`, arithmetic), must get current ones, and whoever overwrites
them must not have what they lacked added on top. So while updates are deferred the variable has a
subclass of its own class in which every such method first brings the rows up to date; where a
graph is traced, the correction is added to what is read.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

_as_stored: contextvars.ContextVar[bool] = contextvars.ContextVar("rows_as_stored", default=False)


@contextlib.contextmanager
def rows_as_stored() -> Iterator[None]:
    """Within, variables of tables are read and written as they are stored.

    For checkpoints that hold the model and its optimiser: restored together, both are as they were
    to the bit, while bringing rows up to date rounds them once more.
    """
    token = _as_stored.set(True)
    try:
        yield
    finally:
        _as_stored.reset(token)


def give_current_rows(
    variable: Any, materialize: Callable[[], None], correction: Callable[[Any], Any] | None = None
) -> None:
    """Lets all who read or write a `tf.Variable` find current rows.

    Args:
        variable: A table's variable, or one that an optimiser keeps for it.
        materialize: Brings its rows up to date.
        correction: Gives what rows lack, by their numbers, or None where they lack nothing. Without
            it what a graph reads is as stored.
    """
    variable.bring_up_to_date = materialize
    variable.correction_of = correction
    if not isinstance(variable, _CurrentRows):
        variable.__class__ = _current_class(type(variable))


_current_classes: dict[type, type] = {}


def _current_class(cls: type) -> type:
    if cls not in _current_classes:
        # TensorFlow asks which of these a class has: it must not have more than its own.
        own = {name: method for name, method in _WRAPPED.items() if _defines(cls, name)}
        _current_classes[cls] = type(f"Current{cls.__name__}", (_CurrentRows, cls), own)
    return _current_classes[cls]


def _defines(cls: type, name: str) -> bool:
    """Whether a class of variables has a method that is more than its base's default."""
    found = next((base for base in cls.__mro__ if name in vars(base)), object)
    return found not in (object, tf.__internal__.tracking.Trackable)


class _CurrentRows:
    """Mixin over a class of `tf.Variable`. Its attributes are set by `give_current_rows`."""

    bring_up_to_date: Callable[[], None]
    correction_of: Callable[[Any], Any] | None

    @property
    def _handle(self) -> Any:
        # TensorFlow's compiled dispatch of eager ops reads a variable by this attribute.
        if "_handle" not in self.__dict__:
            raise AttributeError("a distributed variable has no handle of its own")
        if tf.executing_eagerly():
            self._prepare()
        return self.__dict__["_handle"]

    @_handle.setter
    def _handle(self, handle: Any) -> None:
        self.__dict__["_handle"] = handle

    @property
    def handle(self) -> Any:
        """The resource, through which the table itself and gradients go."""
        if "_handle" in self.__dict__:
            return self.__dict__["_handle"]
        return super().handle  # type: ignore[misc]

    def _prepare(self) -> None:
        """Brings rows up to date, unseen by gradient tapes, unless they are wanted as stored."""
        if not _as_stored.get():
            with rows_as_stored(), tf.init_scope():
                self.bring_up_to_date()

    def _stored(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        method = getattr(super(), name, None)
        if method is None:  # Of a distributed variable, which hands on what it does not have.
            method = self.__getattr__(name)  # type: ignore[attr-defined]
        with rows_as_stored():
            return method(*args, **kwargs)

    def _current(self, rows: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """What a reading method gives for row numbers: of rows brought up to date, or corrected."""
        if _as_stored.get():
            return self._stored(name, *args, **kwargs)
        if tf.executing_eagerly():
            self._prepare()
            return self._stored(name, *args, **kwargs)
        stored = self._stored(name, *args, **kwargs)
        correction = None if self.correction_of is None else self.correction_of(rows)
        return stored if correction is None else stored + tf.cast(correction, stored.dtype)

    def _whole(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        rows = np.arange(self.shape[0])  # type: ignore[attr-defined]
        return self._current(rows, name, *args, **kwargs)

    def value(self, *args: Any, **kwargs: Any) -> Any:
        """All rows, current."""
        return self._whole("value", *args, **kwargs)

    def read_value(self, *args: Any, **kwargs: Any) -> Any:
        """All rows, current."""
        return self._whole("read_value", *args, **kwargs)

    def read_value_no_copy(self, *args: Any, **kwargs: Any) -> Any:
        """All rows, current."""
        return self._whole("read_value_no_copy", *args, **kwargs)

    def _dense_var_to_tensor(self, *args: Any, **kwargs: Any) -> Any:
        return self._whole("_dense_var_to_tensor", *args, **kwargs)

    def sparse_read(self, indices: Any, *args: Any, **kwargs: Any) -> Any:
        """Rows by their numbers, current: what `tf.gather` calls."""
        return self._current(indices, "sparse_read", indices, *args, **kwargs)

    def gather_nd(self, indices: Any, *args: Any, **kwargs: Any) -> Any:
        """Numbers by their places, current: what `tf.gather_nd` calls."""
        if _as_stored.get():
            return self._stored("gather_nd", indices, *args, **kwargs)
        return tf.gather_nd(self.value(), indices)


def _converted(self: Any, *args: Any, **kwargs: Any) -> Any:
    return self._whole("__tf_tensor__", *args, **kwargs)


def _writing(name: str) -> Any:
    """A method that writes: what rows lacked until now must not be added to them later."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if tf.executing_eagerly():
            self._prepare()
        elif not _as_stored.get() and self.correction_of is not None:
            with rows_as_stored():
                self.bring_up_to_date()
        return self._stored(name, *args, **kwargs)

    return _documented(method, name)


def _copying(name: str) -> Any:
    """A method that takes all rows out of the variable, or puts all in, outside of graphs."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._prepare()
        return self._stored(name, *args, **kwargs)

    return _documented(method, name)


def _documented(method: Any, name: str) -> Any:
    method.__name__ = name
    method.__doc__ = f"As of `tf.Variable`, on current rows: `{name}`."
    return method


_WRITING = (
    *("assign", "assign_add", "assign_sub", "batch_scatter_update", "_strided_slice_assign"),
    *(f"scatter_{rule}" for rule in ("add", "div", "max", "min", "mul", "sub", "update")),
    *(f"scatter_nd_{rule}" for rule in ("add", "max", "min", "sub", "update")),
)
_COPYING = (
    *("numpy", "__deepcopy__", "__reduce__"),
    # Of checkpoints and SavedModels.
    *("_serialize_to_tensors", "_restore_from_tensors", "_gather_saveables_for_checkpoint"),
    "_copy_trackable_to_cpu",
)
_WRAPPED = {
    "__tf_tensor__": _converted,
    **{name: _writing(name) for name in _WRITING},
    **{name: _copying(name) for name in _COPYING},
}
