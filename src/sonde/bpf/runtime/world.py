"""What a program may ask about the system around it. The answers here are those of this very process; engines and tests override them."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_CLOCKS = {
    "monotonic": time.CLOCK_MONOTONIC,
    "boot": getattr(time, "CLOCK_BOOTTIME", 7),
    "tai": getattr(time, "CLOCK_TAI", 11),
    "coarse": 6,  # CLOCK_MONOTONIC_COARSE
}


class World:
    """The hooks of the helpers. Numbers are as the kernel gives them; None means that there is nothing of the kind, which a helper reports as an error."""

    apart = False  # whether user memory is another process's: a user address is none of the program's own regions
    cpu = 0
    numa_node = 0
    cgroup_id = 0
    task = 0  # the address of the running task's struct task_struct
    cookie = 0  # bpf_get_attach_cookie()
    function_address = 0  # bpf_get_func_ip()
    function_arguments: Sequence[int] = ()
    function_result: int | None = None

    def __init__(self) -> None:
        self.printed: list[str] = []  # by trace_printk
        self.written = bytearray()  # by seq_printf and seq_write

    def now_ns(self, clock: str) -> int:
        """The time of a clock: "monotonic", "boot", "tai" or "coarse"."""
        return time.clock_gettime_ns(_CLOCKS[clock])

    def random(self) -> int:
        """32 random bits."""
        return int.from_bytes(os.urandom(4), "little")

    def pid_tgid(self) -> int:
        """The process in the upper half, the thread in the lower."""
        from _thread import get_native_id

        return os.getpid() << 32 | get_native_id()

    def ns_pid_tgid(self, device: int, inode: int) -> tuple[int, int] | None:
        """Thread and process as a PID name space has them, which device and inode number name."""
        try:
            found = os.stat("/proc/self/ns/pid")
        except OSError:
            return None
        if (found.st_dev, found.st_ino) != (device, inode):
            return None
        both = self.pid_tgid()
        return both & 0xFFFFFFFF, both >> 32

    def uid_gid(self) -> int:
        """The group in the upper half, the user in the lower."""
        return os.getgid() << 32 | os.getuid()

    def comm(self) -> bytes:
        """The name of the running thread, at most 15 bytes."""
        try:
            with open("/proc/thread-self/comm", "rb") as file:
                return file.read().rstrip(b"\n")[:15]
        except OSError:
            return b""

    def stack(self, context: int, user: bool) -> Sequence[int] | None:
        """Program counters of the running thread's stack, the innermost first."""
        return None

    def read(self, address: int, size: int, user: bool) -> bytes | None:
        """Bytes of kernel or user memory that is not the program's own."""
        return None

    def write_user(self, address: int, data: bytes) -> bool:
        """Write to the memory of the process that is traced; False when it cannot be."""
        return False

    def send_signal(self, number: int, thread: bool) -> int:
        """Send a signal to the process or thread that is traced; 0 or a negative errno."""
        return -1

    def override_return(self, context: int, value: int) -> None:
        """Have the traced function not run, and return a value."""

    def path(self, address: int) -> bytes | None:
        """The text of a struct path."""
        return None

    def counter(self, target: object) -> tuple[int, int, int] | None:
        """Count, time enabled and time running of a perf event in a map."""
        return None

    def symbol(self, address: int) -> str:
        """An address of the kernel as %ps prints it."""
        return f"{address:#x}"

    def printk(self, text: str) -> None:
        """A line of trace_printk."""
        self.printed.append(text)
