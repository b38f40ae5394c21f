"""Who runs a case: a module of this package, in a process of its own.

An engine's module has `PACKAGES`, the distributions whose versions are reported, and
`prepare(task, settings)`, which returns a function to be called again and again: it returns a
mapping from measure to value that it found itself, or anything else and is timed. It may have
`details()`, what else is reported, by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tf_compemb.missing_packages import install_command
from tf_compemb.native_kernels import SWITCH


class UnavailableError(RuntimeError):
    """A case cannot run here, and nothing is wrong; the message says what is not there."""


@dataclass(frozen=True)
class Engine:
    """How a process for the cases of an engine is started.

    Attributes:
        module: Module of this package.
        needs: Modules that must be installed.
        extra: The extra that has them.
        environment: Variables of the process.
        is_peer: Whether the interpreter for peers runs it.
        then: What is installed after the extra, without what it requires.
    """

    module: str
    needs: tuple[str, ...]
    extra: str
    environment: Mapping[str, str] = field(default_factory=dict)
    is_peer: bool = False
    then: str = ""

    def install(self, python: str) -> str:
        """A command that installs for an interpreter what the engine needs."""
        command = install_command(self.extra, python)
        after = f" && {python} -m pip install --no-deps {self.then}" if self.then else ""
        return command + after


_KERAS3 = {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "0"}
_TF_KERAS = {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "1"}
_OURS = Engine("keras_tensorflow", ("tf_keras", "tensorflow_recommenders"), "train", _TF_KERAS)

ENGINES = {
    "numpy": Engine("gather_limit", ("numpy",), "train"),
    "tf_keras": _OURS,
    "with kernels": replace(_OURS, module="with_kernels", environment={**_TF_KERAS, SWITCH: "1"}),
    "without kernels": replace(_OURS, environment={**_TF_KERAS, SWITCH: "0"}),
    "keras3": Engine("keras_tensorflow", ("tensorflow", "keras"), "train", _KERAS3),
    "keras-rs": Engine("keras_tensorflow", ("tensorflow", "keras_rs"), "benchmark", _KERAS3, True),
    "torch": Engine("torch_tables", ("torch",), "benchmark", is_peer=True),
    "fbgemm": Engine("torch_tables", ("torch", "fbgemm_gpu"), "benchmark", is_peer=True),
    "torchrec": Engine(
        "torch_tables",
        ("torch", "fbgemm_gpu", "torchrec"),
        "benchmark",
        is_peer=True,
        # Its requirement fbgemm-gpu is the build for GPUs, which would overwrite the one for CPUs.
        then="torchrec==1.8.0",
    ),
    "jax": Engine(
        "keras_device",
        ("keras", "jax"),
        "jax",
        {
            "KERAS_BACKEND": "jax",
            "TF_USE_LEGACY_KERAS": "0",
            # The GPU is shared with the process for torch.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        },
    ),
    "keras-torch": Engine(
        "keras_device",
        ("keras", "torch"),
        "torch",
        {"KERAS_BACKEND": "torch", "TF_USE_LEGACY_KERAS": "0"},
    ),
    "programs": Engine("programs", ("pyarrow",), "train"),
    "process-memory": Engine("process_memory", ("tf_keras",), "train", _TF_KERAS),
    "served": Engine("served_model", ("tf_keras",), "train", _TF_KERAS),
}
