"""Our layers in tf_keras by the compiled kernels, and nothing where these are not built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tf_compemb import native_kernels
from tf_compemb.benchmark.engines import UnavailableError, keras_tensorflow

PACKAGES = keras_tensorflow.PACKAGES
details = keras_tensorflow.details


def prepare(task: str, settings: dict[str, Any]) -> Callable[[], Any]:
    """As `keras_tensorflow.prepare`.

    Raises:
        UnavailableError: The kernels are not built.
    """
    if not native_kernels.available():
        raise UnavailableError("not built: tf-compemb native-kernels")
    return keras_tensorflow.prepare(task, settings)
