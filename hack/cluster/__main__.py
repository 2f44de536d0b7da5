"""`python -m cluster`: a real local Kubernetes, from the command line."""

import contextlib
import signal
import sys
from typing import Annotated

import typer
from rich.markup import escape

from cluster import images as image_builder
from cluster import lifecycle
from cluster import services as service_processes
from cluster.apiserver import running
from cluster.build import ensure_binaries
from cluster.commands import console
from cluster.config import GPUS, ClusterError, paths
from cluster.gitops import ensure_argocd

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
services = typer.Typer(help="S3 store and Prometheus.", no_args_is_help=True)
app.add_typer(services, name="services")


@app.command()
def up(
    gpus: Annotated[int, typer.Option(min=0, help="GPUs that the node advertises.")] = GPUS,
) -> None:
    """Start the cluster, or repair it; seconds once its programs are built."""
    lifecycle.up(paths(), gpus)
    console.print(f"Ready. Run: eval $({sys.executable} -m cluster env)")


@app.command()
def down() -> None:
    """Remove the cluster: no process, mount, bridge or rule stays."""
    lifecycle.down(paths())


@app.command()
def status() -> None:
    """Say how each part is; ends with 1 unless all run."""
    report = lifecycle.status(paths())
    if not report:
        console.print("No cluster. Start one with `python -m cluster up`.")
    for name, state in report.items():
        console.print(f"{name:24} {state}")
    if not report or "dead" in report.values() or report.get("node") != "Ready":
        raise typer.Exit(1)


@app.command()
def build() -> None:
    """Build the programs of the cluster and of its tests, once for each version."""
    console.print(str(ensure_binaries(paths())))
    console.print(str(ensure_argocd(paths())))


@app.command()
def images(
    names: Annotated[
        list[str] | None, typer.Argument(help="Images; all when none is named.")
    ] = None,
) -> None:
    """Build the project's images that changed and load them into the cluster."""
    lifecycle.images(paths(), names or list(image_builder.IMAGES))


@services.command("up")
def services_up(
    scrape: Annotated[str, typer.Option(help="http_sd URL that lists what to scrape.")] = "",
) -> None:
    """Start an S3 store and a Prometheus on the bridge's address."""
    service_processes.up(paths())
    if scrape:
        service_processes.scrape(paths(), scrape)


@services.command("down")
def services_down() -> None:
    """End them."""
    service_processes.down(paths())


@app.command("preflight")
def check() -> None:
    """Check the machine, and install the Debian packages it lacks."""
    lifecycle.prepare(paths())


@app.command()
def apiserver() -> None:
    """Run etcd and the API server alone on loopback until Ctrl-C, as tests/api do."""
    with running() as kubeconfig, contextlib.suppress(KeyboardInterrupt):
        print(f'export KUBECONFIG="{kubeconfig}"', flush=True)
        signal.pause()


@app.command()
def env() -> None:
    """Print exports of PATH and KUBECONFIG for a shell's eval."""
    where = paths()
    print(f'export PATH="{where.bin}:$PATH"')
    print(f'export KUBECONFIG="{where.kubeconfig}"')


if __name__ == "__main__":
    try:
        app()
    except ClusterError as error:
        console.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
