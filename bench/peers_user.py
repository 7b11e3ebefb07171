"""Peers of the user engine, each at what it does, on the same loop as sonde: frida, gdb's fast tracepoints, uftrace and LTTng-UST, where they are installed.

frida and gdb attach to a program that runs; uftrace starts one that was compiled for it (-fpatchable-function-entry), LTTng-UST one with the tracepoint in its source. gdb
needs an instruction of five bytes, a program at a fixed address, and a library in it from the start (Debian: gdbserver).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from user_target import Target, build

from sonde.debuginfo.elf import Elf
from sonde.debuginfo.procmaps import read_maps

COUNT, RETURN, RECORD, BOTH = (
    "count()",
    "return, count()",
    "record of 32 bytes with time",
    "entry and return, hist of latency",
)
Found = dict[str, float]  # what it does, as the rows of the table have it: nanoseconds above the base

_FRIDA = """
import frida, sys, time
pid, address, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
began = time.perf_counter()
session = frida.attach(pid)
script = session.create_script('''
const m = new CModule(`#include <gum/guminterceptor.h>
extern volatile guint64 hits;
void on(GumInvocationContext *c) { hits++; }`, { hits: Memory.alloc(8) });
Interceptor.attach(ptr(%d), %s);
Interceptor.flush();''' % (address, how))
script.load()
print((time.perf_counter() - began) * 1e3, flush=True)
sys.stdin.read()
session.detach()
"""
_FRIDA_LISTENERS = {COUNT: "m.on", RETURN: "{ onEnter: m.on, onLeave: m.on }"}
_IN_PROCESS = (
    "/usr/lib/libinproctrace.so",
    "/usr/lib/x86_64-linux-gnu/libinproctrace.so",
    "/usr/lib64/libinproctrace.so",
)
_HIT = """
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER bench
#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./hit.h"
#if !defined(HIT_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define HIT_H
#include <lttng/tracepoint.h>
LTTNG_UST_TRACEPOINT_EVENT(bench, hit, LTTNG_UST_TP_ARGS(long, a, long, b),
    LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(long, a, a) lttng_ust_field_integer(long, b, b)))
#endif
#include <lttng/tracepoint-event.h>
"""


def address_of(target: Target, name: str = "probed") -> int:
    """Where a function of the target is in memory."""
    elf = Elf.open(target.path)
    symbol = elf.get_function(name)
    assert symbol is not None
    offset = elf.get_offset(symbol.vaddr)
    found = (m for m in read_maps(target.process.pid) if m.path == os.path.realpath(target.path))
    return next(m.start + offset - m.offset for m in found if m.offset <= offset < m.offset + m.end - m.start)


# frida --------------------------------------------------------------------------------------------------------------


def find_frida() -> str:
    """A Python that has frida: the one that SONDE_BENCH_FRIDA names, or this one; "" when there is none."""
    for python in (os.environ.get("SONDE_BENCH_FRIDA", ""), sys.executable):
        if python and subprocess.run([python, "-c", "import frida"], capture_output=True).returncode == 0:
            return python
    return ""


@contextmanager
def frida_in(python: str, pid: int, address: int, listener: str) -> Iterator[float]:
    """frida in a process, with a listener in C; gives the milliseconds that attaching took."""
    command = [python, "-c", _FRIDA, str(pid), str(address), listener]
    helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert helper.stdout
    try:
        yield float(helper.stdout.readline())
    finally:
        helper.communicate(timeout=20)


def measure_frida(python: str, folder: str, calls: int) -> Found:
    found = {}
    with Target(build(folder)) as target:
        base, address = target.least(calls), address_of(target)  # before frida has changed what the process maps
        for title, listener in _FRIDA_LISTENERS.items():
            with frida_in(python, target.process.pid, address, listener):
                found[title] = target.least(calls // 20) - base
    return found


def frida_costs(python: str, folder: str, rounds: int) -> str:
    """Attaching to a process of 10 busy threads, and what is added to the memory of an idle one."""
    took, path = [], build(folder)
    for _ in range(rounds):  # a new one each time
        with Target(path) as target:
            target.say(20_000_000_000, 10)
            time.sleep(0.5)
            with frida_in(python, target.process.pid, address_of(target), "m.on") as milliseconds:
                took.append(milliseconds)
    with Target(path) as target:
        target.time(1000)
        before = target.memory_kib()
        with frida_in(python, target.process.pid, address_of(target), "m.on"):
            after = target.memory_kib()
    return f"attaching {sorted(took)[len(took) // 2]:.0f} ms; memory {after[0] - before[0]} KiB and {after[1] - before[1]} threads"


# gdb ----------------------------------------------------------------------------------------------------------------


def find_in_process_agent() -> str:
    """gdb's library for the traced process, where gdb and gdbserver are there too; "" when not."""
    if not shutil.which("gdb") or not shutil.which("gdbserver"):
        return ""
    return next((path for path in _IN_PROCESS if os.path.exists(path)), "")


