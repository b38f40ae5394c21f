"""Which models are served, from which directory, and which of their versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tf_compemb.serving.status_codes import invalid_argument


@dataclass(frozen=True)
class ModelConfig:
    """One model.

    Attributes:
        name: What requests call it.
        base: The directory with a numeric folder for each version.
        latest: How many of the newest versions are served; None for all.
        specific: The versions served instead, whichever are the newest; empty for none in
            particular.
        labels: Names of versions.
    """

    name: str
    base: Path
    latest: int | None = 1
    specific: tuple[int, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)

    def may_serve(self, version: int) -> bool:
        """Whether this version is served if it is among the newest that there are."""
        return not self.specific or version in self.specific


def configs_of(message: Any) -> list[ModelConfig]:
    """The models that a `ReloadConfigRequest` lists.

    Raises:
        NativeError: INVALID_ARGUMENT: no list of models, a name twice, another platform than
            `tensorflow`, a base path that is not absolute or not a directory.
    """
    if message.config.WhichOneof("config") != "model_config_list":
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported"
        )
    configs = [_config_of(model) for model in message.config.model_config_list.config]
    check_names(configs)
    return configs


def check_names(configs: Sequence[ModelConfig]) -> None:
    """Makes sure that no name is there twice.

    Raises:
        NativeError: INVALID_ARGUMENT.
    """
    names = [config.name for config in configs]
    for name in names:
        if names.count(name) > 1:
            raise invalid_argument(f"Illegal to list model {name} multiple times in config list")


def _check_platform(model: Any) -> None:
    if model.model_type and model.model_platform:
        raise invalid_argument(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform."
        )
    if model.model_type not in (0, 1):  # Unspecified and TENSORFLOW.
        raise invalid_argument(
            f"ModelServerConfig::model_type choice {model.model_type} not supported."
        )
    if model.model_platform not in ("", "tensorflow"):
        raise invalid_argument(
            f"Model {model.name} requests unsupported platform {model.model_platform}"
        )


def _config_of(model: Any) -> ModelConfig:
    base = Path(model.base_path)
    _check_platform(model)
    if not base.is_absolute():
        raise invalid_argument(
            f"Expected model {model.name} to have an absolute path or URI; got base_path()="
            f"{model.base_path}"
        )
    if not base.is_dir():
        raise invalid_argument(f"Could not find base path {base} for servable {model.name}")
    policy = model.model_version_policy
    chosen = policy.WhichOneof("policy_choice")
    return ModelConfig(
        name=model.name,
        base=base,
        latest=None if chosen == "all" else max(policy.latest.num_versions, 1),
        specific=tuple(policy.specific.versions),
        labels=dict(model.version_labels),
    )
