import subprocess
import sys

import pytest

from tellmeter import ConfigError, StoreError, __version__
from tellmeter.cli.commands import run_command_line


def test_version(capsys):
    assert run_command_line(["--version"]) == 0
    assert capsys.readouterr().out == f"tellmeter {__version__}\n"


def test_help_names_every_command_and_has_examples(capsys):
    assert run_command_line(["--help"]) == 0
    out = capsys.readouterr().out
    assert [word in out for word in ("run", "summary", "doctor", "demo", "tellmeter run -- python app.py")] == [
        True
    ] * 5


@pytest.mark.parametrize("command", ["run", "summary", "doctor", "demo"])
def test_help_of_a_command(command, capsys):
    assert run_command_line([command, "-h"]) == 0
    assert f"tellmeter {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError("bad\nthing"), 2, "tellmeter: bad thing\n"),
        (StoreError("gone"), 1, "tellmeter: gone\n"),
        (OSError(28, "No space left on device", "/tmp"), 1, "tellmeter: /tmp: No space left on device\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error, code, told, monkeypatch, capsys):
    import tellmeter.cli.summary

    def fail(**given):
        raise error

    monkeypatch.setattr(tellmeter.cli.summary, "summary", fail)
    assert run_command_line(["summary"]) == code
    assert capsys.readouterr().err == told


def test_without_a_command_the_help_is_shown(capsys):
    assert run_command_line([]) == 2
    assert "tellmeter" in capsys.readouterr().err


WITHOUT = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
from tellmeter.cli import main
sys.argv[1:] = {arguments!r}
sys.exit(main())
"""


@pytest.mark.parametrize("arguments", [["run", "--", "true"], ["--help"], []])
def test_a_plain_install_tells_how_to_get_the_command_line(arguments):
    code = WITHOUT.format(name="click", arguments=arguments)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "tellmeter: click is needed here: pip install 'tellmeter[cli]'\n"


def test_starting_a_program_needs_neither_rich_nor_asyncio():
    code = "import sys, tellmeter.cli.commands, tellmeter.cli.run; print({'rich', 'asyncio'} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_output_that_nobody_reads_is_no_error():
    code = "import sys; from tellmeter.cli import main; sys.argv[1:] = ['--help']; sys.exit(main())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
