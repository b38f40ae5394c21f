"""The serving guide: its commands are commands, its links lead somewhere, its Python runs."""

import re
import shlex
from pathlib import Path

import pytest

from tf_compemb.command_line import make_parser

SERVING = Path(__file__).resolve().parent.parent / "serving"
TEXT = (SERVING / "README.md").read_text(encoding="utf-8")


def commands(program: str) -> list[list[str]]:
    """Arguments of each call of a program in the guide's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prefix = f".venv/bin/tf-compemb {program} "
    found = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    return [shlex.split(line.replace("$(", "1").replace(")", "")) for line in found]


def numbers_for_processes(arguments: list[str]) -> list[str]:
    """`--pid full=1pid full` as the shell would give it, `--pid full=1`."""
    joined = re.sub(r"=1pid \w+", "=1", " ".join(arguments))
    return joined.split()


def test_commands_of_this_program_are_taken():
    found = commands("serving")
    assert {arguments[0] for arguments in found} == {"serve", "predict", "compare", "empty"}
    for arguments in found:
        make_parser().parse_args(["serving", *numbers_for_processes(arguments)])


def test_commands_of_the_trainer_and_the_exporter_are_taken():
    from tf_compemb.export.command_options import parse as parse_export
    from tf_compemb.training.command_options import parse as parse_training

    for program, parse, count in (
        ("train", parse_training, 2),
        ("export", parse_export, 4),
    ):
        found = commands(program)
        assert len(found) == count
        for arguments in found:
            parse(arguments)


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets
    for target in targets:
        assert (SERVING / target).exists(), target


def test_compose_files_and_services_exist():
    yaml = pytest.importorskip("yaml")
    files = set(re.findall(r"-f (serving/docker/\S+)", TEXT))
    assert len(files) == 2
    for file in files:
        assert (SERVING.parent / file).is_file()
    services = yaml.safe_load((SERVING / "docker/compose.yaml").read_text())["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    assert profiles == {"together", "monitoring", "measure"}
    for profile in profiles:
        assert f"`{profile}`" in TEXT
    for service in re.findall(r"\$\(pid (\w+)\)", TEXT):
        assert service in services
    for port in re.findall(r"//localhost:(85[12]\d)", TEXT):
        assert any(f":{port}:" in p for service in services.values() for p in service["ports"])


def test_the_rows_in_the_guide_have_the_right_length():
    (body,) = re.findall(r"-d '(\{.*?\})'", TEXT, re.S)
    import json

    (row,) = json.loads(body)["instances"]
    assert (len(row["integers"]), len(row["categories"])) == (13, 26)
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    before, _, _ = block.partition("answer =")
    names: dict = {}
    exec(compile(before, "README.md", "exec"), names)
    assert len(names["parse_line"](names["line"]).categories) == 26
