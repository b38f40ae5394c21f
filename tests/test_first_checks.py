"""Simple mistakes are told before TensorFlow is imported, by every program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_program import needs_tf_keras

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

from tf_compemb import _signatures
from tf_compemb.layers import get_method, method_names

ROOT = Path(__file__).resolve().parent.parent

# Arguments of tf-compemb, and words of the sentence.
MISTAKES = [
    ("train --data missing.txt", "missing.txt"),
    ("train --data page.html", "HTML"),
    ("train --data broken.txt", "text without tabs"),
    ("train --data folder", "folder"),
    ("train --embedding best", "Unknown embedding method 'best'. Known methods: ant, "),
    ("train --embedding full,best", "Unknown embedding method 'best'"),
    ("train --embedding qr --option depth=3", "no option 'depth'; it has: collisions, "),
    ("train --embedding qr:option=depth=3,full --seeds 2", "no option 'depth'"),
    ("train --embedding compositional --partitions binary:2", "--partitions must be"),
    ("train --network deep_units=[8]", "it has: bottom_units, top_units"),
    ("train --network top_units=[0]", "`top_units` must be a positive integer or a list of them"),
    ("train --network top_units=wide", "`top_units` must be a positive integer or a list of them"),
    ("train --model dcn --network deep_units=[true]", "`deep_units` must be a positive integer"),
    ('train --overrides {"D3":{"embedding":"qr"}}', "names 'D3'; the fields are C1 to C26"),
    ('train --dry-run --cardinalities 5,6 --overrides {"C3":{}}', "the fields are C1 to C2"),
    ("train --embedding qr:depth=3", "--embedding qr:depth=3: unrecognized arguments: --depth 3"),
    ("train --embedding qr:help=", "--embedding qr:help=: unrecognized arguments: --help"),
    ("train --embedding qr:embedding=hash", "cannot name another method"),
    (
        f"train --option a={'9' * 5000}",
        "it holds an integer of thousands of digits",
    ),
    (f"train --option a={'[' * 20_000}", "cannot be read: it is nested too deeply"),
    (f"train --network a={'[' * 20_000}", "cannot be read: it is nested too deeply"),
    (f'train --overrides {{"a":{"[" * 20_000}', "nested too deeply"),
    ("train --dry-run --cardinalities 5,x", "'5,x' is none of these."),
    ("train --data dataset broken.txt", "dataset: this is a prepared data set; give it alone"),
    ("data prepare dataset --out again", "dataset: this is a prepared data set"),
    ("experiments --grid deep.json", "The grid deep.json is not JSON: it is nested too deeply"),
    ("experiments figure4 --values 3", "--values 3: the grid figure4 has none."),
    ('train --overrides {"C3":{"embedding":"best"}}', "--overrides, C3: Unknown embedding method"),
    ("train --distill missing", "missing has no config.json"),
    ("train --distill comparison", "comparison compares several runs"),
    ("train --distill started", "started has no finished run"),
    ("train --out file/run", "not a directory"),
    ("train --resume --out missing", "missing has no config.json"),
    ("train --evaluate missing.txt --out missing", "missing has no metrics.json"),
    ("train --evaluate missing.txt --out finished", "missing.txt"),
    ("train --dry-run --cardinalities 5 --embedding best", "Unknown embedding method"),
    ("export missing --out exports", "missing: there is no such run"),
    ("export started --out exports", "no metrics.json"),
    ("export comparison --out exports", "compares several runs"),
    ("export finished --out exports --data missing", "missing"),
    ("export finished --out file", "not a directory"),
    ("export broken.txt --out exports", "is not a .keras file"),
    ("export --untrained --embedding best --cardinalities 5 --out exports", "Unknown embedding"),
    ("export --untrained --embedding qr --option depth=3 --cardinalities 5 --out x", "depth"),
    ("export --untrained --cardinalities x --out exports", "--cardinalities must be"),
    ("experiments --grid missing.json", "missing.json cannot be read"),
    ("experiments --grid broken.txt", "is not JSON"),
    ("experiments --grid best.json", "Unknown embedding method 'best'"),
    ("experiments --grid depth.json", "no option 'depth'"),
    ("experiments figure7 --only best", "--only best"),
    ("experiments figure7 --data missing.txt", "missing.txt"),
    ("experiments figure5 --estimate --data missing.txt", "missing.txt"),
    ("experiments figure7 --out file/x", "not a directory"),
    ("reconstruction missing", "missing has no config.json"),
    ("reconstruction comparison", "compares several runs"),
    ("reconstruction started", "started has no finished run"),
    ("reconstruction finished --field C99", "--field C99 is not in the run; it has C1, C2"),
    ("reconstruction hashed", "is a run of hash; give one of --embedding full"),
    ("reconstruction finished", "missing"),
    ("serving serve missing", "missing"),
    ("serving serve a=folder a=folder", "Two models are called a"),
    ("serving predict --model m --rest nowhere broken.txt", "nowhere"),
    ("serving compare missing", "missing"),
    ("serving compare m=grpc://localhost:1 --data missing.txt", "missing.txt"),
    ("serving compare m=grpc://localhost:1", "add --data FILE"),
    ("serving empty --out file/x", "not a directory"),
    ("benchmark lookup --only nothing", "no group's name holds 'nothing'"),
    ("data prepare missing.txt --out prepared", "missing.txt"),
    ("data describe missing", "missing"),
]

SCRIPT = """
import contextlib, io, json, sys
from tf_compemb.command_line import main
heavy = {"tensorflow", "keras", "tf_keras", "torch", "jax"}
found = []
for arguments in json.load(sys.stdin):
    out, err, before = io.StringIO(), io.StringIO(), set(sys.modules)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as stopped:
            status = stopped.code
    found.append([status, out.getvalue(), err.getvalue(), sorted(heavy & {*sys.modules} - before)])
