"""The feature table: what the running kernel can do, found by trying, never from its version.

`FeatureTable.have(name)` asks once and remembers. Where this process may not try (no CAP_BPF), the kernel's own BTF is
read instead: it names the helpers, map types and attach types that its source knew. The Linux versions in the
table are for people; nothing reads them.

Names with a variable part: `helper:NAME` (for any type of tracing program), `helper:NAME:TYPE` (for one type),
`kfunc:NAME`, `map:TYPE`. All others are listed in FEATURES.
"""

from __future__ import annotations

from errno import EBADF, EPERM
from struct import pack

from ..errors import FeatureError, PrivilegeError, SondeError
from . import abi, syscall
from .abi import MAP_TYPES
from .descriptor import close_fd
from .links import create_link
from .refusal import missing_capability, privilege_error
from .syscall import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..bpf.helpers import Helper
    from ..spec.object import ProgramSpec

_RETURN_0 = pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit
_TRACING_TYPES = ("kprobe", "tracepoint", "raw_tracepoint", "perf_event")
_TRY_FUNCTION = "bpf_fentry_test1"  # made for being traced; nobody else calls it
_NEEDS = ("CAP_BPF", "CAP_PERFMON")


class FeatureTable:
    """Answers by name (see spec.target.Features). `without` holds names that count as absent."""

    def __init__(self, without: frozenset[str] = frozenset()) -> None:
        self.without = without
        self._known: dict[str, bool] = {}

    def have(self, name: str) -> bool:
        """Tell whether the kernel has feature `name`.

        Raises KeyError for a name that is not in the table, PrivilegeError where neither trying nor BTF can tell.
        """
        if name in self.without:
            return False
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = ask(name)
        return known


def ask(name: str) -> bool:
    """Ask the kernel about feature `name`, now."""
    question = _find(name)
    if not missing_capability(*_NEEDS) or name in _FREE:
        return question()
    enumerator = _enumerator(name)
    if not enumerator:
        raise privilege_error(f"ask the kernel for {name}", *_NEEDS)
    from .btf import kernel_btf

    return kernel_btf().get_enumerator(enumerator) is not None


def iter_features() -> Iterator[tuple[str, bool, str]]:
    """Yield (name, available, note) for each feature of the table, helpers last; asks the kernel by trying."""
    table = FeatureTable()
    for name, (since, _) in FEATURES.items():
        yield _ask_row(table, name, f"Linux {since}" if since else "")
    for kind, since in MAPS.items():
        yield _ask_row(table, f"map:{kind}", f"Linux {since}")
    for helper in _iter_helpers():
        name, have, note = _ask_row(table, f"helper:{helper.name}", f"Linux {helper.since}")
        yield name, have, note if have else f"{note}; not for tracing programs here"


def _ask_row(table: FeatureTable, name: str, note: str) -> tuple[str, bool, str]:
    try:
        return name, table.have(name), note
    except SondeError as error:
        return name, False, error.message


def _iter_helpers() -> Iterator[Helper]:
    from ..bpf.helpers import HELPERS

    return iter(HELPERS)


def _find(name: str) -> Callable[[], bool]:
    """Return the question for `name`. Raises KeyError."""
    if name in FEATURES:
        return FEATURES[name][1]
    group, _, rest = name.partition(":")
    if group == "helper" and rest:
        helper, _, kind = rest.partition(":")
        return lambda: _have_helper(helper, (kind,) if kind else _TRACING_TYPES)
    if group == "kfunc" and rest:
        return lambda: _have_kfunc(rest)
    if group == "map" and rest in MAP_TYPES:
        return lambda: _have_map(rest)
    raise KeyError(name)


def _enumerator(name: str) -> str:
    """The enumerator in the kernel's BTF that goes with a feature, or ""."""
    group, _, rest = name.partition(":")
    if group == "helper":
        return "BPF_FUNC_" + rest.partition(":")[0]
    if group == "map":
        return "BPF_MAP_TYPE_" + rest.upper()
    return _ENUMERATORS.get(name, "")


