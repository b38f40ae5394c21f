"""A SavedModel run by TensorFlow's own C++ loader and session, as TF-Serving runs it.

`tf.saved_model.load` rebuilds Python objects and accepts models that every TF-Serving request
fails on. This is the other path: the C API's `TF_LoadSessionFromSavedModel`, which restores the
variables into the graph and knows nothing of Python or Keras. TensorFlow must be installed; it is
not imported.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tf_compemb._tensorflow_c import (
    NUMPY_DTYPES,
    STRING,
    NativeError,
    Output,
    Status,
    dtype_name,
    dtype_number,
    library,
    new_tensor,
    to_numpy,
)

__all__ = ["NativeError", "NativeSession", "Signature", "TensorInfo"]

_INIT_OP = "__saved_model_init_op"


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a signature.

    Attributes:
        name: The tensor's name in the graph, such as `"serving_default_ids:0"`.
        dtype: The dtype's name in `tf.dtypes`, such as `"int64"`, `"bfloat16"` or `"string"`.
        dtype_number: Its number in TensorFlow's types.proto.
        shape: A size for each axis, None where any size goes; None for an unknown rank.
    """

    name: str
    dtype: str
    dtype_number: int
    shape: tuple[int | None, ...] | None

    @property
    def numpy_dtype(self) -> np.dtype:
        """NumPy's dtype for it; `object` (of bytes) for strings.

        Raises:
            NativeError: NumPy has none (resources, variants).
        """
        if self.dtype_number not in NUMPY_DTYPES:
            raise NativeError(12, f"{self.name} has dtype {self.dtype}, which has no NumPy form")
        return NUMPY_DTYPES[self.dtype_number]


@dataclass(frozen=True)
class Signature:
    """What a signature takes and gives, by name.

    Attributes:
        inputs: The inputs.
        outputs: The outputs.
        method_name: Such as `"tensorflow/serving/predict"`.
    """

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    method_name: str


