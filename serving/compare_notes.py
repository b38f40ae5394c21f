"""What a reader of a comparison has to know: how it was measured, and what is unknown and why."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from tf_compemb.serving.compare_report import RATIO_BYTES
from tf_compemb.serving.memory import GPU_NOTE
from tf_compemb.training.report import megabytes


def notes(about: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A sentence each.

    Args:
        about: `settings`, `rows` and `machine` of the comparison.
        found: Of `tf_compemb.serving.compare.compare`.
    """
    settings, machine, models = about["settings"], about["machine"], found["models"]
    repeats = settings["repeats"]
    said = [
        f"{'one repeat' if repeats == 1 else f'medians of {repeats} repeats'} of "
        f"{settings['calls']} calls on one connection, "
        f"with {about['rows']}; {machine['processor']}, {machine['cores']} cores, load average "
        f"{machine['load_average'][0]:.1f} at the end",
    ]
    said += _of_local_servers(found["empty"], settings)
    said += _of_running_servers([m for m in models if m["running"]], found["running_empty"])
    vocabularies = [_vocabulary_bytes(model, found) for model in models]
    if any(vocabularies):
        said.append(
            "* with the lookup tables of the raw signature's vocabulary, "
            f"{megabytes(max(vocabularies))} of text here, which are in no theory; an export with "
            "--no-raw is without them"
        )
    if any((model["card"] or {}).get("trained") is False for model in models):
        said.append("untrained models have nothing in common: their outputs tell nothing here")
    if any((model["memory"] or {}).get("gpu_bytes") for model in models):
        said.append(GPU_NOTE)
    return said


def _of_local_servers(empty: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> list[str]:
    if not empty:
        return []
    return [
        "weights: tables and network in theory; RssAnon over empty: anonymous memory of a "
        "fresh local server, less that of the same server with a model that does nothing "
        f"({_anonymous(empty)}){', ± half the range' if settings['repeats'] > 1 else ''}; "
        f"oneDNN {'on' if settings['onednn'] else 'off'}",
        "of it tables: the same less that of the same model with fields cut to about 2,000 "
        "ids, which has the same graph and network; in theory: the weights' difference; "
        f"below {megabytes(RATIO_BYTES)} the heap's layout can make up most of it, so it has "
        "no ratio",
    ]


def _of_running_servers(
    models: Iterable[Mapping[str, Any]], empty: Mapping[str, Any] | None
) -> list[str]:
    """What was measured of servers that ran already, and what of them is unknown."""
    models = list(models)
    if not models:
        return []
    said = []
    if measured := _names(model for model in models if model["memory"]):
        if empty:
            said.append(
                f"RssAnon over empty of {measured}: anonymous memory of the running server, read "
                f"once after the calls, less that of the running server empty ({_anonymous(empty)})"
            )
        else:
            said.append(
                f"RssAnon of {measured}: anonymous memory of the running server, read once after "
                "the calls; how much of it is the model's is unknown without a server called "
                "empty, with the model of `tf-compemb serving empty`, and its --pid"
            )
    if unread := _names(model for model in models if not model["memory"]):
        said.append(f"memory of {unread} is unknown: --pid NAME=PID says which process to read")
    if unseen := _names(model for model in models if model["directory"] is None):
        said.append(
            f"weights and SavedModel of {unseen} are unknown: NAME=ADDRESS,DIRECTORY says where it "
            "was exported to"
        )
    said.append(
        "tables alone and the time to load are measured of local servers only, not of "
        + _names(models)
    )
    return said


def _vocabulary_bytes(model: Mapping[str, Any], found: Mapping[str, Any]) -> int:
    """Text of the vocabulary, where memory that is compared with another's has its tables in it."""
    empty = found["running_empty" if model["running"] else "empty"]
    if not model["memory"] or not (model["cut"] or empty):
        return 0
    return (model["theoretical_bytes"] or {}).get("vocabulary") or 0


def _names(models: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(model["name"] for model in models)


def _anonymous(memory: Mapping[str, Any]) -> str:
    return megabytes(statistics.median(memory["anonymous_bytes"]))
