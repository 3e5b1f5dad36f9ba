"""The command line: options, help, one line for whatever goes wrong. What the commands do is in the files beside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from .. import __version__
from ..errors import ConfigError, TellmeterError

_EXAMPLES = """\b
Examples:
  tellmeter run -- python app.py
  tellmeter run --tag release=42 -- uvicorn app:app --workers 2
  tellmeter summary --since 1h --by provider
  tellmeter metrics --dir /run/app/metrics
  tellmeter rules > rules.yml
  tellmeter grafana --out dashboards
  tellmeter spool ls
  tellmeter doctor
"""
_STORE_HELP = "Where records are, as sqlite:///calls.db.  [default: TELLMETER_STORE, else a file in your data folder]"


def run_command_line(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (or the process's own) name; the exit code. An error is one line on stderr."""
    try:
        code = cli.main(arguments, prog_name="tellmeter", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "tellmeter"
        return _failed(f"{error.format_message()} See {command} --help", 2)
    except click.ClickException as error:
        return _failed(error.format_message(), error.exit_code)
    except ConfigError as error:
        return _failed(str(error), 2)
    except TellmeterError as error:
        return _failed(str(error), 1)
    except BrokenPipeError:  # `tellmeter summary | head`: not worth a word
        sys.stdout = None  # the interpreter would flush it once more, and complain
        return 1
    except OSError as error:  # no room or no right to write where temporary files go
        return _failed(f"{error.filename or 'the system'}: {error.strerror or type(error).__name__}", 1)
    except (click.Abort, KeyboardInterrupt):
        return 130


def _failed(message: str, code: int) -> int:
    click.echo(f"tellmeter: {' '.join(message.split())}", err=True)
    return code


@click.group(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tellmeter", message="%(prog)s %(version)s")
def cli() -> None:
    """Meter every LLM call that a Python program makes: latency, tokens, dollars, errors, retries, streams."""


@cli.command(
    context_settings={"allow_interspersed_args": False},
    epilog="\b\nExamples:\n  tellmeter run -- python app.py\n  tellmeter run --store sqlite:///calls.db -- pytest",
)
@click.option("--store", metavar="URL", help=_STORE_HELP)
@click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True, help="A tag on every call; may be given again.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(**given: Any) -> int:
    """Run COMMAND, meter it and its Python child processes, and print a table of its LLM calls at the end.

    Exit code, signals, input and output are those of COMMAND; the table goes to standard error.
    """
    from .run import run

    return run(**given)


@cli.command(
    epilog="\b\nExamples:\n  tellmeter summary --since 15m\n  tellmeter summary --since all --by tag:feature --json\n"
)
@click.option("--store", metavar="URL", help=_STORE_HELP)
@click.option("--since", metavar="TIME", help="As 30s, 15m, 1h, 7d, or all.  [default: 1d; all with --run]")
@click.option(
    "--by", metavar="FIELD", default="model", show_default=True, help="model, provider, status, tag:NAME, ..."
)
@click.option("--run", metavar="ID", help="Only the calls of one `tellmeter run`.")
@click.option("--json", "as_json", is_flag=True, help="JSON, with every figure.")
def summary(**given: Any) -> int:
    """Print calls, errors, latency, tokens and dollars of what was recorded."""
    from .summary import summary

    return summary(**given)


@cli.command(
    epilog="\b\nExamples:\n  tellmeter metrics --dir /run/app/metrics\n"
    "  tellmeter metrics --host 0.0.0.0 --token-env METRICS_TOKEN\n"
)
@click.option("--dir", "folder", metavar="DIR", help="Where the programs write.  [default: TELLMETER_MULTIPROC_DIR]")
@click.option("--host", metavar="HOST", help="The address to listen on.  [default: PROMETHEUS_HOST, else 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="0 takes a free one.  [default: PROMETHEUS_PORT, else 9090]"
)
@click.option("--token-env", metavar="NAME", help="The environment variable that has the bearer token to ask for.")
@click.option("--basic-auth-env", metavar="NAME", help="The one that has user:password to ask for.")
def metrics(**given: Any) -> int:
    """Serve the metrics of every process that writes to one folder, as gunicorn's workers, for Prometheus.

    The programs need TELLMETER_MULTIPROC_DIR set to that folder. Other hosts are let in only with a token or password.
    """
    from .metrics import metrics

    return metrics(**given)


@cli.command(
    epilog="\b\nExamples:\n  tellmeter rules > rules.yml\n"
    "  tellmeter rules --cost-per-hour 25 --latency-p95 60 --job 'api|worker' > rules.yml\n"
)
@click.option("--alerts/--no-alerts", default=True, help="Alerts too.  [default: --alerts]")
@click.option("--error-ratio", type=float, metavar="SHARE", help="Calls that may fail.  [default: 0.05]")
@click.option("--latency-p95", type=float, metavar="SECONDS", help="For 95 of 100 calls.  [default: 30]")
@click.option("--stalls-per-stream", type=float, metavar="NUMBER", help="[default: 0.05]")
@click.option("--cost-per-hour", type=float, metavar="DOLLARS", help="What a job may cost.  [default: 10]")
@click.option("--unknown-share", type=float, metavar="SHARE", help="Calls without price or usage.  [default: 0.1]")
@click.option("--min-calls", type=float, metavar="NUMBER", help="In 5 minutes; fewer raise no alert.  [default: 10]")
@click.option("--job", metavar="REGEX", help="Only these scrape jobs.  [default: all]")
def rules(**given: Any) -> int:
    """Print Prometheus rules: the names that the guides' queries use, figures for dashboards, alerts."""
    from .rules import rules

    return rules(**given)


@cli.command(
    epilog="\b\nExamples:\n  tellmeter grafana overview > overview.json\n  tellmeter grafana --out dashboards\n"
)
@click.argument("name", required=False)
@click.option("--list", "as_list", is_flag=True, help="Only say which there are.")
@click.option("--out", "folder", metavar="DIR", help="Write to files there: NAME.json, or all of them.")
def grafana(**given: Any) -> int:
    """Print a Grafana dashboard as JSON to import, or write all of them to a folder."""
    from .grafana import grafana

    return grafana(**given)


@cli.group(
    epilog="\b\nExamples:\n  tellmeter spool ls --spool /var/lib/app/spool\n"
    "  tellmeter spool replay --to postgresql://db.internal/metrics\n  tellmeter spool drop --yes\n"
)
def spool() -> None:
    """See, deliver or drop what waits on disk for sinks: what programs that ended could not deliver.

    The next process that has the same spool and sink delivers it by itself; these are for when there is none.
    """


_SPOOL_OPTION = click.option(
    "--spool", "folder", metavar="DIR", help="The folder of the spool.  [default: TELLMETER_SPOOL]"
)


@spool.command(name="ls")
@_SPOOL_OPTION
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def spool_ls(**given: Any) -> int:
    """Print what waits: sink, process, records, bytes."""
    from .spool import ls

    return ls(**given)


@spool.command(name="replay")
@_SPOOL_OPTION
@click.option("--to", "url", metavar="URL", required=True, help="Where to, as postgresql://db.internal/metrics.")
@click.option("--sink", metavar="NAME", help="What was left for this sink, as `ls` calls it.  [default: that of URL]")
def spool_replay(**given: Any) -> int:
    """Deliver what ended processes left. Exit code 1 if something still waits."""
    from .spool import replay

    return replay(**given)


@spool.command(name="drop")
@_SPOOL_OPTION
@click.option("--sink", metavar="NAME", help="Only what was left for this sink.  [default: all]")
@click.option("--yes", is_flag=True, help="Do it; without, it is only said what would be gone.")
def spool_drop(**given: Any) -> int:
    """Remove what ended processes left."""
    from .spool import drop

    return drop(**given)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def doctor(**given: Any) -> int:
    """Say what is hooked, installed and configured here, and what is wrong. Exit code 1 if something is."""
    from .doctor import doctor

    return doctor(**given)


@cli.command(epilog="\b\nExamples:\n  tellmeter demo --seconds 20\n")
@click.option("--seconds", type=click.FloatRange(min=1), help="How long.  [default: until Ctrl-C]")
@click.option("--store", metavar="URL", help="Keep the records there.  [default: a temporary file]")
def demo(**given: Any) -> int:
    """Run a small application against a local simulator of the providers, metered, with a live table."""
    from .demo import demo

    return demo(**given)
