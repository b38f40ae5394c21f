"""One version of a model from its loading to its end, with a count of the requests it answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tf_compemb.native_session import NativeError, NativeSession, Signature
from tf_compemb.serving.status_codes import Code, failed_precondition
from tf_compemb.serving.version_directories import Fingerprint


class State(IntEnum):
    """The states of `ModelVersionStatus`, by its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Runner(Protocol):
    """What runs a signature: a session, or a batcher before it."""

    def run(
        self, signature_name: str, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """As `NativeSession.run`."""


class Servable:
    """A version of a model.

    Args:
        name: The model's name.
        version: The version's number.
        path: The version's folder.
        files: What its files looked like when it was chosen.

    Attributes:
        state: Where it is in its life.
        error: Why it could not be loaded, if so.
        session: The loaded model.
        runner: What requests go through; `session` unless requests are batched.
    """

    def __init__(self, name: str, version: int, path: Path, files: Fingerprint) -> None:
        self.name, self.version, self.path, self.files = name, version, path, files
        self.state = State.START
        self.error: NativeError | None = None
        self.session: NativeSession | None = None
        self.runner: Runner | None = None
        self._users = 0
        self._changed = threading.Condition()

    def signature(self, name: str) -> tuple[str, Signature]:
        """A signature and its name; an empty name is `serving_default`.

        Raises:
            NativeError: FAILED_PRECONDITION: no such signature.
        """
        assert self.session is not None
        name = name or "serving_default"
        if name not in self.session.signatures:
            raise failed_precondition(f'Serving signature key "{name}" not found.')
        return name, self.session.signatures[name]

    def run(
        self, signature_name: str, inputs: Mapping[str, Any], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Runs a signature, in a batch with others if requests are batched."""
        assert self.runner is not None
        return self.runner.run(signature_name, inputs, outputs)

    def use(self) -> bool:
        """Notes a request; False when the version is not available. `release` must follow True."""
        with self._changed:
            if self.state is not State.AVAILABLE:
                return False
            self._users += 1
            return True

    def release(self) -> None:
        """The request is answered."""
        with self._changed:
            self._users -= 1
            self._changed.notify_all()

    def publish(self) -> None:
        """Requests may use it from now on."""
        with self._changed:
            self.state = State.AVAILABLE

    def fail(self, error: Exception) -> None:
        """It could not be loaded."""
        wrapped = NativeError(Code.UNKNOWN, f"{type(error).__name__}: {error}")
        self.error = error if isinstance(error, NativeError) else wrapped
        self.state = State.END

    def retire(self) -> None:
        """Takes no further request, waits for those it has, and frees the model."""
        with self._changed:
            self.state = State.UNLOADING
            self._changed.wait_for(lambda: self._users == 0)
        if self.session is not None:
            self.session.close()
        self.session = self.runner = None
        self.state = State.END