# For each, an enumerator that the kernel's source got in the same release (or with the feature itself).
_ENUMERATORS = {
    "link:perf_event": "BPF_LINK_TYPE_PERF_EVENT",
    "link:kprobe_multi": "BPF_LINK_TYPE_KPROBE_MULTI",
    "link:kprobe_session": "BPF_TRACE_KPROBE_SESSION",
    "link:uprobe_multi": "BPF_LINK_TYPE_UPROBE_MULTI",
    "link:uprobe_session": "BPF_TRACE_UPROBE_SESSION",
    "cookie:perf_event": "BPF_FUNC_get_attach_cookie",
    "cookie:tracing": "BPF_FUNC_kptr_xchg",
    "program:iter": "BPF_TRACE_ITER",
    "program:tracing:fmod_ret": "BPF_MODIFY_RETURN",
    "program:lsm": "BPF_PROG_TYPE_LSM",
    "program:tracing:iter": "BPF_TRACE_ITER",
    "program:tracing:raw_tp": "BPF_TRACE_RAW_TP",
    "program:tracing:fentry": "BPF_TRACE_FENTRY",
    "program:tracing:fexit": "BPF_TRACE_FEXIT",
    "program:kprobe": "BPF_PROG_TYPE_KPROBE",
    "program:tracepoint": "BPF_PROG_TYPE_TRACEPOINT",
    "program:raw_tracepoint": "BPF_PROG_TYPE_RAW_TRACEPOINT",
    "program:perf_event": "BPF_PROG_TYPE_PERF_EVENT",
    "program:syscall": "BPF_PROG_TYPE_SYSCALL",
    "prog_test_run:raw_tracepoint": "BPF_FUNC_redirect_peer",
    "isa:v2": "BPF_MAP_TYPE_HASH",
    "isa:v3": "BPF_MAP_TYPE_HASH",
    "isa:bounded_loops": "BPF_MAP_TYPE_HASH",
    "isa:atomics": "BPF_FUNC_check_mtu",
    "isa:v4": "BPF_LINK_TYPE_UPROBE_MULTI",
    "isa:may_goto": "BPF_MAP_TYPE_ARENA",
}


# Programs ---------------------------------------------------------------------------------------------------------


def _spec(
    kind: str, insns: bytes, *, attach_type: str = "", attach_btf: str = "", sleepable: bool = False
) -> ProgramSpec:
    from ..spec.object import ProgramSpec

    return ProgramSpec("sonde_try", kind, insns, attach_type=attach_type, attach_btf=attach_btf, sleepable=sleepable)


def _try_load(spec: ProgramSpec, log: bytearray | None = None) -> int:
    """Load a program; a descriptor or a negative errno."""
    from .programs import LoadRequest

    btf_id = 0
    if spec.attach_btf:
        from .btf import attach_target

        btf_id, _ = attach_target(spec.attach_type, spec.attach_btf)
    return LoadRequest(spec, bytearray(spec.insns), spec.attach_type, btf_id).try_load(log)


def _loads(spec: ProgramSpec) -> bool:
    try:
        fd = _try_load(spec)
    except PrivilegeError:
        raise
    except SondeError:  # no BTF, or not this function in it
        return False
    close_fd(fd)
    return fd >= 0


def _have_program(kind: str) -> Callable[[], bool]:
    return lambda: _loads(_spec(kind, _RETURN_0))


def _have_code(*insns: tuple[int, int, int, int]) -> Callable[[], bool]:
    """A question whether the verifier takes some instructions (opcode, registers, offset, immediate)."""
    code = b"".join(pack("<BBhi", *insn) for insn in insns)
    return lambda: _loads(_spec("tracepoint", code + _RETURN_0))


def _have_tracing(attach_type: str, function: str, kind: str = "tracing") -> Callable[[], bool]:
    """Whether a tracing program not only loads but also attaches: some kernels and vendors allow only the former."""

    def question() -> bool:
        spec = _spec(kind, _RETURN_0, attach_type=attach_type, attach_btf=function)
        try:
            fd = _try_load(spec)
        except PrivilegeError:
            raise
        except SondeError:
            return False
        if fd < 0:
            return False
        attr = bytearray(abi.RAW_TRACEPOINT_OPEN_OLD.pack(0, fd))
        link = 0 if attach_type == "trace_iter" else syscall.bpf(abi.BPF_RAW_TRACEPOINT_OPEN, attr)
        if attach_type != "trace_iter":
            close_fd(link)
        close_fd(fd)
        return link >= 0

    return question


