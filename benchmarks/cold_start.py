"""First token from zero: Glowplug's held request against a Deployment scaled from 0 to 1.

The peer is what an autoscaler of Deployments gives at best: its own detection is left out (the
clock starts with the scale call), an init container downloads the same files by boto3, tuned, into
the same tmpfs, and the client asks the Pod's IP, without waiting for its readiness probe (period
1 s) or kube-proxy, until it answers. Both use the same engine image, node, store and question, in
turn.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import aiohttp
from report import Report, arguments

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "hack"))

from glowplug.api import STAGES
from stack.ask import Answer, ask
from stack.install import MODELS, S3_ENDPOINT, SECRET, install
from stack.stack import Stack

OURS, PEER = "bench-glowplug", "bench-deployment"
QUESTION = "What is the capital of France?"
CASE = "cold start, 269 MB"
PREFIX = "smollm2-135m-instruct"
DOWNLOAD = f"""
import boto3, os
from boto3.s3.transfer import TransferConfig
MIB = 1 << 20
tuned = TransferConfig(
    multipart_threshold=8 * MIB, multipart_chunksize=16 * MIB, max_concurrency=4, io_chunksize=MIB
)
s3 = boto3.client("s3", endpoint_url="{S3_ENDPOINT}", region_name="us-east-1")
os.makedirs("/models/model")
for item in s3.list_objects_v2(Bucket="{MODELS}", Prefix="{PREFIX}/")["Contents"]:
    name = item["Key"].split("/")[-1]
    s3.download_file("{MODELS}", item["Key"], "/models/model/" + name, Config=tuned)
"""


def peer_deployment() -> dict[str, object]:
    """Return the Deployment at zero."""
    weights = [{"name": "models", "mountPath": "/models"}]
    engine = {
        "name": "engine",
        "image": "docker.io/glowplug/smollm2-engine:dev",
        "command": ["python3", "-u", "/engine/server.py"],
        "env": [
            {"name": "GLOWPLUG_MODEL_DIR", "value": "/models/model"},
            {"name": "GLOWPLUG_PORT", "value": "8000"},
            {"name": "GLOWPLUG_SERVED_NAME", "value": PEER},
        ],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1},
        "volumeMounts": weights,
    }
    restore = {
        "name": "restore",
        "image": "docker.io/glowplug/smollm2-engine:dev",
        "command": ["python3", "-c", DOWNLOAD],
        "envFrom": [{"secretRef": {"name": SECRET}}],
        "volumeMounts": weights,
    }
    pod = {
        "initContainers": [restore],
        "containers": [engine],
        "volumes": [{"name": "models", "emptyDir": {"medium": "Memory"}}],
        "terminationGracePeriodSeconds": 5,
    }
    labels = {"app": PEER}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": PEER},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


async def measure_ours(stack: Stack, report: Report) -> None:
    """Ask at zero, record the first token and the stages, and wait for zero again."""
    await stack.until(lambda: stack.pods(OURS) == [], 120)
    before = stack.status(OURS).get("coldStart", {}).get("last", {}).get("at")
    answer = await ask(stack.gateway_url, OURS, QUESTION)
    _record(report, "glowplug", answer)
    last = await stack.until(lambda: _newer(stack, before), 30)
    for stage in STAGES:
        report.add(CASE, "glowplug", f"stage {stage}", "s", last["stages"][stage])


def _newer(stack: Stack, before: str | None) -> dict[str, dict[str, float]] | None:
    last: dict[str, dict[str, float]] = stack.status(OURS).get("coldStart", {}).get("last", {})
    return last if last and last.get("at") != before else None


async def measure_peer(stack: Stack, report: Report) -> None:
    """Scale the Deployment to one, ask its Pod until it answers, and scale back."""
    started = time.monotonic()
    stack.kubectl("scale", "deployment", PEER, "--replicas=1")
    ip = await stack.until(lambda: _pod_ip(stack), 60, pause=0.05)
    answer = await _ask_until_answered(f"http://{ip}:8000", started)
    _record(report, "deployment-boto3-tuned", answer)
    stack.kubectl("scale", "deployment", PEER, "--replicas=0")
    await stack.until(lambda: stack.find("pods", f"app={PEER}") == [], 60)


def _pod_ip(stack: Stack) -> str:
    pods = stack.find("pods", f"app={PEER}")
    return next((pod["status"].get("podIP", "") for pod in pods), "")


async def _ask_until_answered(url: str, started: float) -> Answer:
    while time.monotonic() - started < 120:
        offset = time.monotonic() - started
        try:
            limit = aiohttp.ClientTimeout(total=60, connect=0.2)
            async with aiohttp.ClientSession(timeout=limit) as session:
                answer = await ask(url, PEER, QUESTION, session=session)
        except (aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(0.05)
            continue
        if answer.first_token is not None:
            answer.first_token += offset
            return answer
        await asyncio.sleep(0.05)
    raise TimeoutError("the peer's Deployment did not answer within 120 s")


def _record(report: Report, tool: str, answer: Answer) -> None:
    if answer.first_token is None:
        raise RuntimeError(f"{tool} gave no answer: {answer.error}")
    report.add(CASE, tool, "first token", "s", answer.first_token)


async def run(stack: Stack, rounds: int) -> Report:
    """Interleave both, `rounds` times after one that is not counted."""
    report = Report()
    stack.deploy(stack.smollm2(OURS))
    stack.apply(peer_deployment())
    try:
        await measure_ours(stack, Report())
        await stack.until(lambda: stack.condition(OURS, "SnapshotReady", status="True"), 120)
        await measure_peer(stack, Report())
        for _ in range(rounds):
            await measure_ours(stack, report)
            await measure_peer(stack, report)
    finally:
        stack.delete(OURS)
        stack.kubectl("delete", "deployment", PEER, "--ignore-not-found")
    pairs = zip(
        report.samples[CASE, "glowplug", "first token", "s"],
        report.samples[CASE, "deployment-boto3-tuned", "first token", "s"],
        strict=True,
    )
    for ours, peer in pairs:
        report.add(CASE, "glowplug / deployment-boto3-tuned", "first token", "ratio", ours / peer)
    return report


def main() -> None:
    """Measure, print, and write."""
    options = arguments(__doc__)
    report = asyncio.run(run(install(), rounds=5 if options.quick else 12))
    report.show()
    if options.json:
        report.write(options.json)
        print(json.dumps({"written": str(options.json)}))


if __name__ == "__main__":
    main()
