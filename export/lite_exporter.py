"""From a model in memory to a TFLite file for use on a device, checked by its interpreter."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError

from tf_compemb._keras import lite_ops
from tf_compemb._native_log import without_native_log
from tf_compemb.export import signatures
from tf_compemb.export.checks import Expectation, largest_difference
from tf_compemb.export.errors import ExportError
from tf_compemb.export.exporter import (
    Plan,
    Source,
    check_arguments,
    input_dims,
    make_plan,
    served_module,
    tolerance_of,
)
from tf_compemb.export.model_card import describe_signatures, write_card
from tf_compemb.export.served_form import sized_layers
from tf_compemb.export.serving_module import ServingModule
from tf_compemb.export.sizes import ExpectedBytes
from tf_compemb.export.versions import check_version, partial_version

FILE = "model.tflite"
# A FlatBuffer's offsets have 32 bits, of which one is the sign.
_LARGEST_FILE = 2**31 - 2**20
# The graph takes a few hundred bytes an operation; a second copy of a table is more.
_GRAPH_BYTES = 2**17
# The interpreter sums in another order than TensorFlow, which deep cross networks amplify.
_TOLERANCE = 1e-3


def tflite(
    model: Any,
    path: str | Path,
    *,
    version: int | None = None,
    inputs: Mapping[str, tf.TensorSpec] | None = None,
    source: Source | None = None,
) -> Path:
    """Exports a model as `PATH/VERSION/model.tflite`, for the LiteRT interpreter.

    It has the signature `serving_default` of `saved_model`, in float32: the interpreter would
    expand a float16 table to float32 as a whole, before it reads a row. It does not check ids: one
    that is out of range gets another id's vector, or an error.

    Args:
        model: See `saved_model`.
        path: See `saved_model`.
        version: See `saved_model`.
        inputs: See `saved_model`.
        source: See `saved_model`; the encoder is not used.

    Returns:
        The directory of the version.

    Raises:
        ExportError: See `saved_model`; or the model is larger than a TFLite file can be.
    """
    check_arguments(model, "float32")
    base = Path(path)
    source = dataclasses.replace(source or Source(), numbering=None)
    check_version(base, version)
    with tempfile.TemporaryDirectory() as scratch, partial_version(base) as (folder, publish):
        plan = make_plan(model, source, inputs, Path(scratch))
        sources = {signatures.DEFAULT: plan.sources[signatures.DEFAULT]}
        plan = dataclasses.replace(plan, sources=sources)
        (expectation,) = plan.expectations()
        expected = _convert(plan, Path(scratch) / "saved_model", folder / FILE)
        tolerance = max(_TOLERANCE, tolerance_of(model, "float32"))
        with without_native_log():  # The interpreter says which delegate it has made.
            difference = _check(folder / FILE, expectation, tolerance)
        details = {
            "format": "tflite",
            "precision": "float32",
            "signatures": describe_signatures(sources),
            "check": {
                "rows": plan.rows_source,
                "largest_differences": {signatures.DEFAULT: difference},
                "tolerance": tolerance,
            },
        }
        write_card(folder, model, expected, details, source.about)
        return publish(version)


def _convert(plan: Plan, scratch: Path, target: Path) -> ExpectedBytes:
    with contextlib.ExitStack() as stack:
        stack.enter_context(lite_ops())
        module, expected, _ = stack.enter_context(served_module(plan, "float32"))
        if _divides_wide_integers(module):
            stack.close()
            module, expected, _ = stack.enter_context(_with_narrow_ids(plan))
        if expected.weights > _LARGEST_FILE:
            raise ExportError(
                f"A TFLite file has at most 2 GiB, and the model has {expected.weights} bytes: "
                "compress its embeddings further."
            )
        module.save(scratch)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(scratch), signature_keys=[signatures.DEFAULT]
    )
    try:
        content = converter.convert()
    except ConverterError as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"TensorFlow cannot convert the model to TFLite: {reason}") from error
    if not expected.weights <= len(content) <= expected.weights + _GRAPH_BYTES:
        raise ExportError(
            f"The TFLite file has {len(content)} bytes, and the weights in it have "
            f"{expected.weights}: a variable is missing in it, or there twice."
        )
    target.write_bytes(content)
    return expected


def _divides_wide_integers(module: ServingModule) -> bool:
    (function,) = module.signatures.values()
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    wide = tf.int64.as_datatype_enum
    return any(n.op == "FloorDiv" and n.attr["T"].type == wide for n in nodes)


@contextlib.contextmanager
def _with_narrow_ids(plan: Plan) -> Iterator[Any]:
    """As `served_module`, with ids of 32 bits, since TFLite has no division of others."""
    largest = max((n for layer in sized_layers(plan.model) for n in input_dims(layer)), default=0)
    if largest > 2**31 - 1:
        raise ExportError(
            f"TFLite divides integers of 32 bits only, and a field has {largest} ids: use a "
            "method that does not divide ids, such as hash."
        )
    with lite_ops(bits=32), served_module(plan, "float32") as served:
        yield served


def _check(file: Path, expectation: Expectation, tolerance: float) -> float:
    with warnings.catch_warnings():
        # Of TensorFlow: the interpreter moves to a package of its own, with the same kernels.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(str(file))
    runner = interpreter.get_signature_runner(expectation.signature)
    details = runner.get_input_details()
    inputs = {name: np.asarray(x, details[name]["dtype"]) for name, x in expectation.inputs.items()}
    worst = 0.0
    for rows in (1, 7, None):
        found = runner(**{name: x[:rows] for name, x in inputs.items()})
        expected = {name: x[:rows] for name, x in expectation.outputs.items()}
        worst = max(worst, largest_difference(file.name, found, expected, tolerance))
    return worst