def _have_lsm() -> bool:
    """Whether LSM programs can be attached and are asked: older kernels attach them, but call none unless booted with lsm=…,bpf."""
    if not _have_tracing("lsm_mac", "bpf", "lsm")():
        return False
    try:
        with open("/sys/kernel/security/lsm") as file:
            return "bpf" in file.read().strip().split(",")
    except OSError:  # nobody has mounted securityfs
        return True


def _have_sleepable() -> bool:
    return _loads(_spec("tracing", _RETURN_0, attach_type="trace_iter", attach_btf="task", sleepable=True))


def _have_helper(name: str, kinds: tuple[str, ...]) -> bool:
    from ..bpf.helpers import HELPERS

    code = pack("<BBhi", 0x85, 0, 0, HELPERS[name].ident) + _RETURN_0
    if any(_knows_call(_spec(kind, code)) for kind in kinds):
        return True
    if kinds != _TRACING_TYPES:
        return False
    typed = (("trace_raw_tp", "sched_switch"), ("trace_iter", "task"), ("trace_fexit", _TRY_FUNCTION))
    return any(_knows_call(_spec("tracing", code, attach_type=kind, attach_btf=btf)) for kind, btf in typed)


def _have_kfunc(name: str) -> bool:
    from .btf import kernel_btf

    ident = kernel_btf().get_func_id(name)
    call = pack("<BBhi", 0x85, 2 << 4, 0, ident)
    specs = [_spec(kind, call + _RETURN_0) for kind in ("kprobe", "tracepoint", "syscall")]
    return bool(ident) and any(_knows_call(spec) for spec in specs)


# What the verifier says of a call that this type of program may not make, in the words of several kernels.
_UNKNOWN_CALL = (b"unknown func", b"invalid func", b"cannot use helper", b"is not allowed", b"not supported",
                 b"kernel btf_id", b"pseudo calls")  # fmt: skip


def _knows_call(spec: ProgramSpec) -> bool:
    """Whether the verifier knows the function that `spec` calls, even though it refuses the arguments."""
    log = bytearray(1 << 14)
    try:
        fd = _try_load(spec, log)
    except FeatureError:  # no BTF
        return False
    if fd >= 0:
        close_fd(fd)
        return True
    text = bytes(log).split(b"\0", 1)[0]
    return bool(text) and not any(words in text for words in _UNKNOWN_CALL)


# Links ------------------------------------------------------------------------------------------------------------


def _have_link(kind: str, attach_type: str, rest: bytes, accept: int) -> bool:
    """Whether a link that cannot be made is refused with the errno that only its own code gives."""
    expected = "" if attach_type == "perf_event" else attach_type
    fd = _try_load(_spec(kind, _RETURN_0, attach_type=expected))
    if fd < 0:
        return False
    result = create_link(fd, -1 & 0xFFFFFFFF if attach_type == "perf_event" else 0, attach_type, rest)
    close_fd(fd)
    close_fd(result)
    return result >= 0 or result == -accept


def _have_perf_link() -> bool:
    return _have_link("perf_event", "perf_event", bytes(8), EBADF)


def _have_uprobe_link(attach_type: str) -> Callable[[], bool]:
    def question() -> bool:
        path, offset = b"/\0", bytes(8)  # a folder: EBADF, but only from code that knows such links
        rest = abi.LINK_UPROBE_MULTI.pack(address(path), address(offset), 0, 0, 1, 0, 0, 0)
        return _have_link("kprobe", attach_type, rest, EBADF)

    return question


def _have_kprobe_link(attach_type: str) -> Callable[[], bool]:
    def question() -> bool:
        name = _TRY_FUNCTION.encode() + b"\0"
        table = address(name).to_bytes(8, "little")
        rest = abi.LINK_KPROBE_MULTI.pack(0, 1, address(table), 0, 0)
        return _have_link("kprobe", attach_type, rest, 0)

    return question


def _have_tracing_cookie() -> bool:
    """Whether BPF_LINK_CREATE takes tracing programs, and with that a cookie."""
    spec = _spec("tracing", _RETURN_0, attach_type="trace_raw_tp", attach_btf="sched_switch")
    try:
        fd = _try_load(spec)
    except PrivilegeError:
        raise
    except SondeError:
        return False
    if fd < 0:
        return False
    link = create_link(fd, 0, "trace_raw_tp", abi.LINK_TRACING.pack(0, 1))
    close_fd(link)
    close_fd(fd)
    return link >= 0


