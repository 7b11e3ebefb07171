"""Runs one BCC tool around a workload: start, wait until it says no more about attaching, work, interrupt, collect.

Used on the host as a module, and in guests as source text: it imports nothing but the standard library.
"""

import os
import signal
import subprocess
import tempfile
import time


def run_tool(command, workload, *, settle_s=0.4, after_s=0.6, limit_s=60.0, env=None):
    """Return (exit status, stdout, stderr) of `command` with the shell text `workload` run while it is attached.

    The tool runs with SONDE_BCC_VERBOSE, and is taken to be attached when its lines on stderr have stopped coming for `settle_s`.
    """
    environ = {**os.environ, **(env or {}), "SONDE_BCC_VERBOSE": "1", "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as out:
        # A process group of its own: its interrupt must not reach the test runner.
        tool = subprocess.Popen(command, stdout=out, stderr=err, env=environ, start_new_session=True)
        end = time.monotonic() + limit_s
        size, since = 0, time.monotonic()
        while time.monotonic() < end and tool.poll() is None:
            now = os.fstat(err.fileno()).st_size + (1 if os.fstat(out.fileno()).st_size else 0)
            if now != size:
                size, since = now, time.monotonic()
            if size and time.monotonic() - since > settle_s:
                break
            time.sleep(0.02)
        if tool.poll() is None:
            subprocess.run(
                ["sh", "-c", workload], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=limit_s
            )
            time.sleep(after_s)
            if tool.poll() is None:
                tool.send_signal(signal.SIGINT)
        try:
            tool.wait(timeout=max(end - time.monotonic(), 10))
        except subprocess.TimeoutExpired:
            os.killpg(tool.pid, signal.SIGKILL)
            tool.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return tool.returncode, texts[0], texts[1]