json.dump(found, sys.stdout)
"""


def write_run(path: Path, *, method: str = "full", finished: bool = True) -> None:
    (path / "model").mkdir(parents=True)
    data = {"path": "missing", "fingerprint": "0", "cardinalities": [9, 5], "synthetic": False}
    options = {"embedding": [method]}
    (path / "config.json").write_text(json.dumps({"data": data, "options": options}))
    if finished:
        (path / "metrics.json").write_text("{}")
        (path / "model" / "model.keras").touch()


def write_grid(path: Path, **series) -> None:
    one = {"name": "one", "label": "one", **series}
    path.write_text(json.dumps({"title": "One", "plot": "parameters", "series": [one]}))


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """By mistake: status, what was printed, what was said, and what had been imported by then."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "page.html").write_text("<html><body>not found</body></html>")
    (folder / "broken.txt").write_text("no row\n")
    (folder / "file").touch()
    (folder / "deep.json").write_text("[" * 20_000)
    (folder / "dataset").mkdir()
    (folder / "dataset" / "manifest.json").touch()
    (folder / "folder").mkdir()
    write_run(folder / "finished")
    write_run(folder / "hashed", method="hash")
    write_run(folder / "started", finished=False)
    (folder / "comparison").mkdir()
    (folder / "comparison" / "config.json").write_text('{"options": {}}')
    write_grid(folder / "best.json", embedding="best")
    write_grid(folder / "depth.json", embedding="qr", settings={"depth": 3})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "TF_COMPEMB_CACHE": str(folder / "cache"),
        },
        input=json.dumps([text.split() for text, _ in MISTAKES]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert not (folder / "runs").exists()
    return dict(zip([text for text, _ in MISTAKES], json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("mistake", "words"), MISTAKES, ids=[text[:80] for text, _ in MISTAKES])
def test_a_simple_mistake_is_told_before_tensorflow_is_imported(mistake, words, told):
    status, printed, said, imported = told[mistake]
    assert status == 2
    (line,) = said.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert imported == []
    if not mistake.startswith("benchmark"):
        assert printed == ""


def test_names_and_arguments_in_the_source_are_those_of_the_classes():
    import inspect

    found = _signatures.method_arguments()
    assert sorted(found) == method_names()
    for name, arguments in found.items():
        assert arguments - {"self"} == set(inspect.signature(get_method(name)).parameters), name


def test_the_arguments_of_networks_are_those_of_the_classes():
    import inspect

    from tf_compemb.models import DCN, DLRM

    for name, network in (("dlrm", DLRM), ("dcn", DCN)):
        found = _signatures.network_arguments(name) - {"self"}
        assert found == set(inspect.signature(network).parameters)
