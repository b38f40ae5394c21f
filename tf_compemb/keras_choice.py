"""The Keras and the backend that the environment chooses, known before Keras is imported."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

from tf_compemb.missing_packages import missing, require

BACKENDS = ("tensorflow", "jax", "torch")
_EXTRAS = {"tensorflow": "train", "jax": "jax", "torch": "torch"}


def legacy_is_chosen() -> bool:
    """Whether layers are tf_keras layers, as TensorFlow reads `TF_USE_LEGACY_KERAS`."""
    return os.environ.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true")


def choose() -> tuple[bool, str]:
    """Whether tf_keras is chosen, and Keras 3's backend, which is TensorFlow then.

    Nothing is imported, so that a choice that cannot work is refused at once, and a backend that
    was not meant is never loaded.

    Raises:
        ImportError: The choice cannot work here; the message says what to do.
    """
    legacy = legacy_is_chosen()
    if legacy and "keras" not in sys.modules and not os.environ.get("KERAS_BACKEND"):
        os.environ["KERAS_BACKEND"] = "tensorflow"
    backend = _backend()
    if legacy and backend != "tensorflow":
        raise ImportError(
            "TF_USE_LEGACY_KERAS=1 selects tf_keras, which runs on TensorFlow only, but Keras 3 "
            f"was set to the {backend!r} backend. Unset TF_USE_LEGACY_KERAS, or set "
            "KERAS_BACKEND=tensorflow."
        )
    if backend not in BACKENDS:
        raise ImportError(
            "tf_compemb runs on the tensorflow, jax and torch backends of Keras, not on "
            f"{backend!r}. Set KERAS_BACKEND to one of them."
        )
    if legacy:
        needed = ("tensorflow", "tf_keras")
        require("tf_keras, which TF_USE_LEGACY_KERAS=1 selects,", needed, "train")
    elif not _is_installed(backend):
        others = [name for name in BACKENDS if _is_installed(name)]
        instead = f"set KERAS_BACKEND={others[0]}, which is installed" if others else None
        raise missing(backend, f"Keras' {backend} backend", _EXTRAS[backend], instead)
    return legacy, backend


def _backend() -> str:
    """The backend that Keras 3 has, or will have when it is imported."""
    if keras := sys.modules.get("keras"):
        return str(keras.config.backend())
    return os.environ.get("KERAS_BACKEND") or _configured_backend()


def _configured_backend() -> str:
    """The backend in Keras' configuration file, or Keras' default."""
    home = Path("~").expanduser()
    folder = home / ".keras" if os.access(home, os.W_OK) else Path("/tmp/.keras")
    folder = Path(os.environ.get("KERAS_HOME", folder)).expanduser()
    try:
        return str(json.loads((folder / "keras.json").read_text())["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
