"""`tellmeter rules`: prints rules with the limits that were asked for; says in one line what cannot be."""

import re
import subprocess

import pytest

from tellmeter.cli.commands import run_command_line
from tellmeter.serve.rules import Limits
from tests.support.servers import require


def printed(capsys, *arguments):
    assert run_command_line(["rules", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_it_prints_rules_that_promtool_takes(capsys, tmp_path):
    (tmp_path / "rules.yml").write_text(printed(capsys))
    run = subprocess.run(
        [require("promtool"), "check", "rules", str(tmp_path / "rules.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_limits_are_those_of_the_command_line(capsys):
    out = printed(
        capsys,
        *("--error-ratio", "0.2", "--latency-p95", "45", "--stalls-per-stream", "0.5", "--cost-per-hour", "25.5"),
        *("--unknown-share", "0.3", "--min-calls", "100", "--job", "api|worker"),
    )
    for condition in (
        ":ratio_rate5m > 0.2\n", ":p95_rate5m > 45\n", ":per_stream_rate5m > 0.5\n", ":rate5m) > 25.5\n",
        ":ratio_rate1h > 0.3\n", "* 300 >= 100)\n", 'up{job=~"api|worker"} < 1\n',
    ):  # fmt: skip
        assert condition in out


def test_alerts_can_be_left_out(capsys):
    assert "alert:" in printed(capsys, "--alerts")
    assert "alert:" not in printed(capsys, "--no-alerts")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--error-ratio", "5"], "tellmeter: error_ratio = 5.0: it is a share, from 0 to 1"),
        (["--cost-per-hour", "nan"], "tellmeter: cost_per_hour = nan: it must be a number"),
        (["--cost-per-hour", "much"], "tellmeter: Invalid value for '--cost-per-hour'"),
        (["--job", "("], "tellmeter: job = (: it is no regular expression"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, told, capsys):
    assert run_command_line(["rules", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(told)


def test_its_help_tells_the_defaults(capsys):
    help_text = " ".join(printed(capsys, "-h").split())
    told = dict(re.findall(r"--([a-z0-9-]+) [A-Z]+ [^[]*\[default: ([0-9.]+)\]", help_text))
    defaults = {name: getattr(Limits(), name) for name in Limits.__dataclass_fields__ if name != "job"}
    assert {name.replace("-", "_"): float(value) for name, value in told.items()} == defaults
    assert "tellmeter rules > rules.yml" in help_text
