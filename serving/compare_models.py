"""The models of a comparison: exported directories, running servers, and what their cards say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tf_compemb.serving.addresses import grpc_target, rest_url
from tf_compemb.training.errors import UserError

EMPTY = "empty"
MODEL_CARD = "model_card.json"


@dataclass(frozen=True)
class ComparedModel:
    """One model of a comparison.

    Attributes:
        name: In the tables, and where the model is served.
        directory: The exported model, the folder with its versions in it; None where only a
            running server is known.
        grpc: `host:port` of a running server; None where there is none.
        rest: URL of its REST API.
        pid: The running server's process, of which memory is read; None: memory is not measured.
    """

    name: str
    directory: Path | None = None
    grpc: str | None = None
    rest: str | None = None
    pid: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is served already; otherwise a local server is started for it."""
        return self.grpc is not None or self.rest is not None


def parse_models(texts: list[str], pids: list[str]) -> list[ComparedModel]:
    """Models as the command line names them.

    Args:
        texts: `[NAME=]PART[,PART...]` each; a part is a directory, `grpc://HOST:PORT` or
            `http://HOST:PORT`.
        pids: `NAME=PID` each.

    Raises:
        UserError: A text of another form, a directory that holds no model, a name given twice.

    >>> parse_models(["qr=grpc://localhost:8500,http://localhost:8501"], ["qr=71"])[0].pid
    71
    """
    models = [_parse_model(text) for text in texts]
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two models are called {name}; give one another name: NAME={name}.")
    processes = dict(_parse_pid(text) for text in pids)
    for name in processes:
        if name not in names or not models[names.index(name)].is_running:
            raise UserError(f"--pid {name}=...: no running server is called {name}.")
    return [replace(model, pid=processes.get(model.name)) for model in models]


def model_card(directory: Path) -> dict[str, Any]:
    """The card of a model's newest version.

    Raises:
        UserError: It has none, or an unreadable one.
    """
    path = newest_version(directory) / MODEL_CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); `tf-compemb export` writes it."
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); export the model again.") from error
    if not isinstance(card, dict) or not {"bytes", "embeddings"} <= card.keys():
        raise UserError(f"{path} is no card of an exported model; export the model again.")
    return card


def theoretical_bytes(card: dict[str, Any]) -> dict[str, int]:
    """What a model should need, by its layers' formulas: embeddings, network, their sum `weights`.

    With it the size of `vocabulary`, the text from which a server makes lookup tables that are
    larger than the text; they are no part of the sum.
    """
    return {
        name: card["bytes"][name] for name in ("embeddings", "network", "weights", "vocabulary")
    }


def cardinalities(card: dict[str, Any]) -> list[int]:
    """Ids of each field of a click model."""
    return [field["rows"] for layer in card["embeddings"] for field in layer.get("fields", [])]


def is_trained(card: dict[str, Any] | None) -> bool:
    """Whether a card tells of a trained model."""
    return card is not None and card.get("trained") is True


def have_same_weights(card: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether two cards tell of exports of one training run, perhaps of different precision."""
    if card is None or other is None or not is_trained(card):
        return False
    # A run's metrics hold its speed to the last digit: no two runs share them.
    return all(card.get(name) == other.get(name) for name in ("training", "metrics", "data"))


def newest_version(directory: Path) -> Path:
    """The folder of a model's largest version number.

    Raises:
        UserError: There is none.
    """
    if directory.is_dir():
        versions = [path for path in directory.iterdir() if path.name.isdigit() and path.is_dir()]
        if versions:
            return max(versions, key=lambda path: int(path.name))
    if (directory / "saved_model.pb").exists():
        raise UserError(f"{directory} is one version of a model; give the folder that it lies in.")
    raise UserError(
        f"{directory} holds no exported model, a folder with numbered versions in it; "
        "`tf-compemb export` writes one."
    )


def stored_bytes(version: Path) -> int:
    """Bytes of the SavedModel's files: graph, variables and assets, not the card or warm-up."""
    files = [version / "saved_model.pb", *version.glob("variables/*"), *version.glob("assets/**/*")]
    return sum(file.stat().st_size for file in files if file.is_file())


def _parse_model(text: str) -> ComparedModel:
    # A path or an address may hold an equals sign too; a name may not hold a slash or a colon.
    match = re.fullmatch(r"(?:([^=/:,]+)=)?(.+)", text)
    if match is None:
        raise UserError(f"{text!r} names no model; give a directory or NAME=grpc://HOST:PORT.")
    name, found = match[1], ComparedModel(match[1] or "")
    for part in match[2].split(","):
        if part.startswith("grpc://"):
            found = replace(found, grpc=_checked(grpc_target, part))
        elif part.startswith(("http://", "https://")):
            _checked(rest_url, part)
            found = replace(found, rest=part)
        elif part:
            newest_version(Path(part))
            found = replace(found, directory=Path(part), name=name or Path(part).resolve().name)
    if not found.name:
        raise UserError(f"{text}: which model of that server? Give NAME={text}.")
    if found.directory is None and not found.is_running:
        raise UserError(f"{text!r} names no model; give a directory or NAME=grpc://HOST:PORT.")
    return found


def _checked(read: Callable[[str], Any], address: str) -> Any:
    try:
        return read(address)
    except ValueError as error:
        raise UserError(str(error)) from error


def _parse_pid(text: str) -> tuple[str, int]:
    name, equals, pid = text.partition("=")
    if not equals or not pid.isdigit():
        raise UserError(f"--pid takes NAME=PID, not {text!r}.")
    return name, int(pid)
