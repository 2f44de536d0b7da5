"""`make demo`: wake a model from zero, watch it follow its queue, and let it go back to sleep."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from rich.live import Live

from cluster.commands import console
from cluster.config import ClusterError
from glowplug.cli import timeline, view
from stack.ask import Answer, ask, load
from stack.install import install
from stack.stack import EXAMPLE, Stack

MODEL = "smollm2"
QUESTION = "What is the capital of France?"
CLIENTS = 16
TARGET_REPLICAS = 3


async def demo(stack: Stack) -> None:
    """Ask at zero, raise load, let it idle; every step prints what happened."""
    await _at_zero(stack)
    before = stack.status(MODEL).get("coldStart", {}).get("last", {}).get("at")
    answer = await _first_question(stack)
    await _show_cold_start(stack, answer, before)
    await _raise_load(stack)
    await _back_to_zero(stack)
    _where_to_look_next(stack)


async def _at_zero(stack: Stack) -> None:
    console.rule("1. A model at zero")
    stack.kubectl("apply", "-f", str(EXAMPLE / "modeldeployment.yaml"))
    with console.status("waiting until it is known, and at zero"):
        await stack.until(lambda: stack.condition(MODEL, "Ready", reason="ScaledToZero"), 180)
        await stack.until(lambda: stack.pods(MODEL) == [], 180)
    console.print(stack.kubectl("get", "modeldeployments.glowplug.dev", MODEL))


async def _first_question(stack: Stack) -> Answer:
    console.rule("2. The first question")
    console.print(f"POST {stack.gateway_url}/v1/chat/completions: [bold]{QUESTION}[/]\n")
    answer = await ask(
        stack.gateway_url,
        MODEL,
        QUESTION,
        on_token=lambda token: print(token, end="", flush=True),
        on_comment=lambda text: console.print(f"[dim]: {text}[/]"),
    )
    print()
    if not answer.finished:
        raise ClusterError(f"The gateway did not answer: {answer.error}. See the operator's log.")
    console.print(f"\nfirst token after [bold]{answer.first_token:.2f} s[/], from zero replicas\n")
    return answer


def _newer(stack: Stack, before: str | None) -> dict[str, Any]:
    cold: dict[str, Any] = stack.status(MODEL).get("coldStart", {})
    return cold if cold.get("last", {}).get("at") not in (None, before) else {}


async def _show_cold_start(stack: Stack, answer: Answer, before: str | None) -> None:
    cold = await stack.until(lambda: _newer(stack, before), 30)
    console.print(timeline.render(view.cold_start(cold)))
    console.print(f"the client measured {answer.first_token:.2f} s\n")


async def _raise_load(stack: Stack) -> None:
    console.rule(f"3. {CLIENTS} clients at once")
    stop = asyncio.Event()
    loading = asyncio.create_task(
        load(stack.gateway_url, MODEL, clients=CLIENTS, seconds=180, stop=stop)
    )
    started = time.monotonic()
    with Live(console=console, refresh_per_second=4) as live:

        def enough() -> bool:
            live.update(_line(stack, time.monotonic() - started))
            return stack.ready_replicas(MODEL) >= TARGET_REPLICAS

        try:
            await stack.until(enough, 180, pause=1)
        finally:
            stop.set()
            answers = await loading
    failed = sum(not answer.finished for answer in answers)
    console.print(f"\n{len(answers)} requests answered, {failed} failed\n")


def _line(stack: Stack, seconds: float) -> str:
    status = stack.status(MODEL)
    decision = status.get("decision", {})
    ready, desired = status.get("readyReplicas", 0), decision.get("desired", 0)
    return f"{seconds:5.0f} s  {ready} ready of {desired} wanted\n{decision.get('reason', '')}"


async def _back_to_zero(stack: Stack) -> None:
    console.rule("4. Nobody asks any more")
    started = time.monotonic()
    with Live(console=console, refresh_per_second=4) as live:

        def gone() -> bool:
            live.update(_line(stack, time.monotonic() - started))
            return stack.pods(MODEL) == []

        await stack.until(gone, 240, pause=1)
    console.print(f"\n{stack.kubectl('get', 'modeldeployments.glowplug.dev', MODEL)}")


def _where_to_look_next(stack: Stack) -> None:
    console.rule("Where to look next")
    hints = {
        'eval "$(PYTHONPATH=hack .venv/bin/python -m cluster env)"': "kubectl and helm for it",
        f".venv/bin/glowplug status {MODEL} -n {stack.namespace}": "the model, in words",
        f".venv/bin/glowplug timeline {MODEL} -n {stack.namespace}": "its cold starts, as bars",
        f"curl {stack.gateway_url}/v1/models": "the OpenAI-compatible URL",
        f"{stack.prometheus_url}/graph?g0.expr=vllm:num_requests_waiting": "its queue",
        "make cluster-down": "leaves nothing behind",
    }
    for command, purpose in hints.items():
        console.print(f"[dim]# {purpose}[/]")
        console.print(command, markup=False, soft_wrap=True)


def main() -> int:
    """Run the demo; an error a user may meet is one sentence."""
    started = time.monotonic()
    try:
        asyncio.run(demo(install()))
    except (ClusterError, AssertionError) as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True)
        return 1
    console.print(f"\n[green]✓[/] done in {(time.monotonic() - started) / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