def measure_gdb(library: str, folder: str, calls: int) -> Found:
    """A fast tracepoint without actions, which notes the hit, and one that collects a register, which keeps all of them."""
    path = build(folder, "gdb-target", "-DNOP", "-no-pie")
    return {
        COUNT: _gdb_cost(library, path, [], calls, min(calls, 50_000)),
        RECORD: _gdb_cost(library, path, ["actions", "collect $rdi", "end"], calls, 200),  # what fits into its memory
    }


def _gdb_cost(library: str, path: str, actions: list[str], calls: int, hits: int) -> float:
    with Target(path, environ={"LD_PRELOAD": library}) as target:
        base = target.least(calls)
        server = subprocess.Popen(
            ["gdbserver", "--attach", "localhost:0", str(target.process.pid)], stderr=subprocess.PIPE, text=True
        )
        assert server.stderr
        port = next(line for line in server.stderr if "port" in line).split()[-1]
        lines = [
            "set pagination off", "set non-stop on", f"target extended-remote localhost:{port}", f"ftrace *{address_of(target)}", *actions, "tstart",
            "continue &", "echo at-work\\n",
        ]  # fmt: skip
        gdb = subprocess.Popen(
            ["gdb", "-nx", "-q", path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert gdb.stdin and gdb.stdout
        try:
            gdb.stdin.write("".join(line + "\n" for line in lines))
            gdb.stdin.flush()
            said = ""
            while "at-work" not in said:
                said = gdb.stdout.readline()
            target.time(hits)
            return target.least(hits) - base
        finally:
            for process in (gdb, server):
                process.kill()
                process.communicate()


# uftrace, LTTng-UST -------------------------------------------------------------------------------------------------


def measure_uftrace(folder: str, calls: int) -> Found:
    """A record with time at entry and another at return."""
    path = build(folder, "uftrace-target", "-fpatchable-function-entry=5")
    with Target(path) as target:
        base = target.least(calls)
    record = ["uftrace", "record", "-d", os.path.join(folder, "uftrace.data"), "--no-libcall", "-P", "probed"]
    with Target(path, before=record) as target:
        hits = min(calls, 50_000)
        target.time(hits)
        found = target.least(hits) - base
        target.end()  # so that the recorder ends too
    return {BOTH: found}


def measure_lttng(folder: str, calls: int) -> Found:
    """A record of two integers with time, into memory that its daemon writes to files."""
    Path(folder, "hit.h").write_text(_HIT)
    path = build(folder, "lttng-target", "-DLTTNG", "-llttng-ust", "-ldl")
    with tempfile.TemporaryDirectory() as home:
        environ = {"LTTNG_HOME": home}
        daemon = subprocess.Popen(
            ["lttng-sessiond", "--no-kernel"],
            env={**os.environ, **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def lttng(*words: str) -> None:
            subprocess.run(["lttng", *words], env={**os.environ, **environ}, stdout=subprocess.DEVNULL, check=True)

        try:
            time.sleep(1)
            with Target(path, environ=environ) as target:
                base = target.least(calls)
                lttng("create", "bench", f"--output={home}/trace")
                lttng("enable-channel", "-u", "ring", "--subbuf-size=4M", "--num-subbuf=4")
                lttng("enable-event", "-u", "-c", "ring", "bench:hit")
                lttng("start")
                hits = min(calls, 50_000)
                target.time(hits)
                found = target.least(hits) - base
                lttng("destroy", "bench")
        finally:
            daemon.terminate()
            daemon.wait(20)
    return {RECORD: found}


def find_peers() -> tuple[dict[str, Callable[[str, int], Found]], list[str]]:
    """Return what can be measured here, (folder, calls) to nanoseconds, and what cannot, with what is missing."""
    frida, agent = find_frida(), find_in_process_agent()
    include = ["gcc", "-E", "-include", "lttng/tracepoint.h", "-x", "c", "/dev/null"]
    header = subprocess.run(include, capture_output=True).returncode == 0
    known: list[tuple[str, bool, str, Callable[[str, int], Found]]] = [
        ("frida", bool(frida), "pip install frida, and SONDE_BENCH_FRIDA=PYTHON", lambda f, n: measure_frida(frida, f, n)),
        ("gdb fast tracepoint", bool(agent), "gdb, gdbserver with libinproctrace.so", lambda f, n: measure_gdb(agent, f, n)),
        ("uftrace", bool(shutil.which("uftrace")), "uftrace", measure_uftrace),
        ("LTTng-UST", bool(shutil.which("lttng-sessiond")) and header, "lttng-tools, liblttng-ust-dev", measure_lttng),
    ]  # fmt: skip
    return (
        {name: measure for name, there, _, measure in known if there},
        [f"{name} is not installed ({wants})" for name, there, wants, _ in known if not there],
    )
