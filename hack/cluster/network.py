"""The bridge, routes and iptables rules of the cluster, and their removal."""

import json
import shutil
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from cluster.commands import run
from cluster.config import (
    BRIDGE,
    CNI_NETWORK,
    DNS_IP,
    NODE_IP,
    POD_CIDR,
    SERVICE_CIDR,
    ClusterError,
    Paths,
)
from cluster.processes import write_config

BRIDGE_MAC = "02:67:6c:6f:77:01"  # fixed: else it changes with every pod, and ARP goes stale
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
BRIDGE_CALLS = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
OURS = ("KUBE-", "GLOWPLUG-")
RULES = {  # (table, built-in chain, our chain) -> rules
    ("filter", "FORWARD", "GLOWPLUG-FORWARD"): (f"-i {BRIDGE} -j ACCEPT", f"-o {BRIDGE} -j ACCEPT"),
    ("nat", "POSTROUTING", "GLOWPLUG-POSTROUTING"): (
        f"-s {POD_CIDR} -d 198.18.0.0/15 -j RETURN",
        f"-s {POD_CIDR} ! -o {BRIDGE} -j MASQUERADE",
    ),
}


def up(paths: Paths) -> None:
    """Make the bridge with the node's address, the service route, forwarding and the CNI file."""
    _remember_sysctls(paths)
    if not _bridge_exists():
        run(["ip", "link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge"])
    run(["ip", "address", "replace", f"{NODE_IP}/{POD_CIDR.split('/')[1]}", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    # Without this route a host's packet to a service leaves by the default route.
    run(["ip", "route", "replace", SERVICE_CIDR, "dev", BRIDGE, "src", NODE_IP])
    FORWARD.write_text("1")
    with suppress(ClusterError):
        run(["modprobe", "br_netfilter"])  # built in on some kernels
    if not BRIDGE_CALLS.exists():
        raise ClusterError(
            "the kernel has no br_netfilter, so that services would not answer from pods: "
            "install the distribution's full kernel package."
        )
    BRIDGE_CALLS.write_text("1")
    for (table, parent, chain), rules in RULES.items():
        _ensure_chain(table, parent, chain, rules)
    _write_cni(paths)


def down(paths: Paths) -> None:
    """Remove the bridge, every chain that the cluster made, CNI's records; restore sysctls."""
    for family in ("iptables", "ip6tables"):
        for table in ("filter", "nat", "mangle"):
            _remove_chains(family, table)
    if _bridge_exists():
        for port in Path(f"/sys/class/net/{BRIDGE}/brif").iterdir():
            with suppress(ClusterError):
                run(["ip", "link", "delete", port.name])
        run(["ip", "link", "delete", BRIDGE])
    for record in Path("/var/lib/cni/results").glob("*"):
        if f"{paths.root}/" in record.read_text():  # it names the sandbox below our directory
            record.unlink()
    for folder in ("/var/lib/cni/results", "/var/lib/cni"):
        with suppress(OSError):
            Path(folder).rmdir()
    with suppress(ClusterError):
        run(["conntrack", "-D", "-d", DNS_IP])
    _restore_sysctls(paths)


def leftovers() -> list[str]:
    """What of the network is there, in words."""
    found = [f"bridge {BRIDGE}"] if _bridge_exists() else []
    for family in ("iptables", "ip6tables"):
        for table in ("filter", "nat", "mangle"):
            found += [f"{family} {table} chain {chain}" for chain in _chains(family, table)]
    return found


def _bridge_exists() -> bool:
    return Path(f"/sys/class/net/{BRIDGE}").exists()


def _ensure_chain(table: str, parent: str, chain: str, rules: tuple[str, ...]) -> None:
    lines = [f"*{table}", f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules)]
    jump = f"-A {parent} -j {chain}"
    if jump not in run(["iptables-save", "-t", table]).splitlines():
        lines.append(f"-I {parent} -j {chain}")
    run(["iptables-restore", "--noflush"], stdin="\n".join([*lines, "COMMIT", ""]))


def _chains(family: str, table: str) -> list[str]:
    if not shutil.which(f"{family}-save"):  # never installed: no chain of ours either
        return []
    saved = run([f"{family}-save", "-t", table]).splitlines()
    return [line[1:].split()[0] for line in saved if line.startswith(tuple(f":{p}" for p in OURS))]


def _remove_chains(family: str, table: str) -> None:
    chains = _chains(family, table)
    if not chains:
        return
    saved = run([f"{family}-save", "-t", table]).splitlines()
    lines = [f"*{table}"]
    for rule in saved:
        words = rule.split()
        if words[:1] == ["-A"] and words[1] not in chains and words[-1:] and _jumps(words, chains):
            lines.append(f"-D {rule[3:]}")
    lines += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
    run([f"{family}-restore", "--noflush"], stdin="\n".join([*lines, "COMMIT", ""]))


def _jumps(words: list[str], chains: list[str]) -> bool:
    return any(flag in ("-j", "-g") and to in chains for flag, to in pairwise(words))


def _remember_sysctls(paths: Paths) -> None:
    memory = paths.root / "sysctls.json"
    if not memory.exists():
        files = [path for path in (FORWARD, BRIDGE_CALLS) if path.exists()]
        memory.write_text(json.dumps({str(path): path.read_text().strip() for path in files}))


def _restore_sysctls(paths: Paths) -> None:
    memory = paths.root / "sysctls.json"
    if memory.exists():
        for path, value in json.loads(memory.read_text()).items():
            Path(path).write_text(value)
        memory.unlink()


def _write_cni(paths: Paths) -> None:
    directory = paths.root / "cni"
    (directory / "conf").mkdir(parents=True, exist_ok=True)
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": False,  # the bridge has its address already
        "hairpinMode": True,  # a pod may call its own service
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "dataDir": str(directory / "networks"),
            "ranges": [[{"subnet": POD_CIDR, "rangeStart": "198.18.0.10", "gateway": NODE_IP}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    body = {"cniVersion": "1.0.0", "name": CNI_NETWORK, "plugins": [bridge]}
    write_config(directory / "conf" / "10-glowplug.conflist", json.dumps(body, indent=1))
