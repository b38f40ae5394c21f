"""The script that completes `tf-compemb` in a shell, run in bash."""

import shutil
import subprocess
import sys

import pytest

from tf_compemb.command_line import main
from tf_compemb.completion import SHELLS


def printed(shell: str, capsys) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", shell])
    assert not stopped.value.code
    return capsys.readouterr().out


@pytest.fixture
def complete(capsys, tmp_path):
    """Completes the last word of a command, as bash does when the user presses the tab key."""
    script = tmp_path / "completion.bash"
    script.write_text(printed("bash", capsys))
    (tmp_path / "runs").mkdir()
    (tmp_path / "rows.txt").touch()
    bash = shutil.which("bash")
    assert bash is not None

    def complete_words(*words: str) -> set[str]:
        steps = f"""
            source {script}
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            $(complete -p tf-compemb | sed 's/.*-F \\([^ ]*\\).*/\\1/')
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        command = [bash, "--norc", "-c", steps, "bash", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return set(done.stdout.split())

    return complete_words


def test_programs_commands_and_options_are_completed(complete):
    assert complete("tf-compemb", "") >= {"train", "serving", "native-kernels", "reconstruction"}
    assert complete("tf-compemb", "re") == {"reconstruction"}
    assert complete("tf-compemb", "serving", "") == {"serve", "predict", "compare", "empty"}
    assert complete("tf-compemb", "serving", "predict", "--fo") == {"--format"}
    assert complete("tf-compemb", "train", "--mod") == {"--model", "--modulus"}


def test_values_are_completed(complete):
    assert complete("tf-compemb", "train", "--model", "") == {"dlrm", "dcn"}
    assert complete("tf-compemb", "train", "--embedding", "ha") == {"hash", "hash_embeddings"}
    assert complete("tf-compemb", "experiments", "figure") >= {"figure4", "figure5"}


def test_paths_are_completed(complete):
    assert complete("tf-compemb", "data", "prepare", "r") == {"rows.txt", "runs"}
    assert complete("tf-compemb", "train", "--out", "r") == {"runs"}
    assert complete("tf-compemb", "reconstruction", "") == {"runs"}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script(shell, capsys):
    script = printed(shell, capsys)
    assert "tf-compemb" in script
    assert "native-kernels" in script


def test_without_shtab_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", "bash"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install shtab" in line
