"""The ``seqd`` command: its subcommands, and the one place where errors are printed.

Exit codes: 0 done; 1 other failure; 2 usage, configuration; 3 run folder; 4 bundle; 5 engine;
6 registration; 7 output files; 8 run; 9 a process that should answer does not;
10 a run that was verified differs from its ledger; 130 interrupted.
"""

import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console

from daemon import __version__
from daemon.cli.build import build
from daemon.cli.call import call
from daemon.cli.camera import camera
from daemon.cli.demo import demo
from daemon.cli.drain import drain
from daemon.cli.export import app as export
from daemon.cli.keys import keys
from daemon.cli.run import run
from daemon.cli.status import status
from daemon.cli.tail import tail
from daemon.cli.verify import verify
from engines.errors import SeqdError

PLUGINS = "seqd.commands"
"""Entry points that add commands, so that the daemon need not know who provides them."""

app = typer.Typer(
    name="seqd",
    help="Real-time base calling for fluorescence DNA sequencers.",
    epilog="Exit codes: 0 done, 1 other failure, 2 usage or configuration, 3 run folder, 4 bundle, 5 engine, "
    "6 registration, 7 output files, 8 run, 9 a process does not answer, 10 verified and different, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (run, camera, call, tail, status, drain, keys, verify, build, demo):
    app.command()(command)
app.add_typer(export)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"seqd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Real-time base calling for fluorescence DNA sequencers."""


def main() -> None:
    """Run the command line; expected failures end in one line and their exit code."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else "--help"
    for plugin in entry_points(group=PLUGINS):
        # Importing one takes longer than most commands: only where it is asked for or listed.
        if wanted.startswith("-") or wanted == plugin.name:
            app.add_typer(plugin.load(), name=plugin.name)
    try:
        app()
    except SeqdError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]seqd:[/] {_plain(str(error))}", highlight=False)
        sys.exit(error.exit_code)
    except OSError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]seqd:[/] {_plain(str(error))}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
