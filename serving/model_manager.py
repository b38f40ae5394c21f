"""The models that are served: their directories are watched, versions come and go."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tf_compemb.native_session import NativeError, NativeSession
from tf_compemb.serving.batching import Batcher, BatchingOptions
from tf_compemb.serving.metrics import Metrics
from tf_compemb.serving.model_config import ModelConfig, check_names
from tf_compemb.serving.servable import Servable, State
from tf_compemb.serving.status_codes import Code, failed_precondition, invalid_argument, not_found
from tf_compemb.serving.version_directories import (
    Fingerprint,
    find_versions,
    fingerprint,
    seconds_at_rest,
)

_log = logging.getLogger("tf_compemb.serving")

_REMEMBERED = 20  # Ended versions of a model whose status can be asked for.


@dataclass(frozen=True)
class LoadingOptions:
    """How versions are found and loaded.

    Attributes:
        poll_seconds: Time between two looks at the directories.
        settle_seconds: A version whose files changed later than that is still being written.
        intra_op_threads: As in `NativeSession`.
        inter_op_threads: As in `NativeSession`.
        batching: How requests are put together; None for one run each.
    """

    poll_seconds: float = 1.0
    settle_seconds: float = 1.0
    intra_op_threads: int | None = None
    inter_op_threads: int | None = None
    batching: BatchingOptions | None = None


class ModelManager:
    """Loads, swaps and unloads versions. A new one is loaded before an old one goes.

    Args:
        configs: The models.
        options: How versions are found and loaded.
        metrics: Where loads are counted.
        warm_up: Called with each loaded version before requests reach it; raises to refuse it.

    Raises:
        NativeError: INVALID_ARGUMENT: two models of one name.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        options: LoadingOptions,
        metrics: Metrics,
        warm_up: Callable[[Servable], None],
    ) -> None:
        check_names(configs)
        self._configs = {config.name: config for config in configs}
        self._options, self._metrics, self._warm_up = options, metrics, warm_up
        self._servables: dict[str, dict[int, Servable]] = {}
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()  # Guards the maps; never held while a model loads.
        self._refreshing = threading.Lock()
        self._reloading = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model versions", daemon=True)

    def start(self) -> None:
        """Loads what there is, then watches the directories in a thread of its own."""
        self._refresh_until_settled()
        self._thread.start()

    def close(self) -> None:
        """Ends watching and frees all models once their requests are answered."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._refreshing:
            for servable in self._all():
                if servable.state is State.AVAILABLE:
                    self._unload(servable)

    def reload(self, configs: Sequence[ModelConfig]) -> None:
        """Serves these models from now on, and no others.

        Raises:
            NativeError: A label names a version that is not available (nothing changes then), or a
                model has no version that loads (the others are served).
        """
        with self._reloading:
            self._replace(configs)

    def _replace(self, configs: Sequence[ModelConfig]) -> None:
        before = self._configs
        with self._refreshing:
            self._configs = {config.name: config for config in configs}
        self._refresh_until_settled()
        wrong_label = self._wrong_label()
        if wrong_label:
            with self._refreshing:
                self._configs = before
            self._refresh_until_settled()
            raise failed_precondition(wrong_label)
        for name in self._configs:
            versions = self.versions(name)
            if not any(servable.state is State.AVAILABLE for servable in versions):
                failed = [servable.error for servable in versions if servable.error]
                raise failed[0] if failed else not_found(f"No versions of servable {name} found")

    def versions(self, name: str) -> list[Servable]:
        """The versions of a model, the newest first, ended ones included."""
        with self._lock:
            return sorted(
                self._servables.get(name, {}).values(), key=lambda it: it.version, reverse=True
            )

    def is_served(self, name: str) -> bool:
        """Whether there is a model of that name."""
        return name in self._configs

    @contextmanager
    def use(self, spec: Any) -> Iterator[Servable]:
        """The version that a `ModelSpec` asks for, kept loaded while the context lasts.

        Raises:
            NativeError: INVALID_ARGUMENT: no name or an unknown label; NOT_FOUND: no such model or
                version.
        """
        name = spec.name
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        wanted = self.version_asked_for(spec)
        servable = self._in_use(name, wanted)
        try:
            yield servable
        finally:
            servable.release()

    def version_asked_for(self, spec: Any) -> int | None:
        """The version that a `ModelSpec` names, by number or label; None for the newest.

        Raises:
            NativeError: INVALID_ARGUMENT: an unknown label.
        """
        choice = spec.WhichOneof("version_choice")
        if choice == "version":
            return spec.version.value
        if choice != "version_label":
            return None
        label = spec.version_label
        config = self._configs.get(spec.name)
        if config is None or label not in config.labels:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return config.labels[label]

    def _in_use(self, name: str, wanted: int | None) -> Servable:
        for _ in range(2):  # A version that ends after the first look has a successor by then.
            for servable in self.versions(name):
                if wanted in (None, servable.version) and servable.use():
                    return servable
        which = f"Latest({name})" if wanted is None else f"Specific({name}, {wanted})"
        raise not_found(f"Servable not found for request: {which}")

    def _watch(self) -> None:
        while not self._stopping.wait(self._options.poll_seconds):
            try:
                self._refresh()
            except Exception:
                # Watching must go on whatever happens to a file system.
                _log.exception("looking for versions failed")

    def _refresh_until_settled(self) -> None:
        # An older version is not loaded, only to be unloaded, while a newer one comes to rest.
        deadline = time.monotonic() + 5 * self._options.settle_seconds
        while self._any_unsettled() and time.monotonic() < deadline:
            time.sleep(self._options.settle_seconds / 10)
        self._refresh()

    def _any_unsettled(self) -> bool:
        return any(map(self._has_unsettled, list(self._configs.values())))

    def _has_unsettled(self, config: ModelConfig) -> bool:
        try:
            found = find_versions(config.base)
        except OSError:
            return False
        candidates = [path for version, path in found.items() if config.may_serve(version)]
        whole = [files for files in map(fingerprint, candidates) if files is not None]
        return not all(map(self._is_at_rest, whole))

    def _is_at_rest(self, files: Fingerprint) -> bool:
        return seconds_at_rest(files) >= self._options.settle_seconds

    def _refresh(self) -> None:
        with self._refreshing:
            for config in list(self._configs.values()):
                self._refresh_model(config)
            for servable in self._all():
                if servable.name not in self._configs and servable.state is State.AVAILABLE:
                    self._unload(servable)

    def _refresh_model(self, config: ModelConfig) -> None:
        try:
            found = find_versions(config.base)
        except OSError as error:
            self._say_once(config.name, f"cannot read {config.base}: {error.strerror}")
            return
        if not found:
            self._say_once(config.name, f"no versions of {config.name} in {config.base} yet")
        kept: list[Servable] = []
        limit = len(found) if config.specific or config.latest is None else config.latest
        for version in sorted(found, reverse=True):
            if config.may_serve(version) and len(kept) < limit:
                servable = self._loaded(config, version)
                kept += [servable] if servable else []
        # With none of the wanted versions there, the old one goes on, unless it is gone as well.
        for servable in self.versions(config.name):
            unwanted = servable not in kept and (kept or servable.version not in found)
            if servable.state is State.AVAILABLE and unwanted:
                self._unload(servable)

    def _loaded(self, config: ModelConfig, version: int) -> Servable | None:
        path = find_versions(config.base).get(version)
        known = self._servables.get(config.name, {}).get(version)
        if path is None:
            return None
        if known and known.state is State.AVAILABLE and known.path == path:
            return known
        files = fingerprint(path)
        if files is None:
            return None
        if known and known.error and known.path == path and known.files == files:
            return None  # It was refused, and nothing has changed.
        if not self._is_at_rest(files):
            return None
        servable = Servable(config.name, version, path, files)
        if known is None or known.state is not State.AVAILABLE:
            self._remember(servable)
        if not self._load(servable):
            return None
        self._remember(servable)
        if known and known.state is State.AVAILABLE:
            self._unload(known)
        return servable

    def _load(self, servable: Servable) -> bool:
        servable.state = State.LOADING
        started = time.perf_counter()
        options = self._options
        try:
            servable.session = NativeSession(
                servable.path,
                intra_op_threads=options.intra_op_threads,
                inter_op_threads=options.inter_op_threads,
            )
            servable.runner = servable.session
            self._warm_up(servable)
        except Exception as error:
            if servable.session is not None:
                servable.session.close()
            servable.fail(error)
        else:
            if options.batching:
                servable.runner = Batcher(servable.session, options.batching)
            servable.publish()
        seconds = time.perf_counter() - started
        status = "fail" if servable.error else "success"
        labels = {"model_path": str(servable.path), "status": status}
        self._metrics.count(":tensorflow:cc:saved_model:load_attempt_count", labels)
        if servable.error:
            reason = servable.error.message.splitlines()[0][:500]
            _log.error(
                "refused %s version %d: %s: %s",
                *(servable.name, servable.version, servable.error.code_name, reason),
            )
            return False
        labels = {"model_path": str(servable.path)}
        self._metrics.observe(":tensorflow:cc:saved_model:load_latency", labels, seconds)
        _log.info("loaded %s version %d in %.2f s", servable.name, servable.version, seconds)
        return True

    def _unload(self, servable: Servable) -> None:
        servable.retire()
        _log.info("unloaded %s version %d", servable.name, servable.version)

    def _remember(self, servable: Servable) -> None:
        with self._lock:
            versions = self._servables.setdefault(servable.name, {})
            versions[servable.version] = servable
            ended = [old for old in versions.values() if old.state is State.END]
            for old in sorted(ended, key=lambda it: it.version)[:-_REMEMBERED]:
                del versions[old.version]

    def _all(self) -> list[Servable]:
        with self._lock:
            return [it for versions in self._servables.values() for it in versions.values()]

    def _wrong_label(self) -> str | None:
        for config in self._configs.values():
            available = {
                it.version for it in self.versions(config.name) if it.state is State.AVAILABLE
            }
            for version in config.labels.values():
                if version not in available:
                    return (
                        f"Request to assign label to version {version} of model {config.name}, "
                        "which is not currently available for inference"
                    )
        return None

    def _say_once(self, name: str, message: str) -> None:
        if self._said.get(name) != message:
            _log.warning(message)
        self._said[name] = message


def status_of(servable: Servable) -> tuple[int, str]:
    """Code and message of a version's status."""
    error: NativeError | None = servable.error
    return (error.code, error.message) if error else (Code.OK, "")
