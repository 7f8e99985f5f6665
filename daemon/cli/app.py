"""The ``seqd`` command: its subcommands, and the one place where errors are printed.

Exit codes: 0 done; 1 other failure; 2 usage, configuration; 3 run folder; 4 bundle; 5 engine;
6 registration; 7 output files; 8 run; 9 a process does not answer;
10 `seqd verify` found a difference; 130 interrupted.
"""

import sys
from importlib import import_module
from importlib.metadata import entry_points
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text
from seqd_client.errors import SeqdError

from daemon import __version__

COMMANDS = {
    "run": "rundaemon",
    "call": "callrun",
    "tail": "followcalls",
    "status": "showstatus",
    "drain": "rundaemon",
    "keys": "makekeys",
    "verify": "verifyrun",
    "build": "buildplans",
    "qualify": "qualifyengines",
    "demo": "rundemo",
    "export": "exportrun",
}
"""Module of each command. It has a function of the command's name, or ``app`` where the command has subcommands."""

PLUGINS = "seqd.commands"
"""Group of entry points that add commands: the daemon does not need to know the packages that provide them."""

app = typer.Typer(
    name="seqd",
    help="Real-time base calling for fluorescence DNA sequencers.",
    epilog="Exit codes: 0 done, 1 other failure, 2 usage or configuration, 3 run folder, 4 bundle, 5 engine, "
    "6 registration, 7 output files, 8 run, 9 a process does not answer, 10 a run differs from its ledger, "
    "130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"seqd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Real-time base calling for fluorescence DNA sequencers."""


def main() -> None:
    """Run the command line; expected failures end in one line and their exit code."""
    add_commands(sys.argv[1] if len(sys.argv) > 1 else "--help")
    try:
        app()
    except SeqdError as error:
        _fail(error, error.exit_code)
    except OSError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def add_commands(first: str) -> None:
    """Add the command that the first argument names; if it names none, add all of them, for the help.

    Importing a command's module takes longer than most commands run, so the other modules are not imported.
    """
    plugins = {plugin.name: plugin for plugin in entry_points(group=PLUGINS)}
    names = (*COMMANDS, *plugins)
    for name in (first,) if first in names else names:
        if name in plugins:
            command = plugins[name].load()
        else:
            module = import_module(f"daemon.cli.{COMMANDS[name]}")
            command = getattr(module, name, None) or module.app
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)


def _fail(error: Exception, code: int) -> NoReturn:
    console = Console(stderr=True, soft_wrap=True, emoji=False)
    console.print(Text.assemble(("seqd:", "bold red"), f" {error}"), highlight=False)
    sys.exit(code)
