"""What every command shares: its options, the terminal, and how it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer
from rich.console import Console

if TYPE_CHECKING:
    from glowplug.kube import Client

T = TypeVar("T")
_NO_WRAP = 10_000
"""Columns that no sentence of ours or of Kubernetes fills."""

Name = Annotated[str, typer.Argument(help="Name of the ModelDeployment.")]
Namespace = Annotated[
    str | None, typer.Option("-n", "--namespace", help="Default: kubectl's current one.")
]
Everywhere = Annotated[bool, typer.Option("-A", "--all-namespaces", help="Show all namespaces.")]
Kubeconfig = Annotated[
    str | None, typer.Option(help="Path of a kubeconfig. Default: what kubectl uses.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(work: Callable[[Client], Awaitable[T]], kubeconfig: str | None) -> T:
    """Run `work` with a client of the user's cluster, or end with a sentence."""
    from glowplug.cli import connection

    try:
        return connection.call(work, kubeconfig)
    except connection.CommandError as error:
        fail(str(error))


def namespace_or_current(namespace: str | None, kubeconfig: str | None) -> str:
    """Return the namespace given, else the one that kubectl would use."""
    from glowplug.cli import connection

    return namespace or connection.current_namespace(kubeconfig)


def fail(sentence: str) -> NoReturn:
    """End the command with a sentence and the exit status 1."""
    typer.echo(sentence, err=True)
    raise typer.Exit(1)


def console() -> Console:
    """Return the terminal; what is not one gets lines of full length, for grep and awk."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=_NO_WRAP)


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
