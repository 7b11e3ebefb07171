"""The programs of Debian's BCC tools: what each hands to BPF(), and what it makes of its functions, recorded by running the tool.

`python tests/bcc_texts.py DIRECTORY` writes one JSON file for each tool. Needs the package bpfcc-tools; traces nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

TOOLS = Path("/usr/sbin")
ENDING = "-bpfcc"
RECORDER = Path(__file__).with_name("bcc_recorder")
SOURCE = Path(__file__).resolve().parents[1] / "src"
SECONDS = 30

# Arguments of the tools that do nothing without.
ARGUMENTS = {
    "argdist": ["-C", "p::vfs_read(struct file *file, char *buf, size_t count):size_t:count", "-H", "r::vfs_read()"],
    "biolatpcts": ["259:0"],
    "dirtop": ["-d", "/tmp"],
    "netqtop": ["-n", "lo"],
    "dbslower": ["mysql", "-x", "/bin/true"],
    "dbstat": ["mysql", "-p", "1"],
    "deadlock": [str(os.getpid())],
    "funccount": ["vfs_*"],
    "funcinterval": ["vfs_read"],
    "funclatency": ["vfs_read"],
    "funcslower": ["vfs_read"],
    "inject": ["kmalloc", "-v", "should_failslab(struct kmem_cache *s, gfp_t gfpflags)"],
    "mysqld_qslower": ["1"],
    "stackcount": ["vfs_read"],
    "tcpsubnet": [],
    "trace": ["vfs_read(struct file *file, char *buf, size_t count) (count > 10) \"read %d bytes\", count"],
    "ttysnoop": ["/dev/tty0"],
    "memleak": ["-p", "1"],
    "klockstat": [],
    "threadsnoop": [],
    **{f"{language}{what}": ["1"] for language in ("java", "perl", "php", "python", "ruby", "tcl", "node")
       for what in ("calls", "flow", "gc", "objnew", "stat", "threads")},
    "cobjnew": ["1"],
}  # fmt: skip
# They bring no program of their own, or none before they have found something to trace.
WITHOUT = frozenset(["bpflist", "reset-trace", "tplist"])


def tool_names() -> list[str]:
    """Return the tools that are installed and that hand a text to BPF()."""
    names = [path.name.removesuffix(ENDING) for path in sorted(TOOLS.glob("*" + ENDING))]
    return [name for name in names if name not in WITHOUT]


@cache
def record(tool: str, kfunc: bool = False) -> dict:  # type: ignore[type-arg]
    """Run a tool against the recorder. Returns {"texts": [{"text", "cflags", "programs"}], "error": …}.

    With `kfunc` it is told that the kernel can trace functions by fentry.
    """
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, "out.json")
        environ = dict(os.environ, PYTHONPATH=str(RECORDER), BCC_RECORDER_OUT=out, BCC_RECORDER_SONDE=str(SOURCE))
        environ |= {"TERM": "dumb", "BCC_RECORDER_KFUNC": str(int(kfunc))}
        command = [str(TOOLS / (tool + ENDING)), *ARGUMENTS.get(tool, [])]
        try:
            done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, cwd=directory)
            said = done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            said = "it did not end"
        if not os.path.exists(out):
            return {"texts": [], "error": said[-500:]}
        with open(out) as file:
            result = json.load(file)
        result.setdefault("error", "")
        result["said"] = said[-500:]
        return result


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(exist_ok=True)
    for name in tool_names():
        recorded = record(name)
        (target / (name + ".json")).write_text(json.dumps(recorded, indent=1))
        programs = [p for t in recorded["texts"] for p in t["programs"].items()]
        if not recorded["texts"] or recorded["error"]:
            print(name, len(recorded["texts"]), programs, recorded["error"], recorded.get("said", "")[-300:])