class NativeSession:
    """A SavedModel, loaded for inference. Runs may come from several threads at once.

    Threads are TensorFlow's choice unless given; the first session of a process decides them for
    all that follow in it.

    Args:
        path: The directory with `saved_model.pb`.
        tags: The tags of the graph to load.
        intra_op_threads: Threads that share the work of one operation.
        inter_op_threads: Operations that run at the same time.

    Attributes:
        signatures: The signatures by name, without the one that initialises tables.
        serialized_signatures: Every signature as a serialized `SignatureDef`.

    Raises:
        ImportError: TensorFlow is not installed.
        NativeError: TensorFlow refused the model; code and message say why.
    """

    def __init__(
        self,
        path: str | Path,
        tags: Sequence[str] = ("serve",),
        *,
        intra_op_threads: int | None = None,
        inter_op_threads: int | None = None,
    ) -> None:
        self.path = Path(path)
        self._runs = 0
        self._changed = threading.Condition()
        self._session: ctypes.c_void_p | None = None
        config = _messages()["ConfigProto"](
            intra_op_parallelism_threads=intra_op_threads or 0,
            inter_op_parallelism_threads=inter_op_threads or 0,
        )
        self._graph = ctypes.c_void_p(library().TF_NewGraph())
        try:
            signatures = self._load(tags, config.SerializeToString())
        except BaseException:
            library().TF_DeleteGraph(self._graph)
            raise
        self.serialized_signatures = {k: v.SerializeToString() for k, v in signatures.items()}
        self.signatures = {
            name: _signature(definition)
            for name, definition in signatures.items()
            if name != _INIT_OP
        }
        names = {
            info.name
            for signature in self.signatures.values()
            for info in (*signature.inputs.values(), *signature.outputs.values())
        }
        self._tensors = {name: self._find(name) for name in names if name}

    def _load(self, tags: Sequence[str], config: bytes) -> dict[str, Any]:
        tf = library()
        options = ctypes.c_void_p(tf.TF_NewSessionOptions())
        meta_graph = tf.TF_NewBuffer()
        encoded = (ctypes.c_char_p * len(tags))(*[tag.encode() for tag in tags])
        try:
            with Status() as status:
                tf.TF_SetConfig(options, config, len(config), status)
            with Status() as status:
                session = tf.TF_LoadSessionFromSavedModel(
                    options,
                    None,
                    str(self.path).encode(),
                    encoded,
                    len(tags),
                    self._graph,
                    meta_graph,
                    status,
                )
            self._session = ctypes.c_void_p(session)
            content = meta_graph.contents
            parsed = _messages()["MetaGraphDef"].FromString(
                ctypes.string_at(content.data, content.length)
            )
        finally:
            tf.TF_DeleteBuffer(meta_graph)
            tf.TF_DeleteSessionOptions(options)
        return dict(sorted(parsed.signature_def.items()))

    def _find(self, tensor: str) -> Output:
        operation, _, index = tensor.partition(":")
        found = library().TF_GraphOperationByName(self._graph, operation.encode())
        if found is None:
            self.close()
            raise NativeError(5, f"A signature names {tensor!r}, which the graph does not have")
        return Output(found, int(index or 0))

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature_name: One of `signatures`.
            inputs: An array for each input. An array must have the input's dtype; anything else
                (numbers, lists) is made one. Strings are bytes or text, in arrays of dtype object.
            outputs: Names of the wanted outputs; None for all.

        Returns:
            The outputs by name; strings as object arrays of bytes.

        Raises:
            NativeError: The signature, an input or an output does not exist, an input is missing,
                or TensorFlow refused the run (for example an id out of range).
        """
        if signature_name not in self.signatures:
            raise NativeError(9, f'Serving signature key "{signature_name}" not found.')
        signature = self.signatures[signature_name]
        wanted = list(signature.outputs) if outputs is None else list(outputs)
        _check_names("input", set(inputs), set(signature.inputs), missing_is_wrong=True)
        _check_names("output", set(wanted), set(signature.outputs), missing_is_wrong=False)
        fed = [signature.inputs[name] for name in inputs]
        fetched = [signature.outputs[name] for name in wanted]
        if not all(info.name in self._tensors for info in (*fed, *fetched)):
            raise NativeError(12, f"Signature {signature_name!r} has sparse or composite tensors")
        arrays = [
            _array(name, value, info)
            for (name, value), info in zip(inputs.items(), fed, strict=True)
        ]
        results = self._run(fed, arrays, fetched)
        return dict(zip(wanted, results, strict=True))

    def _run(
        self,
        fed: Sequence[TensorInfo],
        arrays: Sequence[np.ndarray],
        fetched: Sequence[TensorInfo],
    ) -> list[np.ndarray]:
        tf = library()
        feeds = (ctypes.c_void_p * len(fed))()
        results = (ctypes.c_void_p * len(fetched))()
        try:
            for position, (array, info) in enumerate(zip(arrays, fed, strict=True)):
                number = dtype_number(array, info.dtype_number)
                feeds[position] = new_tensor(array, number).value
            with self._open_session() as session, Status() as status:
                tf.TF_SessionRun(
                    session,
                    None,
                    (Output * len(fed))(*[self._tensors[info.name] for info in fed]),
                    feeds,
                    len(fed),
                    (Output * len(fetched))(*[self._tensors[info.name] for info in fetched]),
                    results,
                    len(fetched),
                    None,
                    0,
                    None,
                    status,
                )
            return [to_numpy(ctypes.c_void_p(tensor)) for tensor in results]
        finally:
            for tensor in (*feeds, *results):
                if tensor is not None:
                    tf.TF_DeleteTensor(tensor)

    @contextmanager
    def _open_session(self) -> Iterator[ctypes.c_void_p]:
        with self._changed:
            if self._session is None:
                raise NativeError(9, f"The session of {self.path} is closed")
            session = self._session
            self._runs += 1
        try:
            yield session
        finally:
            with self._changed:
                self._runs -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Frees the model's memory once the runs that have begun are over; later runs fail.

        The operating system sees the memory again where the allocator gives it back: oneDNN's pool
        does not (`TF_ENABLE_ONEDNN_OPTS=0` turns it off).
        """
        with self._changed:
            session, self._session = self._session, None
            if session is None:
                return
            self._changed.wait_for(lambda: self._runs == 0)
        tf = library()
        with Status() as status:
            tf.TF_CloseSession(session, status)
        with Status() as status:
            tf.TF_DeleteSession(session, status)
        tf.TF_DeleteGraph(self._graph)

    def __enter__(self) -> NativeSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_names(kind: str, given: set[str], known: set[str], *, missing_is_wrong: bool) -> None:
    if given == known or (given < known and not missing_is_wrong):
        return
    unknown, missing = sorted(given - known), sorted(known - given)
    said = [f"unknown {kind}s: {', '.join(unknown)}"] if unknown else []
    if missing and missing_is_wrong:
        said.append(f"missing {kind}s: {', '.join(missing)}")
    raise NativeError(3, f"{'; '.join(said)}. The signature has: {', '.join(sorted(known))}")


def _array(name: str, value: Any, info: TensorInfo) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    try:
        if info.dtype_number == STRING:
            return np.array(value, dtype=object)
        return np.asarray(value, dtype=info.numpy_dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise NativeError(3, f"Input {name!r} is not {info.dtype}: {error}") from None


def _signature(definition: Any) -> Signature:
    return Signature(
        inputs={name: _tensor_info(definition.inputs[name]) for name in sorted(definition.inputs)},
        outputs={
            name: _tensor_info(definition.outputs[name]) for name in sorted(definition.outputs)
        },
        method_name=definition.method_name,
    )


def _tensor_info(info: Any) -> TensorInfo:
    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if axis.size < 0 else axis.size for axis in info.tensor_shape.dim)
    return TensorInfo(info.name, dtype_name(info.dtype), info.dtype, shape)


@functools.cache
def _messages() -> dict[str, Any]:
    """The few protobuf messages that are read and written here."""
    library()  # Without TensorFlow, which brings protobuf, it says what to install.
    from tf_compemb._protobuf import declare, declare_map, message_classes, new_file

    file = new_file("native")
    declare(file, "Dim", size=(1, "int64"))
    declare(file, "Shape", dim=(2, "*Dim"), unknown_rank=(3, "bool"))
    declare(file, "Info", name=(1, "string"), dtype=(2, "int32"), tensor_shape=(3, "Shape"))
    definition = declare(file, "SignatureDef", method_name=(3, "string"))
    declare_map(definition, "inputs", 1, "Info")
    declare_map(definition, "outputs", 2, "Info")
    declare_map(declare(file, "MetaGraphDef"), "signature_def", 5, "SignatureDef")
    declare(
        file,
        "ConfigProto",
        intra_op_parallelism_threads=(2, "int32"),
        inter_op_parallelism_threads=(5, "int32"),
    )
    return message_classes(file)