def _have_test_run() -> bool:
    from .programs import Program

    program = Program(_spec("raw_tracepoint", _RETURN_0), {})
    try:
        return program.run() == 0
    except FeatureError:
        return False
    finally:
        program.close()


# Maps, BTF, perf --------------------------------------------------------------------------------------------------

# Map type -> the Linux version that brought it.
MAPS = {
    "hash": "3.19", "array": "3.19", "prog_array": "4.2", "perf_event_array": "4.3", "percpu_hash": "4.6",
    "percpu_array": "4.6", "stack_trace": "4.6", "cgroup_array": "4.8", "lru_hash": "4.10", "lru_percpu_hash": "4.10",
    "lpm_trie": "4.11", "array_of_maps": "4.12", "hash_of_maps": "4.12", "queue": "4.20", "stack": "4.20",
    "ringbuf": "5.8", "task_storage": "5.11", "bloom_filter": "5.16", "user_ringbuf": "6.1", "cgrp_storage": "6.2",
    "arena": "6.9",
}  # fmt: skip

# Map type -> (key size, value size, entries, flags), where 4, 4, 1, 0 will not do.
_MAP_SHAPES = {
    "ringbuf": (0, 0, 1, 0),
    "user_ringbuf": (0, 0, 1, 0),
    "queue": (0, 4, 1, 0),
    "stack": (0, 4, 1, 0),
    "bloom_filter": (0, 4, 1, 0),
    "stack_trace": (4, 8, 1, 0),
    "lpm_trie": (8, 4, 1, abi.BPF_F_NO_PREALLOC),
    "arena": (0, 0, 1, abi.BPF_F_MMAPABLE),
    "task_storage": (4, 4, 0, abi.BPF_F_NO_PREALLOC),
    "cgrp_storage": (4, 4, 0, abi.BPF_F_NO_PREALLOC),
    "inode_storage": (4, 4, 0, abi.BPF_F_NO_PREALLOC),
    "sk_storage": (4, 4, 0, abi.BPF_F_NO_PREALLOC),
    "cgroup_storage": (16, 4, 0, 0),
    "percpu_cgroup_storage": (16, 4, 0, 0),
}


def _have_map(kind: str) -> bool:
    from ..spec.object import MapSpec
    from .maps import create_map

    key, value, entries, flags = _MAP_SHAPES.get(kind, (4, 4, 1, 0))
    inner = MapSpec("sonde_try", "hash", 4, 4, 1) if kind.endswith("_of_maps") else None
    if kind.endswith("_storage") and "cgroup" not in kind:
        return _have_storage_map(kind, flags)
    try:
        create_map(MapSpec("sonde_try", kind, key, value, entries, flags, inner=inner)).close()
    except PrivilegeError:
        raise
    except SondeError:
        return False
    return True


def _have_storage_map(kind: str, flags: int) -> bool:
    """Local storage wants the key's and the value's type in BTF."""
    from .btf import load_btf

    strings = b"\0int\0"
    types = pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32)
    btf = load_btf(pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings)
    packed = abi.MAP_CREATE.pack(abi.map_type(kind), 4, 4, 0, flags, 0, 0, b"sonde_try", 0, btf, 1, 1, 0, 0)
    fd = syscall.bpf(abi.BPF_MAP_CREATE, bytearray(packed))
    close_fd(btf)
    close_fd(fd)
    return fd >= 0


def _have_file(path: str) -> Callable[[], bool]:
    def question() -> bool:
        from os.path import exists

        return exists(path)

    return question


def _have_tracefs(name: str) -> Callable[[], bool]:
    def question() -> bool:
        from os.path import exists

        from ..debuginfo.tracefs import find_root

        return exists(f"{find_root()}/{name}")

    return question


def _have_event(kind: int, config: int, **more: int) -> Callable[[], bool]:
    def question() -> bool:
        from .perf_event import open_event

        fd = open_event(abi.perf_event_attr(kind, config, flags=abi.ATTR_DISABLED, **more), 0, -1)
        close_fd(fd)
        if fd == -EPERM:
            raise privilege_error("open a perf event", "CAP_PERFMON")
        return fd >= 0

    return question


_PMU = "/sys/bus/event_source/devices"

