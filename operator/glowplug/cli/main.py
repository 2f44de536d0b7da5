"""The commands of `glowplug`: each reads what it needs, then prints it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from glowplug.cli import render, timeline, view

app = typer.Typer(
    help="What your models do, why, and what it costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(help="Name of the ModelDeployment.")]
Namespace = Annotated[
    str | None, typer.Option("-n", "--namespace", help="Default: kubectl's current one.")
]
Kubeconfig = Annotated[
    str | None, typer.Option(help="Path of a kubeconfig. Default: what kubectl uses.")
]


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Show one, with its conditions.")] = None,
    namespace: Namespace = None,
    all_namespaces: Annotated[
        bool, typer.Option("-A", "--all-namespaces", help="Show all namespaces.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the objects as JSON.")] = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show each model: is it serving, how warm is it, what does it cost."""
    if name and all_namespaces:
        fail("-A lists every model; leave it out to show one by name.")
    bodies = read(name, namespace, kubeconfig, everywhere=all_namespaces)
    if as_json:
        typer.echo(json.dumps(bodies[0] if name else bodies, indent=2))
        return
    models = [view.model(body) for body in bodies]
    if name:
        console().print(render.detail(models[0], now()))
    elif models:
        console().print(render.status(models, namespaces=all_namespaces))
    else:
        hint = "" if all_namespaces else " in this namespace; -A looks in all"
        typer.echo(f"There are no ModelDeployments{hint}.")


@app.command("timeline")
def show_timeline(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None) -> None:
    """Show where the time of the last cold start went, and what is usual."""
    [body] = read(name, namespace, kubeconfig)
    console().print(timeline.render(view.model(body).cold_start))


@app.command()
def explain(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None) -> None:
    """Say why the model has the replicas that it has."""
    [body] = read(name, namespace, kubeconfig)
    console().print(render.explanation(view.model(body), now()))


@app.command()
def release(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None) -> None:
    """Let Glowplug decide the replicas again: remove spec.replicas."""
    from glowplug.cli import connection
    from glowplug.kube import MODELDEPLOYMENTS, Client

    where = namespace or connection.current_namespace(kubeconfig)

    async def work(client: Client) -> int | None:
        before = view.model(await connection.find(client, name, where)).pinned
        if before is not None:
            await client.patch(MODELDEPLOYMENTS, name, {"spec": {"replicas": None}}, where)
        return before

    try:
        pinned = connection.call(work, kubeconfig)
    except connection.CommandError as error:
        fail(str(error))
    if pinned is None:
        typer.echo(f"{name} was not pinned: Glowplug decides its replicas already.")
    else:
        typer.echo(f"{name} is no longer pinned at {pinned}: Glowplug decides its replicas.")


def read(
    name: str | None, namespace: str | None, kubeconfig: str | None, *, everywhere: bool = False
) -> list[dict[str, object]]:
    """Read one ModelDeployment or all of a namespace or of the cluster, or end with a sentence."""
    from glowplug.cli import connection
    from glowplug.kube import MODELDEPLOYMENTS, Client

    where = None if everywhere else namespace or connection.current_namespace(kubeconfig)

    async def work(client: Client) -> list[dict[str, object]]:
        if name and where:
            return [await connection.find(client, name, where)]
        return await client.list(MODELDEPLOYMENTS, where)

    try:
        return connection.call(work, kubeconfig)
    except connection.CommandError as error:
        fail(str(error))


def fail(sentence: str) -> NoReturn:
    """End the command with a sentence and the exit status 1."""
    typer.echo(sentence, err=True)
    raise typer.Exit(1)


def console() -> Console:
    """Return the terminal; what is not one gets lines of full length, for grep and awk."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=240)


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


if __name__ == "__main__":
    app()
