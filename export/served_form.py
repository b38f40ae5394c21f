"""The form of a model's embeddings that is served: each table once, in the type it is kept in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tf_compemb._keras import LEGACY
from tf_compemb.collection import EmbeddingCollection
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.group_lookup import GroupLookup
from tf_compemb.storage.current_variable import rows_as_stored
from tf_compemb.storage.table_rows import is_table, table_of

PRECISIONS = {"float32": tf.float32, "float16": tf.float16, "bfloat16": tf.bfloat16}


def tensorflow_variable(variable: Any) -> tf.Variable:
    """TensorFlow's own variable in one of either Keras."""
    if LEGACY:
        return getattr(variable, "_variable", variable)  # Unwraps those of mixed precision.
    return variable.value


def sized_layers(model: Any) -> list[Any]:
    """The layers whose `footprint()` is the model's, each byte in one of them."""
    found = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, (CompressedEmbedding, EmbeddingCollection))
    ]
    within = {
        id(part)
        for layer in found
        if isinstance(layer, EmbeddingCollection)
        for part in layer._flatten_layers(include_self=False)
    }
    return [layer for layer in found if id(layer) not in within]


class ServedForm:
    """A model with its embeddings in the form that is served, while the context lasts.

    Layers read through `for_inference()` where that differs, and tables from variables of the
    wanted type; rows are cast after they are read, never a table. Everything else is untouched:
    network weights keep their type, since they are small and would have to be cast whole at each
    request.

    Args:
        model: Of either Keras, built.
        precision: "float32", "float16" or "bfloat16".

    Attributes:
        variables: Every variable that a traced function may read, by a name of its own.
        embedding_names: The names of those that belong to embeddings.
    """

    def __init__(self, model: Any, precision: str) -> None:
        self._dtype = PRECISIONS[precision]
        self._restore = contextlib.ExitStack()
        self._readers = [
            layer
            for layer in model._flatten_layers()
            if isinstance(layer, (CompressedEmbedding, GroupLookup))
        ]
        self._served = {
            id(layer): layer.for_inference() if isinstance(layer, CompressedEmbedding) else layer
            for layer in self._readers
        }
        self._model = model
        self.variables: dict[str, tf.Variable] = {}
        self.embedding_names: set[str] = set()
        self.table_numbers = 0

    def __enter__(self) -> ServedForm:
        with contextlib.ExitStack() as stack:
            of_embeddings = set()
            for layer in self._readers:
                served = self._served[id(layer)]
                if served is not layer:
                    served.build(None)
                    stack.enter_context(_attribute(layer, "lookup", served.lookup))
                for weight in served.weights:
                    of_embeddings.add(id(weight))
                    self._add(weight, stack, is_embedding=True)
            for weight in self._model.variables:
                if id(weight) not in of_embeddings:
                    self._add(weight, stack, is_embedding=False)
            self._restore = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore.close()

    def _add(self, weight: Any, stack: contextlib.ExitStack, *, is_embedding: bool) -> None:
        variable = tensorflow_variable(weight)
        if is_embedding and is_table(weight):
            table_of(weight).materialize()
            variable = self._of_wanted_type(variable)
            self.table_numbers += int(variable.shape.num_elements())
            stack.enter_context(_served_rows(weight, variable))
        name = self._unused_name(getattr(weight, "path", None) or weight.name)
        self.variables[name] = variable
        if is_embedding:
            self.embedding_names.add(name)

    def _of_wanted_type(self, variable: tf.Variable) -> tf.Variable:
        if variable.dtype == self._dtype:
            return variable
        return tf.Variable(tf.cast(variable, self._dtype), trainable=False)

    def _unused_name(self, path: str) -> str:
        base = path.split(":")[0]
        name, count = base, 1
        while name in self.variables:
            count += 1
            name = f"{base}_{count}"
        return name


@contextlib.contextmanager
def _served_rows(weight: Any, variable: tf.Variable) -> Iterator[None]:
    table = table_of(weight)
    table.served_rows = lambda ids: tf.cast(_stored_rows(variable, ids), tf.float32)
    try:
        yield
    finally:
        table.served_rows = None


def _stored_rows(variable: tf.Variable, ids: Any) -> Any:
    with rows_as_stored():
        return tf.gather(variable, ids)


@contextlib.contextmanager
def _attribute(layer: Any, name: str, value: Any) -> Iterator[None]:
    """Shadows a method of one layer; through `vars`, so that Keras tracks nothing."""
    vars(layer)[name] = value
    try:
        yield
    finally:
        del vars(layer)[name]