# Name -> (the Linux version that brought it, or "" where it depends on the build or the machine; the question).
FEATURES: dict[str, tuple[str, Callable[[], bool]]] = {
    "btf:vmlinux": ("5.4", _have_file("/sys/kernel/btf/vmlinux")),
    "program:kprobe": ("4.1", _have_program("kprobe")),
    "program:tracepoint": ("4.7", _have_program("tracepoint")),
    "program:perf_event": ("4.9", _have_program("perf_event")),
    "program:raw_tracepoint": ("4.17", _have_program("raw_tracepoint")),
    "program:syscall": ("5.14", lambda: _loads(_spec("syscall", _RETURN_0, sleepable=True))),
    "program:tracing:raw_tp": ("5.5", _have_tracing("trace_raw_tp", "sched_switch")),
    "program:tracing:fentry": ("5.5", _have_tracing("trace_fentry", _TRY_FUNCTION)),
    "program:tracing:fexit": ("5.5", _have_tracing("trace_fexit", _TRY_FUNCTION)),
    "program:tracing:fmod_ret": ("5.7", _have_tracing("modify_return", "security_task_getpgid")),
    "program:lsm": ("5.7", _have_lsm),
    "program:tracing:iter": ("5.8", _have_tracing("trace_iter", "task")),
    "program:iter": ("5.8", _have_tracing("trace_iter", "task")),
    "program:sleepable_iter": ("6.1", _have_sleepable),
    "prog_test_run:raw_tracepoint": ("5.10", _have_test_run),
    "link:perf_event": ("5.15", _have_perf_link),
    "link:kprobe_multi": ("5.18", _have_kprobe_link("trace_kprobe_multi")),
    "link:kprobe_session": ("6.10", _have_kprobe_link("trace_kprobe_session")),
    "link:uprobe_multi": ("6.6", _have_uprobe_link("trace_uprobe_multi")),
    "link:uprobe_session": ("6.13", _have_uprobe_link("trace_uprobe_session")),
    "cookie:perf_event": ("5.15", _have_perf_link),
    "cookie:tracing": ("5.19", _have_tracing_cookie),
    "pmu:kprobe": ("4.17", _have_file(f"{_PMU}/kprobe/type")),
    "pmu:uprobe": ("4.17", _have_file(f"{_PMU}/uprobe/type")),
    "tracefs:kprobe_events": ("", _have_tracefs("kprobe_events")),
    "tracefs:uprobe_events": ("", _have_tracefs("uprobe_events")),
    "perf:hardware": ("", _have_event(abi.PERF_TYPE_HARDWARE, 0)),
    "perf:breakpoint": ("", _have_event(abi.PERF_TYPE_BREAKPOINT, 0, breakpoint_type=3, config1=4096, config2=4)),
    # if r0 < 1 goto +0
    "isa:v2": ("4.14", _have_code((0xB7, 0, 0, 0), (0xA5, 0, 0, 1))),
    # if w0 < 1 goto +0
    "isa:v3": ("5.1", _have_code((0xB7, 0, 0, 0), (0xA6, 0, 0, 1))),
    # *(u64 *)(r10 - 8) = 0; r0 = 1; r0 = xchg(r10 - 8, r0)
    "isa:atomics": ("5.12", _have_code((0x7A, 0x0A, -8, 0), (0xB7, 0, 0, 1), (0xDB, 0x0A, -8, 0xE1))),
    # r0 = (s8)r0
    "isa:v4": ("6.6", _have_code((0xB7, 0, 0, 0), (0xBF, 0, 8, 0))),
    # may_goto +1; r1 = 0
    "isa:may_goto": ("6.9", _have_code((0xE5, 0, 1, 0), (0xB7, 1, 0, 0))),
    # *(u64 *)(r10 - 8) = 0; r0 = load_acquire(r10 - 8)
    "isa:load_acquire": ("6.15", _have_code((0x7A, 0x0A, -8, 0), (0xDB, 0xA0, -8, 0x100))),
    # r1 = 3; r1 -= 1; if r1 != 0 goto -2
    "isa:bounded_loops": ("5.3", _have_code((0xB7, 1, 0, 3), (0x17, 1, 0, 1), (0x55, 1, -2, 0))),
}  # fmt: skip

# Features that anybody may ask for.
_FREE = frozenset(["btf:vmlinux", "pmu:kprobe", "pmu:uprobe"])
