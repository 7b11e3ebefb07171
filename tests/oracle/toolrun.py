"""Runs one tracing tool around a workload: start, wait until it is attached, work, interrupt, collect.

Used on the host as a module, and in guests as source text: it imports nothing but the standard library.
"""

import contextlib
import ctypes
import fcntl
import os
import pty
import signal
import struct
import subprocess
import tempfile
import termios
import threading
import time

NOTIFY = "__BPFTRACE_NOTIFY_PROBES_ATTACHED"
SCREEN = (24, 100)  # lines and columns of the terminal that a tool may be given
BPF_SYSCALL, PROG_GET_NEXT_ID = 321, 11  # on x86-64, where the guests are

# A session of its own: its interrupt must not reach the test runner. Where that was started in the background, a shell made it ignore interrupts.
OWN = {"start_new_session": True, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}


def run_tool(command, workload, **options):
    """Return (exit status, stdout, stderr) of `command` with the shell text `workload` run while it is attached; see `watch_tool`."""
    seen = watch_tool(command, workload, **options)
    return seen["status"], seen["out"], seen["err"]


def watch_tool(
    command,
    workload,
    *,
    settle_s=0.3,
    after_s=0.7,
    limit_s=60.0,
    env=None,
    by_descriptors=False,
    before="",
    terminal=False,
):
    """Run `command` with the shell text `workload` while it is attached, and say how it went.

    `before` is shell text that is run before the tool starts: what must be there when it attaches. With `terminal` the tool's input and output
    are a terminal. A bpftrace says that it is attached by a line, which is taken out of the output. Others are taken to be (`by_descriptors`)
    when they have programs or events open and no more have come for `settle_s`. A tool that ends early ends the wait.

    What is returned: "status", "out", "err"; "interrupted": whether the tool still ran when Ctrl-C came; "ending_s": how long it took to
    end then; "left": the processes of its session that outlived it.
    """
    if before:
        subprocess.run(["sh", "-c", before], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=limit_s)
    environ = {**os.environ, **(env or {}), "PYTHONUNBUFFERED": "1", NOTIFY: "1"}
    with tempfile.TemporaryFile() as err:
        tool, output = _start(command, environ, err, terminal)
        waiting = _Descriptors(tool.pid, settle_s) if by_descriptors else _Notice(err)
        end = time.monotonic() + limit_s
        while time.monotonic() < end and tool.poll() is None and not waiting.over(bytes(output.data)):
            time.sleep(0.05)
        interrupted, since = False, time.monotonic()
        if tool.poll() is None and since < end:
            time.sleep(0 if by_descriptors else settle_s)
            _work(workload, limit_s)
            time.sleep(after_s)
            _rest(tool.pid, time.monotonic() + 3)
            interrupted, since = tool.poll() is None, time.monotonic()
            _signal(tool, signal.SIGINT, whole=by_descriptors)
        try:
            tool.wait(timeout=max(end - time.monotonic(), limit_s / 2))
        except subprocess.TimeoutExpired:
            _signal(tool, signal.SIGKILL, whole=True)
            tool.wait()
        ending_s = time.monotonic() - since
        output.join(5)
        err.seek(0)
        texts = [data.decode(errors="replace") for data in (bytes(output.data), err.read())]
    clean = ["".join(line for line in t.splitlines(True) if NOTIFY not in line) for t in texts]
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and _session(pid) == tool.pid]
    return {"status": tool.returncode, "out": clean[0], "err": clean[1], "interrupted": interrupted,
            "ending_s": ending_s, "left": left}  # fmt: skip


def loaded_programs():
    """The numbers of all BPF programs that are loaded."""
    call, found = ctypes.CDLL(None).syscall, set()
    attributes = (ctypes.c_uint * 3)()
    while call(BPF_SYSCALL, PROG_GET_NEXT_ID, attributes, ctypes.sizeof(attributes)) == 0:
        attributes[0] = attributes[1]
        found.add(attributes[1])
    return found


def watch_alone(command, workload, **options):
    """`watch_tool` where nothing else uses BPF: with "programs", how many are loaded still that were not before, once the kernel had its time."""
    known = loaded_programs()
    seen = watch_tool(command, workload, **options)
    end = time.monotonic() + 5
    while loaded_programs() - known and time.monotonic() < end:
        time.sleep(0.1)
    return {**seen, "programs": len(loaded_programs() - known)}


