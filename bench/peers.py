"""Finds the peers that sonde is measured against: the system's bpftrace, and newer ones unpacked beside the system.

`python bench/peers.py --fetch` unpacks the bpftrace of newer Debian suites, with the libraries it needs, into the user's cache; nothing
is installed. The mirror's address comes from this machine's own apt sources.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

SUITES = ("trixie", "sid")
LOADER = "usr/lib64/ld-linux-x86-64.so.2"


@dataclass(frozen=True)
class Peer:
    """A bpftrace that runs here: its version and the words that start it."""

    version: str
    command: tuple[str, ...]
    root: Path | None = None

    @property
    def name(self) -> str:
        return f"bpftrace {self.version}"


def cache_dir() -> Path:
    """Return the directory that newer peers are unpacked into."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sonde" / "peers"


def find_peers() -> list[Peer]:
    """Return every bpftrace found, oldest first."""
    commands: list[tuple[tuple[str, ...], Path | None]] = []
    if shutil.which("bpftrace"):
        commands.append((("bpftrace",), None))
    for suite in SUITES:
        root = cache_dir() / suite
        if (root / "usr/bin/bpftrace").exists():
            libraries = ":".join(
                str(root / d) for d in ("usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/systemd")
            )
            loader = str(root / LOADER)
            commands.append(
                ((loader, "--library-path", libraries, "--argv0", "bpftrace", str(root / "usr/bin/bpftrace")), root)
            )
    peers = []
    for command, root in commands:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True)
        found = re.search(r"v?(\d+\.\d+(?:\.\d+)?)", done.stdout)
        if done.returncode == 0 and found:
            peers.append(Peer(found[1], command, root))
    return sorted(peers, key=lambda p: [int(x) for x in p.version.split(".")])


def fetch(suite: str) -> None:
    """Unpack `suite`'s bpftrace and its libraries into the cache."""
    from vm.kernels import _mirrors

    base = cache_dir() / f"apt-{suite}"
    for sub in ("lists/partial", "cache/archives/partial", "etc"):
        (base / sub).mkdir(parents=True, exist_ok=True)
    (base / "status").touch()
    (base / "etc/sources.list").write_text(f"deb {_mirrors()['debian']} {suite} main\n")
    options = []
    for key, value in {
        "Dir::Etc::sourcelist": base / "etc/sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": base / "lists",
        "Dir::Cache": base / "cache",
        "Dir::State::status": base / "status",
        "APT::Architecture": "amd64",
        "APT::Install-Recommends": "0",
        "APT::Sandbox::User": "root",
    }.items():
        options += ["-o", f"{key}={value}"]
    subprocess.run(["apt-get", "-q", *options, "update"], check=True, stdout=subprocess.DEVNULL)
    plan = subprocess.run(
        ["apt-get", *options, "-s", "install", "bpftrace"], check=True, capture_output=True, text=True
    )
    names = re.findall(r"^Inst (\S+)", plan.stdout, re.M)
    archives = base / "cache/archives"
    subprocess.run(["apt-get", "-q", *options, "download", *names], check=True, cwd=archives, stdout=subprocess.DEVNULL)
    root = cache_dir() / suite
    for deb in archives.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(deb), str(root)], check=True)
        deb.unlink()


if __name__ == "__main__":
    if "--fetch" in sys.argv:
        for name in SUITES:
            fetch(name)
    for peer in find_peers():
        print(peer.name, *peer.command)
