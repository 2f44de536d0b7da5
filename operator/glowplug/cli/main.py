"""The commands of `glowplug`: each reads what it needs, then prints it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glowplug.cli import render, rollout, timeline, view
from glowplug.cli.terminal import (
    AsJson,
    Everywhere,
    Kubeconfig,
    Name,
    Namespace,
    console,
    fail,
    namespace_or_current,
    now,
    run,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from glowplug.kube import Client, Json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"glowplug {version('glowplug')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version, and end."
        ),
    ] = False,
) -> None:
    """Say what your models do, why, and what it costs."""


@app.command()
def status(
    name: Annotated[
        str | None, typer.Argument(help="Show one, with its conditions and its rollout.")
    ] = None,
    namespace: Namespace = None,
    everywhere: Everywhere = False,
    as_json: AsJson = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show each model: is it serving, how warm is it, what does it cost."""
    if name and everywhere:
        fail("-A lists every model; leave it out to show one by name.")
    where = None if everywhere else namespace_or_current(namespace, kubeconfig)
    if name and where:
        _status_of(name, where, kubeconfig, as_json=as_json)
        return
    bodies = run(lambda client: _models(client, where), kubeconfig)
    if as_json:
        _print_json(bodies)
    elif bodies:
        models = [view.model(body) for body in bodies]
        console().print(render.status(models, namespaces=everywhere))
    else:
        hint = "" if everywhere else " in this namespace; -A looks in all"
        typer.echo(f"There are no ModelDeployments{hint}.")


def _status_of(name: str, namespace: str, kubeconfig: str | None, *, as_json: bool) -> None:
    from glowplug.cli import connection, figures
    from glowplug.kube import PODS, Forbidden

    async def work(client: Client) -> tuple[Json, list[rollout.Revision] | None]:
        body = await connection.find(client, name, namespace)
        selector = f"{rollout.MODEL}={name},{rollout.REPLICAS}"
        with suppress(Forbidden):
            pods = await client.list(PODS, namespace, label_selector=selector)
            in_flight = await figures.in_flight(client, namespace, name)
            newest = (body.get("status") or {}).get("revision")
            return body, rollout.revisions(pods, newest, in_flight)
        return body, None

    body, revisions = run(work, kubeconfig)
    if as_json:
        _print_json(body | {"rollout": rollout.as_json(revisions)})
        return
    model = view.model(body)
    console().print(render.detail(model, now()))
    told: RenderableType = (
        "You may not list Pods, so the rollout is not shown; ask for list on pods."
    )
    if revisions is not None:
        told = rollout.render(revisions, model.desired)
    console().print("", told, sep="\n")


@app.command("timeline")
def show_timeline(
    name: Name, namespace: Namespace = None, as_json: AsJson = False, kubeconfig: Kubeconfig = None
) -> None:
    """Show where the time of the last cold starts went, and what is usual."""
    where = namespace_or_current(namespace, kubeconfig)

    async def work(client: Client) -> tuple[Json, list[dict[str, Any]]]:
        from glowplug.cli import connection, figures

        body = await connection.find(client, name, where)
        return body, await figures.cold_starts(client, where, name)

    body, recent = run(work, kubeconfig)
    told = (body.get("status") or {}).get("coldStart") or {}
    if as_json:
        last = [told["last"]] if told.get("last") else []
        _print_json({"coldStart": told, "recent": recent or last})
        return
    known = view.model(body).cold_start
    console().print(timeline.render(known, [view.start(start) for start in recent]))


@app.command()
def explain(
    name: Name, namespace: Namespace = None, as_json: AsJson = False, kubeconfig: Kubeconfig = None
) -> None:
    """Say why the model has the replicas that it has."""
    body = _read(name, namespace, kubeconfig)
    if as_json:
        _print_json(render.explanation_json(view.model(body), now()))
        return
    console().print(render.explanation(view.model(body), now()))


@app.command()
def top(
    *,
    namespace: Namespace = None,
    everywhere: Everywhere = False,
    once: Annotated[bool, typer.Option("--once", help="Print once, and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.5, max=3600, help="Seconds.")] = 2.0,
    metrics_url: Annotated[
        str | None,
        typer.Option(help="The operator's /metrics. Default: through the API server."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON once, and end.")] = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show replicas, requests and dollars of every model, live."""
    from glowplug.cli import top as live

    where = None if everywhere else namespace_or_current(namespace, kubeconfig)
    terminal = console()
    if not (once or as_json) and terminal.is_terminal:
        with suppress(KeyboardInterrupt):
            run(lambda c: live.watch(c, terminal, where, metrics_url, interval), kubeconfig)
        return
    seen = run(lambda client: live.look(client, where, metrics_url), kubeconfig)
    if as_json:
        _print_json(live.as_json(seen))
    else:
        terminal.print(live.draw(seen, namespaces=everywhere))


@app.command()
def doctor(
    *,
    namespace: Namespace = None,
    secret: Annotated[
        str | None,
        typer.Option(help="Secret in -n with the store's keys. Default: AWS_* variables."),
    ] = None,
    store_url: Annotated[
        str | None, typer.Option(help="Default: what the operator was started with.")
    ] = None,
    store_endpoint: Annotated[
        str | None, typer.Option(help="Default: what the operator was started with.")
    ] = None,
    prometheus_url: Annotated[
        str | None, typer.Option(help="Default: the operator's, through the API server.")
    ] = None,
    as_json: AsJson = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Check the cluster and say what to fix; exit status 1 when something does not work."""
    from glowplug.cli.doctor import checks
    from glowplug.cli.doctor.finding import Options

    where = namespace_or_current(namespace, kubeconfig)
    options = Options(where, secret, store_url, store_endpoint, prometheus_url)
    report = run(lambda client: checks.examine(client, options), kubeconfig)
    if as_json:
        _print_json(checks.as_json(report))
    else:
        console().print(checks.draw(report), soft_wrap=True)
    if report.failed:
        raise typer.Exit(1)


@app.command()
def release(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None) -> None:
    """Let Glowplug decide the replicas again: remove spec.replicas."""
    from glowplug.cli import connection
    from glowplug.kube import MODELDEPLOYMENTS

    where = namespace_or_current(namespace, kubeconfig)

    async def work(client: Client) -> int | None:
        before = view.model(await connection.find(client, name, where)).pinned
        if before is not None:
            await client.patch(MODELDEPLOYMENTS, name, {"spec": {"replicas": None}}, where)
        return before

    pinned = run(work, kubeconfig)
    if pinned is None:
        typer.echo(f"{name} was not pinned: Glowplug decides its replicas already.")
    else:
        typer.echo(f"{name} is no longer pinned at {pinned}: Glowplug decides its replicas.")


def _read(name: str, namespace: str | None, kubeconfig: str | None) -> Json:
    from glowplug.cli import connection

    where = namespace_or_current(namespace, kubeconfig)
    return run(lambda client: connection.find(client, name, where), kubeconfig)


async def _models(client: Client, namespace: str | None) -> list[Json]:
    from glowplug.kube import MODELDEPLOYMENTS

    return await client.list(MODELDEPLOYMENTS, namespace)


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=2))


if __name__ == "__main__":
    app()
