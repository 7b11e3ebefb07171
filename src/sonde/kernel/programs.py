"""From a ProgramSpec to a program that the verifier has accepted, in as many attach types as its probes take.

Loading asks without a log first; only a refusal is asked again with one. Relocations (spec.Reloc) are filled in on a
copy of the code.
"""

from __future__ import annotations

from errno import EAGAIN, EINTR, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM

from ..errors import FeatureError, VerifierError
from ..spec.relocation import relocate as fill_in
from . import abi, syscall
from .abi import ENOTSUPP, PROG_LOAD, PROG_TEST_RUN
from .descriptor import bpf_new, close_fd, warn_forgotten
from .refusal import missing_capability, plain_errno, privilege_error, refusal
from .syscall import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..spec.object import ProgramSpec
    from ..spec.relocation import Fill
    from .coreload import CoreLoader
    from .kfuncs import KernelFunctions
    from .maps import KernelMap

_LOG_BYTES = (1 << 18, 1 << 21, (1 << 24) - 1)  # the last is the most that Linux 5.10 takes
_TRIES = 5
_NEEDS = ("CAP_BPF", "CAP_PERFMON")
_BY_NAME = ("kfunc", "ksym", "ksym_btf")  # relocations that are filled in with what the kernel has by that name


class Program:
    """A loaded program. `module` is the kernel module of the function that a tracing program attaches to.

    `core` fills in CO-RE relocations; None where the program was compiled for this very kernel.
    """

    def __init__(
        self, spec: ProgramSpec, maps: Mapping[str, KernelMap], module: str = "", core: CoreLoader | None = None
    ) -> None:
        self.spec = spec
        self.module = module
        self._maps = maps
        self._core = core
        self._fds: dict[str, int] = {}

    @property
    def name(self) -> str:
        """The name in the spec."""
        return self.spec.name

    @property
    def closed(self) -> bool:
        """Whether no descriptor of it is open."""
        return not self._fds

    def fd_as(self, attach_type: str = "") -> int:
        """Return the descriptor of the program as verified for `attach_type`; loads it on first use.

        "" is the spec's own attach type. The same code may be had for several, since a kprobe program for a multi link
        is not accepted by a plain one, nor the other way round. Raises VerifierError, PrivilegeError, KernelError.
        """
        kind = attach_type or self.spec.attach_type
        fd = self._fds.get(kind, -1)
        if fd < 0:
            fd = self._fds[kind] = load_program(self.spec, self._maps, kind, self.module, self._core)
        return fd

    def find_map(self, name: str) -> KernelMap | None:
        """Return the map of this name that the program was loaded with, or None."""
        return self._maps.get(name)

    def run(self) -> int:
        """Run the program once, on this CPU, without a context; return its return code.

        Needs a type for which the kernel offers BPF_PROG_TEST_RUN: raw_tracepoint (Linux 5.10) or syscall (5.14).
        """
        attr = bytearray(PROG_TEST_RUN.pack(self.fd_as(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
        result = -EAGAIN
        for _ in range(_TRIES):
            result = syscall.bpf(abi.BPF_PROG_TEST_RUN, attr)
            if result not in (-EINTR, -EAGAIN):
                break
        if result in (-ENOTSUPP, -EOPNOTSUPP):
            raise FeatureError(
                f"this kernel cannot run program {self.name} (type {self.spec.type}) by itself",
                feature=f"prog_test_run:{self.spec.type}",
                hint="begin and end probes need Linux 5.10 or newer",
            )
        if result < 0:
            raise refusal(f"run program {self.name}", -result, needs=_NEEDS)
        return int.from_bytes(attr[abi.TEST_RUN_RETVAL_OFFSET : abi.TEST_RUN_RETVAL_OFFSET + 4], "little")

    def close(self) -> None:
        """Drop this handle; the kernel frees the program when nothing is attached to it. Twice is harmless."""
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            close_fd(fd)

    def __del__(self) -> None:
        if getattr(self, "_fds", None):
            warn_forgotten(self)
            self.close()


def load_program(
    spec: ProgramSpec,
    maps: Mapping[str, KernelMap],
    attach_type: str,
    module: str = "",
    core: CoreLoader | None = None,
    log: list[str] | None = None,
) -> int:
    """Load one program for one attach type and return its descriptor. The verifier's full log is added to `log`, if given."""
    functions = _kernel_functions(spec)
    btf_id = btf_fd = 0
    own_btf, func_info, line_info = -1, b"", b""
    try:
        insns = relocate(spec, maps, core, functions)
        member = 0
        if spec.type == "struct_ops":
            from .structops import find_member

            btf_id, member = find_member(spec.attach_btf)
        elif spec.attach_btf:
            from .btf import attach_target

            btf_id, btf_fd = attach_target(attach_type, spec.attach_btf, module)
        from .funcinfo import takes_function_address

        if spec.told or takes_function_address(insns):
            own_btf, func_info, line_info = _source_info(spec, insns)
        fd_array = functions.fd_array if functions is not None else b""
        request = LoadRequest(spec, insns, attach_type, btf_id, btf_fd, own_btf, func_info, fd_array, line_info, member)
        return request.load(log)
    except VerifierError as error:
        raise core.explained(error, spec) if core is not None else error from None
    finally:
        close_fd(own_btf)
        if btf_fd:
            close_fd(btf_fd)
        if functions is not None:
            functions.close()


def _kernel_functions(spec: ProgramSpec) -> KernelFunctions | None:
    if not any(reloc.kind in _BY_NAME for reloc in spec.relocs):
        return None
    from .kfuncs import KernelFunctions

    return KernelFunctions()


def _source_info(spec: ProgramSpec, insns: bytearray) -> tuple[int, bytes, bytes]:
    """Tell the kernel of functions and lines: the descriptor of their BTF, and the records of both."""
    from .btf import load_btf
    from .funcinfo import make_func_info

    names = {r.addend: r.symbol for r in spec.relocs if r.kind == "subprogram"}
    blob, functions, lines = make_func_info(insns, spec.name, names, spec.lines if spec.told else ())
    return load_btf(blob), functions, lines


def read_verifier_log(program: Program) -> str:
    """Load a program that was accepted once more, for what the verifier has to say of each instruction; return that."""
    from .descriptor import close_fd

    kind = next(iter(program._fds), program.spec.attach_type)
    found: list[str] = []
    close_fd(load_program(program.spec, program._maps, kind, program.module, program._core, found))
    return found[0]


class LoadRequest:
    """One BPF_PROG_LOAD with everything that it points to."""

    def __init__(
        self,
        spec: ProgramSpec,
        insns: bytearray,
        attach_type: str = "",
        btf_id: int = 0,
        btf_fd: int = 0,
        own_btf: int = -1,
        func_info: bytes = b"",
        fd_array: bytes = b"",
        line_info: bytes = b"",
        member: int = 0,
    ) -> None:
        self.spec = spec
        self.insns = insns
        self.license = spec.license.encode() + b"\0"
        self.attach_type = attach_type
        self.btf_id = btf_id
        self.btf_fd = btf_fd
        self.own_btf = own_btf
        self.func_info = func_info
        self.fd_array = fd_array
        self.line_info = line_info
        self.member = member  # of the struct that a struct_ops program is for

    def try_load(self, log: bytearray | None = None, level: int = 1) -> int:
        """Ask the kernel; a descriptor or a negative errno. The verifier writes what it did into `log`."""
        fd = -EAGAIN
        for _ in range(_TRIES):  # a signal makes the verifier give up with EAGAIN
            fd = bpf_new(abi.BPF_PROG_LOAD, lambda: self.pack(log, level))
            if fd not in (-EAGAIN, -EINTR):
                break
        return fd

    def pack(self, log: bytearray | None = None, level: int = 1) -> bytearray:
        """Pack the attribute of the call. Log level 2 tells the state of all registers at each instruction."""
        spec, info = self.spec, self.func_info
        return bytearray(
            PROG_LOAD.pack(
                abi.program_type(spec.type),
                len(self.insns) // 8,
                address(self.insns),
                address(self.license),
                level if log else 0,
                len(log) if log else 0,
                address(log) if log else 0,
                0,
                spec.flags | (abi.BPF_F_SLEEPABLE if spec.sleepable else 0),
                abi.object_name(spec.name),
                0,
                self.member or abi.attach_type(self.attach_type),
                max(self.own_btf, 0),
                8 if info else 0,
                address(info),
                len(info) // 8,
                16 if self.line_info else 0,
                address(self.line_info),
                len(self.line_info) // 16,
                self.btf_id,
                self.btf_fd,
                0,
                address(self.fd_array),
            )
        )

    def load(self, log: list[str] | None = None) -> int:
        """Load it; a refusal is asked for its reason and raised."""
        if log is not None:
            buffer = bytearray(_LOG_BYTES[-1])
            fd = self.try_load(buffer, 2)
            log.append(buffer.split(b"\0", 1)[0].decode(errors="replace"))
        else:
            fd = self.try_load()
        if fd >= 0:
            return fd
        fd, text = self._load_with_log(fd)
        if fd >= 0:
            return fd
        raise load_refusal(self.spec, self.attach_type, -fd, text)

    def _load_with_log(self, refused: int) -> tuple[int, str]:
        """Ask again for the reason. Newer kernels keep the end of a log that is too long, older ones its start."""
        log = bytearray()
        for size in _LOG_BYTES:
            log = bytearray(size)
            fd = self.try_load(log)
            if fd >= 0:
                return fd, ""
            if fd != -ENOSPC:
                break
        return refused, log.split(b"\0", 1)[0].decode(errors="replace")


def load_refusal(spec: ProgramSpec, attach_type: str, errno: int, log: str) -> Exception:
    """Turn a refused BPF_PROG_LOAD into the error to raise."""
    kind = f"{spec.type}:{attach_type}" if attach_type else spec.type
    what = f"load program {spec.name} ({kind})"
    if errno == EPERM and not log.strip():
        if missing_capability(*_NEEDS):
            return privilege_error(what, *_NEEDS)
        name = attach_type.removeprefix("trace_")
        return FeatureError(
            f"this kernel refuses {kind} programs (EPERM), though no capability is missing",
            feature=f"program:tracing:{name}" if spec.type == "tracing" else f"program:{spec.type}",
            hint="its vendor, its lockdown mode or a security module forbids them; "
            "a tracepoint or raw tracepoint may serve instead",
        )
    if errno == ENOSYS:
        return refusal(what, errno)
    if not log.strip():
        return refusal(what, errno, needs=_NEEDS, hint=f"this kernel may not know programs of type {kind}")
    from .verifier_log import explain, hint_for

    summary, diagnostic = explain(log, spec.lines)
    return VerifierError(
        spec.name, plain_errno(errno), log=log, summary=summary, diagnostic=diagnostic, hint=hint_for(summary)
    )


def relocate(
    spec: ProgramSpec,
    maps: Mapping[str, KernelMap],
    core: CoreLoader | None = None,
    functions: KernelFunctions | None = None,
) -> bytearray:
    """Return a copy of the program's code with its relocations filled in. Raises FormatError, FeatureError.

    Without `core`, values that depend on the kernel's types stand as the compiler found them; without `functions`, calls of kernel functions
    stay open.
    """
    others: dict[str, Fill] = {}
    if core is not None:
        others["core"] = core.fill
    if functions is not None:
        others.update(dict.fromkeys(_BY_NAME, lambda spec, insns, reloc: functions.fill(insns, reloc)))
    return fill_in(spec, {name: live.fd for name, live in maps.items()}, others)
