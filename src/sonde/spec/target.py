"""Target: every fact about the machine that a program will run on.

Compiling is a pure function of (program, Target). A target of the running machine is made by `kernel.target`; one
of another kernel is made from its BTF file and a feature table.
"""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from ..debuginfo.btf import Btf
    from ..debuginfo.tracefs import TracepointFormat

    class Features(Protocol):
        """The feature table: ask by name, never by version. Unknown names raise KeyError."""

        def have(self, name: str) -> bool:
            """Tell whether the target has feature `name`: "helper:loop", "map:ringbuf", "link:kprobe_multi" …"""
            ...


class BpfProgram(Record, eq=False):
    """A BPF program that is loaded, with the names of its functions, the main one first, and the BTF that describes them."""

    ident: int
    name: str  # cut to 15 characters by the kernel
    type: str  # as in ProgramSpec, "" for one that is not known here
    functions: tuple[str, ...]
    btf: Btf


class Target(Record, eq=False):
    """The machine to compile for. The callables are lazy and cached by whoever made them.

    `btf()` raises FeatureError where the kernel has no BTF. `tracepoint(category, event)` raises ProbeError.
    `ksym(name)` returns the address of a kernel symbol, or 0. `kernel_id` tells one build of a kernel from all others; "" when it is not
    known: objects are then relocated when they are loaded.
    """

    arch: str  # "x86_64", "aarch64"
    release: str  # for messages only, never for decisions
    page_bytes: int
    possible_cpus: int
    features: Features
    btf: Callable[[], Btf]
    tracepoint: Callable[[str, str], TracepointFormat]
    ksym: Callable[[str], int]
    kconfig: Callable[[str], str]
    bpf_programs: Callable[[], Sequence[BpfProgram]] | None = None  # those that are loaded; None: nobody can tell
    in_process: bool = False  # programs run inside of one process, in place of a kernel
    kernel_id: str = ""
    version: str = (
        ""  # of the kernel's source, "6.1.192", where it is known and `release` ("6.1.0-56-amd64") does not tell it
    )

    copies: int = 0  # of each per-CPU value, where there are others than one for each CPU

    @property
    def version_code(self) -> int:
        """KERNEL_VERSION(a, b, c) of the kernel's source, which programs of others ask for (LINUX_VERSION_CODE)."""
        parts = [*(self.version or self.release).split("-")[0].split("+")[0].split("."), "0", "0"][:3]
        major, minor, patch = (int("".join(c for c in part if c.isdigit()) or 0) for part in parts)
        return major << 16 | minor << 8 | min(patch, 255)
