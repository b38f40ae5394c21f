"""The command `tf-compemb`: its programs, their usage, their mistakes, and what documents say."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tf_compemb.command_line import PROGRAMS, main, make_parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(page for pattern in ("*.md", "*/README.md") for page in ROOT.glob(pattern)),
    *(ROOT / "benchmarks/results").glob("*/README.md"),
    *(ROOT / "tf_compemb").glob("*/README.md"),
]
programs = pytest.mark.parametrize("program", list(PROGRAMS))


def ended(*arguments: str) -> int:
    """The exit status of `tf-compemb`."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return stopped.value.code or 0


def sub_parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """A parser and all those below it."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [parser, *(p for a in below for one in a.choices.values() for p in sub_parsers(one))]


def test_the_help_has_a_line_for_each_program(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert ended("--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: tf-compemb [-h]")
    lines = shown.partition("  PROGRAM\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [[k, v[1]] for k, v in PROGRAMS.items()]
    assert not any("_" in name for name in PROGRAMS)


@programs
def test_a_program_s_help_is_that_of_its_sub_parser(program, capsys):
    assert ended(program, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: tf-compemb {program} [-h]")
    (own,) = (p for p in sub_parsers(make_parser()) if p.prog == f"tf-compemb {program}")
    assert shown == own.format_help()


@programs
def test_python_m_is_the_same_program(program):
    module = PROGRAMS[program][0].removesuffix(".__main__")
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: tf-compemb {program} [-h]")
    assert done.stderr == ""


def test_python_m_of_the_package_is_the_command():
    command = [sys.executable, "-m", "tf_compemb", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"tf_compemb \d\S+\n", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "arguments are required: PROGRAM; tf-compemb --help lists"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--best"], "unrecognized arguments: --best; tf-compemb train --help lists"),
        (["export", "run"], "--out; tf-compemb export --help lists"),
        (["serving"], "required: COMMAND; tf-compemb serving --help lists"),
        (["serving", "predict"], "tf-compemb serving predict --help lists"),
        (["data", "generate", "--out", "x"], "--rows; tf-compemb data generate --help lists"),
        (["experiments", "figure9"], "no experiment is called 'figure9'"),
        (["reconstruction"], "required: RUN; tf-compemb reconstruction --help lists"),
        (["benchmark", "speed"], "tf-compemb benchmark --help lists"),
        (["native-kernels", "all"], "tf-compemb native-kernels --help lists"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, words, capsys):
    assert ended(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def written_commands(text: str) -> list[str]:
    """What the shell blocks of a page run of this project, without the command's path."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = re.compile(r"(?:^|\s)(?:\.\./)*\.venv/bin/tf-compemb\s(.*)")
    return [match[1] for line in lines if (match := found.search(line))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_documents_are_commands(page):
    text = page.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, re.S))
    assert "-m tf_compemb." not in blocks
    assert not re.search(r"^\s*tf-compemb\s", blocks, re.M), "from a clone: .venv/bin/tf-compemb"
    for line in written_commands(text):
        plain = re.sub(r"\$\([^)]*\)|\$\w+", "1", re.sub(r"=\$\(pid \w+\)", "=1", line))
        if not plain.startswith("--print-completion"):  # test_command_completion.py runs it.
            make_parser().parse_args(shlex.split(plain.partition(">")[0], comments=True))


def test_documents_have_commands_of_every_program():
    named = {
        line.split()[0] for page in PAGES for line in written_commands(page.read_text("utf-8"))
    }
    assert named == {*PROGRAMS, "--print-completion"}


def test_what_texts_and_messages_call_a_program_is_one():
    sources = [
        path
        for folder in ("tf_compemb", "export", "models", "serving")
        for path in (ROOT / folder).rglob("*.py")
    ]
    known = {p.prog for p in sub_parsers(make_parser())}
    with_commands = {p.prog.rpartition(" ")[0] for p in sub_parsers(make_parser())} - {""}
    mentions = 0
    for path in [*PAGES, *sources]:
        text = path.read_text(encoding="utf-8")
        for name, command in re.findall(r"`tf-compemb ([a-z][a-z-]*)(?: ([a-z]+))?", text):
            mentions += 1
            program = f"tf-compemb {name}"
            assert program in known, path
            if command and program in with_commands:
                assert f"{program} {command}" in known, path
    assert mentions > 20


def typed_options() -> list[tuple[str, argparse.Action]]:
    """Every option of every program whose value is read by a function."""
    return [
        (f"{parser.prog} {action.option_strings[0]}", action)
        for parser in sub_parsers(make_parser())
        for action in parser._actions
        if action.type not in (None, str, Path) and action.option_strings
    ]


def refusal(action: argparse.Action, text: str) -> str | None:
    """What is said of an option's value; None where it is taken."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser._add_action(action)
    try:
        parser.parse_args([f"{action.option_strings[0]}={text}"])
    except argparse.ArgumentError as error:
        return error.message
    return None


@pytest.mark.parametrize("text", ["abc", "", "1.5.2", "nan", "-3", "0x10", "[", "1,,2", "9" * 5000])
def test_a_bad_value_is_named_and_no_function_of_ours(text):
    refused = 0
    for option, action in typed_options():
        said = refusal(action, text)
        if said is not None:
            refused += 1
            assert re.match("(must be|is neither)", said), (option, said)
            assert text[:3] in said, option
            assert len(said) < 200, option
    assert refused > 20
