"""Runs one tracing tool around a workload: start, wait until it is attached, work, interrupt, collect.

Used on the host as a module, and in guests as source text: it imports nothing but the standard library.
"""

import os
import select
import signal
import subprocess
import tempfile
import time

NOTIFY = "__BPFTRACE_NOTIFY_PROBES_ATTACHED"


def run_tool(command, workload, *, settle_s=0.3, after_s=0.7, limit_s=60.0, env=None):
    """Return (exit status, stdout, stderr) of `command` with the shell text `workload` run while it is attached.

    The line by which the tool says that it is attached is taken out of the output. A tool that ends early ends the wait.
    """
    environ = {**os.environ, **(env or {}), NOTIFY: "1"}
    with tempfile.TemporaryFile() as err:
        # A process group of its own: its interrupt must not reach the test runner.
        tool = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=environ, start_new_session=True)
        out = b""
        end = time.monotonic() + limit_s
        fd = tool.stdout.fileno()
        while time.monotonic() < end and NOTIFY.encode() not in out and not _said(err):
            ready, _, _ = select.select([fd], [], [], 0.05)
            if ready:
                data = os.read(fd, 65536)
                if not data:
                    break
                out += data
        if tool.poll() is None and time.monotonic() < end:
            time.sleep(settle_s)
            subprocess.run(
                ["sh", "-c", workload], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=limit_s
            )
            time.sleep(after_s)
            tool.send_signal(signal.SIGINT)
        try:
            rest, _ = tool.communicate(timeout=max(end - time.monotonic(), 10))
        except subprocess.TimeoutExpired:
            os.killpg(tool.pid, signal.SIGKILL)
            rest, _ = tool.communicate()
        err.seek(0)
        texts = [(out + rest).decode(errors="replace"), err.read().decode(errors="replace")]
    clean = ["".join(line for line in t.splitlines(True) if NOTIFY not in line) for t in texts]
    return tool.returncode, clean[0], clean[1]


def _said(file):
    return NOTIFY.encode() in os.pread(file.fileno(), 1 << 20, 0)
