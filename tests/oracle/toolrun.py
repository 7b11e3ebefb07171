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


def run_tool(command, workload, *, settle_s=0.3, after_s=0.7, limit_s=60.0, env=None, by_descriptors=False, before=""):
    """Return (exit status, stdout, stderr) of `command` with the shell text `workload` run while it is attached.

    `before` is shell text that is run before the tool starts: what must be there when it attaches.
    A bpftrace says that it is attached by a line, which is taken out of the output. Others are taken to be (`by_descriptors`) when
    they have programs or events open and no more have come for `settle_s`. A tool that ends early ends the wait.
    """
    if before:
        subprocess.run(["sh", "-c", before], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=limit_s)
    environ = {**os.environ, **(env or {}), "PYTHONUNBUFFERED": "1", NOTIFY: "1"}
    with tempfile.TemporaryFile() as err:
        # A session of its own: its interrupt must not reach the test runner.
        tool = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=environ, start_new_session=True)
        waiting = _Descriptors(tool.pid, settle_s) if by_descriptors else _Notice(err)
        out = b""
        end = time.monotonic() + limit_s
        fd = tool.stdout.fileno()
        while time.monotonic() < end and not waiting.over(out) and (tool.poll() is None or not by_descriptors):
            ready, _, _ = select.select([fd], [], [], 0.05)
            if ready:
                data = os.read(fd, 65536)
                if not data:
                    break
                out += data
        if tool.poll() is None and time.monotonic() < end:
            time.sleep(0 if by_descriptors else settle_s)
            _work(workload, limit_s)
            time.sleep(after_s)
            _signal(tool, signal.SIGINT, whole=by_descriptors)
        try:
            rest, _ = tool.communicate(timeout=max(end - time.monotonic(), limit_s / 2))
        except subprocess.TimeoutExpired:
            _signal(tool, signal.SIGKILL, whole=True)
            rest, _ = tool.communicate()
        err.seek(0)
        texts = [(out + rest).decode(errors="replace"), err.read().decode(errors="replace")]
    clean = ["".join(line for line in t.splitlines(True) if NOTIFY not in line) for t in texts]
    return tool.returncode, clean[0], clean[1]


def _work(workload, limit_s):
    null = subprocess.DEVNULL
    subprocess.run(["sh", "-c", workload], stdin=null, stdout=null, stderr=null, timeout=limit_s)


def _signal(tool, number, whole):
    """Signal the tool, or all that runs in its session, as a terminal does on Ctrl-C."""
    try:
        if whole:
            os.killpg(tool.pid, number)
        else:
            tool.send_signal(number)
    except ProcessLookupError:
        pass  # it has ended


class _Notice:
    """Waits for the line of a bpftrace."""

    def __init__(self, err):
        self.err = err

    def over(self, out):
        return NOTIFY.encode() in out or NOTIFY.encode() in os.pread(self.err.fileno(), 1 << 20, 0)


class _Descriptors:
    """Waits until the tool has opened its last program, link or event."""

    def __init__(self, session, settle_s):
        self.session = session
        self.settle_s = settle_s
        self.count = 0
        self.since = time.monotonic()

    def over(self, out):
        now = time.monotonic()
        count = sum(self._open_by(pid) for pid in os.listdir("/proc") if pid.isdigit())
        if count != self.count:
            self.count, self.since = count, now
        return count > 0 and now - self.since > self.settle_s

    def _open_by(self, pid):
        found = 0
        try:
            if os.getsid(int(pid)) != self.session:
                return 0
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                found += any(word in target for word in ("bpf-prog", "bpf_link", "bpf-link", "[perf_event]"))
        except OSError:
            pass  # it ended, or a descriptor was closed
        return found