def _start(command, environ, err, terminal):
    """Start the tool in a session of its own: its interrupt must not reach the test runner. Return it and the reader of its output."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", *SCREEN, 0, 0))
    stdin = theirs if terminal else None
    tool = subprocess.Popen(command, stdin=stdin, stdout=theirs, stderr=err, env=environ, **OWN)
    os.close(theirs)
    return tool, _Output(ours)


def run_pair(commands, workload, *, environs, settle_s=1.5, after_s=1.0, limit_s=150.0, before="", app=""):
    """Run several tools at the same time around one workload: they see the same processes, and have the same to say.

    Each starts when the one before it is attached. `app` is the path of a program that runs beside them: {app} in commands and workload is
    its process. Return for each (exit status, stdout, stderr, seconds until it was attached, interrupts until it ended).
    """
    if before:
        null = subprocess.DEVNULL
        subprocess.run(["sh", "-c", before], stdin=null, stdout=null, stderr=null, timeout=limit_s)
    beside = subprocess.Popen([app], stdout=subprocess.PIPE) if app else None
    pid = ""
    if beside:
        beside.stdout.readline()  # it says that it is ready
        pid = str(beside.pid)
    sides = []
    try:
        for command, environ in zip(commands, environs):
            sides.append(_Side([word.replace("{app}", pid) for word in command], environ))
            sides[-1].wait_attached(settle_s, limit_s)
        _work(workload.replace("{app}", pid), limit_s)
        time.sleep(after_s)
        for side in sides:
            _signal(side.tool, signal.SIGINT, whole=True)
        return [side.collect(limit_s / 2) for side in sides]
    finally:
        for side in sides:
            _signal(side.tool, signal.SIGKILL, whole=True)
        if beside:
            beside.kill()
            beside.wait()


class _Side:
    """One of several tools that run at the same time, in a session of its own, its output in files."""

    def __init__(self, command, environ):
        self.files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115  (open while the tool runs)
        self.started = time.monotonic()
        self.took_s = 0.0
        self.tool = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.files[0],
            stderr=self.files[1],
            env={**os.environ, **environ, "PYTHONUNBUFFERED": "1"},
            **OWN,
        )

    def wait_attached(self, settle_s, limit_s):
        waiting = _Descriptors(self.tool.pid, settle_s)
        while time.monotonic() < self.started + limit_s and not waiting.over(b"") and self.tool.poll() is None:
            time.sleep(0.2)
        self.took_s = waiting.since - self.started

    def collect(self, limit_s):
        """Return what it has to say at its end. It has been interrupted, and is again: BCC loses an interrupt that comes in a callback."""
        end = time.monotonic() + limit_s
        interrupts = 1
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.tool.wait(20)
                break
            _signal(self.tool, signal.SIGINT, whole=True)
            interrupts += 1
        if self.tool.poll() is None:
            _signal(self.tool, signal.SIGKILL, whole=True)
            self.tool.wait()
        texts = []
        for file in self.files:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        return [self.tool.returncode, *texts, round(self.took_s, 2), interrupts]


def _work(workload, limit_s):
    null = subprocess.DEVNULL
    subprocess.run(["sh", "-c", workload], stdin=null, stdout=null, stderr=null, timeout=limit_s)


def _rest(session, end):
    """Wait until no process of a session has anything to do: on a busy machine it gets to it late. At the time `end` it had enough."""
    quiet = 0
    while quiet < 4 and time.monotonic() < end:
        time.sleep(0.05)
        running = any(_state(pid) == ("R", session) for pid in os.listdir("/proc") if pid.isdigit())
        quiet = 0 if running else quiet + 1


def _signal(tool, number, whole):
    """Signal the tool, or all that runs in its session, as a terminal does on Ctrl-C."""
    if not any(_session(pid) == tool.pid for pid in os.listdir("/proc") if pid.isdigit()):
        return  # all have ended: the number may be another's by now
    try:
        if whole:
            os.killpg(tool.pid, number)
        else:
            tool.send_signal(number)
    except ProcessLookupError:
        pass  # it has ended


def _state(pid):
    """What a process does ("R": it computes, or would if it could) and its session."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, _, _, session = file.read().rpartition(")")[2].split()[:4]
    except OSError:
        return "Z", 0
    return state, int(session)


def _session(pid):
    """The session of a process that is alive, else 0."""
    state, session = _state(pid)
    return 0 if state == "Z" else session


class _Output(threading.Thread):
    """Collects what a tool writes, so that a full pipe or terminal never holds it up."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd = fd
        self.data = bytearray()
        self.start()

    def run(self):
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # nobody holds the terminal any more
                data = b""
            if not data:
                os.close(self.fd)
                return
            self.data += data


class _Notice:
    """Waits for the line of a bpftrace."""

    def __init__(self, err):
        self.err = err

    def over(self, out):
        return NOTIFY.encode() in out or NOTIFY.encode() in os.pread(self.err.fileno(), 1 << 20, 0)


class _Descriptors:
    """Waits until the tool has opened its last program, link or event.

    That is so when no more have come for `settle_s`, all of which it slept: on a busy machine it may wait for the processor, or in the kernel
    for an event to be attached. One that hardly sleeps, since there is so much to print, has ten times as long.
    """

    def __init__(self, session, settle_s):
        self.session = session
        self.settle_s = settle_s
        self.count = 0
        self.since = self.awake = time.monotonic()

    def over(self, out):
        now = time.monotonic()
        found = [self._look_at(pid) for pid in os.listdir("/proc") if pid.isdigit()]
        count, states = sum(opened for opened, _ in found), {state for _, state in found}
        if count != self.count or "D" in states:
            self.count, self.since, self.awake = count, now, now
        if "R" in states:
            self.awake = now
        return count > 0 and (now - self.awake > self.settle_s or now - self.since > 10 * self.settle_s)

    def _look_at(self, pid):
        """Return how many it has open and the state of the process, (0, "") for what is not of the session."""
        found, state = 0, ""
        try:
            if os.getsid(int(pid)) != self.session:
                return 0, ""
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                found += any(word in target for word in ("bpf-prog", "bpf_link", "bpf-link", "[perf_event]"))
        except OSError:
            pass  # it ended, or a descriptor was closed
        return found, state
