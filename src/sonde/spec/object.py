"""What a compiled object consists of: programs, maps, events, views, probes. No file descriptor, no live handle."""

from __future__ import annotations

from ..errors import Diagnostic, Span
from ..record import Record
from .layout import Layout, LayoutField

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..debuginfo.ctype import CType


class MapSpec(Record):
    """A kernel map to be created. `type` is the kernel's name in lower case: "hash", "percpu_array", "ringbuf" …

    `initial` is written to entry 0 after creation (globals). `inner` is the template of a map-in-map. `values` are the names of maps or programs
    that entries (by number) hold from the start. `key_type` and `value_type` are told to the kernel where it must know them: of a
    value with a spin lock, a timer or a kernel pointer in it. A map of type struct_ops has the struct in `value_type`, its bytes in `initial`, and
    in `values` the programs by the offset of the function pointer. `extra` is map_extra (hash functions of a bloom filter …).
    """

    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    initial: bytes = b""
    frozen: bool = False  # read-only for programs and user space once `initial` is written
    inner: MapSpec | None = None
    pinning: str = ""
    key: Layout | None = None
    value: Layout | None = None
    values: tuple[tuple[int, str], ...] = ()
    key_type: CType | None = None
    value_type: CType | None = None
    extra: int = 0
    entries: tuple[tuple[bytes, bytes], ...] = ()  # keys and values that are written after creation


class Reloc(Record):
    """A place in a program's instructions that is filled in when it is loaded.

    kind         meaning                                                              uses
    map          64-bit immediate load becomes the map's descriptor                   symbol
    map_value    64-bit immediate load becomes the address of byte `addend` of entry 0 symbol, addend
    subprogram   call or address of a local function: instruction offset              symbol
    kfunc        call by BTF id (`weak`: not reached where there is none)             symbol, weak
    ksym         64-bit immediate load becomes the address of a kernel symbol         symbol, weak (then 0)
    ksym_btf     the same for a variable, by its type in the kernel's BTF             symbol, weak
    core         immediate or offset follows a CO-RE access; see CoreAccess           core
    """

    pc: int  # index of the instruction (a 64-bit immediate load counts as two)
    kind: str
    symbol: str = ""
    addend: int = 0
    core: CoreAccess | None = None
    weak: bool = False


class CoreAccess(Record):
    """A CO-RE relocation: `kind` as libbpf names them ("field_byte_offset", "field_exists"; see debuginfo.corerelo.KINDS).

    `type_name` is "struct task_struct"; `path` the member names and array indices from it, or the name of an enumerator;
    `value` what the compiler put into the instruction for its own target. `index` is not 0 where the path starts from `p[index]` in place of
    `*p`. `local` is the type as the program knows it; without it, names alone decide, and a load keeps its size.
    """

    kind: str
    type_name: str
    path: tuple[str | int, ...]
    value: int
    index: int = 0
    local: CType | None = None


class LineInfo(Record):
    """Instruction `pc` and those after it, up to the next entry, come from `span`, which knows its source text."""

    pc: int
    span: Span


def find_span(lines: Iterable[LineInfo], pc: int) -> Span | None:
    """Return the source of instruction `pc`, None where nothing is known of it."""
    before = [line for line in lines if line.pc <= pc]
    return max(reversed(before), key=lambda line: line.pc).span if before else None


class StackSlot(Record):
    """A place on the stack of the function at `pc`: the variable `name` has `size_bytes` from r10 + `offset` on. Variables that are never in use at once may share one."""

    pc: int
    function: str
    name: str
    offset: int
    size_bytes: int


class MapUse(Record):
    """What a program does to a view. `how`: "add" (to an aggregation, without looking at it), "read", or "write"."""

    view: str
    how: str


class ProgramSpec(Record):
    """One program. `type` is the kernel's name in lower case: "kprobe", "tracepoint", "raw_tracepoint", "tracing",
    "perf_event", "xdp" …; `attach_type` likewise ("trace_fentry", "trace_iter", "" for none).

    `insns` is machine code, 8 bytes an instruction. Subprograms follow the main function in the same code.
    `attach_btf` names the function or type that a tracing program is verified against ("vfs_read", "task"); of a struct_ops program
    the struct and its member ("tcp_congestion_ops.ssthresh").
    """

    name: str
    type: str
    insns: bytes
    relocs: tuple[Reloc, ...] = ()
    attach_type: str = ""
    attach_btf: str = ""
    lines: tuple[LineInfo, ...] = ()
    license: str = "GPL"
    sleepable: bool = False
    helpers: tuple[str, ...] = ()  # names of the helpers called, for privilege and feature messages
    stack_bytes: int = 0
    slots: tuple[StackSlot, ...] = ()  # what lies where on the stack
    flags: int = 0  # BPF_F_XDP_HAS_FRAGS …, as the kernel takes them, besides what `sleepable` stands for
    told: bool = False  # the kernel is told the names of functions and `lines`, which costs a system call
    uses: tuple[MapUse, ...] = ()  # of a script's program: what it does to the maps of the script
    events: tuple[int, ...] = ()  # of a script's program: the `ident` of each event that it sends


class ProbeSpec(Record):
    """One place to attach `program` to. `name` is the full probe name as scripts see it ("kprobe:vfs_read").

    type            target fields used
    begin, end, self  `event` for self ("signal:SIGUSR1")
    interval        period_ns (one CPU)
    profile         period_ns or frequency_hz, each CPU
    software, hardware  event (kernel's perf event name), count
    tracepoint      category, event
    rawtracepoint   event, module
    kprobe, kretprobe  symbol, offset or address, module
    fentry, fexit, fmod_ret   symbol, module ("vmlinux", a module's name, or "bpf:ID" for a function of a BPF program)
    lsm             symbol (the hook)
    struct_ops      symbol (the map that holds the set of programs)
    xdp             event (the network device), mode ("", "skb", "drv", "hw")
    cgroup          path (a directory of the cgroup file system)
    uprobe, uretprobe  path, offset (file offset), symbol (for messages), pid
    usdt            path, offset (file offset), semaphore_offset, category (provider), event, pid, cookie
    watchpoint      address, length, mode ("r", "w", "x" combined), pid
    iter            event (the iterator's name), pin
    """

    name: str
    type: str
    program: str
    category: str = ""
    event: str = ""
    module: str = ""
    symbol: str = ""
    path: str = ""
    offset: int = 0
    address: int = 0
    period_ns: int = 0
    frequency_hz: int = 0
    count: int = 0
    length: int = 0
    mode: str = ""
    pid: int = 0  # 0: every process
    semaphore_offset: int = 0
    cookie: int = 0  # bpf_get_attach_cookie() in the program
    pin: str = ""
    span: Span | None = None
    own: bool = False  # sonde's own, not one that the user asked for: not counted among the probes


class EventSpec(Record):
    """One kind of record that programs write to the ring buffer, or that sonde itself makes.

    Wire: u32 event id (`ident`), u32 reserved (see ObjectSpec.stamped), then `fields` at their offsets from the record's start, `size` in all.
    `kind` tells output and control what to do with a row:

    kind         params                                   fields
    printf       segments (see format.Segment)            the arguments
    errorf, warnf, debugf   the same                      the arguments
    print        (none)                                   one: the value
    print_map    view, top, div                           (none) or top/div when not constant
    print_entry  view                                     one: the key
    clear, zero  view                                     (none)
    exit         (none)                                   one: code
    time         format                                   (none): printed at the moment of reading
    join         (none)                                   the parts, one string each, and the separator
    cat          segments, max_bytes                      the arguments of the file name's format
    system       segments                                 the arguments of the command's format
    helper_error helper, message, excerpt (the line of `span`)   one: the return code
    runtime_error  message, excerpt                        (none): something that the program mended itself (a division by 0)
    skboutput    path                                     len, data
    thinned      probes (names), limit, off               hits looked at, hits passed over, all of these so far, seconds
    unwatch      (none)                                   one: the address of a watchpoint to be taken away
    record       (none)                                   one: a record of a stream (see StreamSpec), under the stream's name
    """

    ident: int
    kind: str
    size: int
    fields: tuple[LayoutField, ...] = ()
    params: tuple[tuple[str, Any], ...] = ()
    span: Span | None = None

    def get_param(self, name: str, default: Any = None) -> Any:
        """Return the parameter `name`, or `default`."""
        for key, value in self.params:
            if key == name:
                return value
        return default


class Segment(Record):
    """A piece of a format string: literal text (`conversion` is "") or one conversion.

    `flags` of "-+ #0", `width`, `precision` (-1: none), `conversion` one of d i u o x X c s p r rx rh gr. `length` is the
    length modifier (hh h l ll L j z t): as in C, an integer conversion without one prints the low 32 bits.
    """

    text: str = ""
    conversion: str = ""
    flags: str = ""
    width: int = 0
    precision: int = -1
    length: str = ""


class ViewSpec(Record):
    """A map as the user knows it ("@bytes"): a typed window on a kernel map.

    A keyed view is a whole map. A scalar view (`key` is None) is `offset` bytes into entry 0 of `map`, which may hold
    many views; `set_offset` is the byte that tells whether it was ever assigned (-1: always; or implied by the value,
    as in a count that is not 0). `per_cpu` values are reduced over CPUs by the kind of `value`: integers are added up; an
    array of count 0 takes one element from each CPU.

    Buckets of a hist, lhist or tseries view of kind "bucket" are part of the key (`bucket_offset` bytes into it, u32 or
    u64 by key size) unless `whole` says that the value holds all of them.
    """

    name: str
    map: str
    key: Layout | None
    value: Layout
    per_cpu: bool = False
    offset: int = 0
    set_offset: int = -1
    whole: bool = True
    bucket_offset: int = 0
    declared: bool = True  # shown at exit
    sparse: bool = False  # entries of nothing but zeros are left out: arrays have one for each index


class StreamSpec(Record):
    """A ring or perf buffer whose records are the program's own: no event id in front, shown under the buffer's name.

    `layouts` are what a record may be, told apart by their sizes. Where none of them fits, or several do, the bytes are shown.
    """

    map: str
    layouts: tuple[Layout, ...] = ()


class FailureSpec(Record):
    """A helper call that programs do not report each time it fails, but count: in this place of entry 0 of the map `lost`.

    The s64 at `offset` is the sum of the (negative) codes that the helper returned. A full map returns -E2BIG, so
    dividing by that gives the number of entries that found no room.
    """

    offset: int  # bytes
    helper: str
    name: str = ""  # of the map that the call was for, as the user knows it
    span: Span | None = None


class Settings(Record):
    """What the script says about how it wants to be run and shown (bpftrace: the config block)."""

    print_maps_on_exit: bool = True
    max_strlen: int = 1024
    str_trunc_trailer: str = ".."
    max_cat_bytes: int = 10240
    cpp_demangle: bool = True
    lazy_symbolication: bool = True
    cache_user_symbols: str = ""
    ringbuf_pages: int = 0  # in all; 0: the engine chooses
    log_size: int = 1_000_000
    on_stack_limit: int = 32
    show_debug_info: bool = False
    start_offset: int = (
        -1
    )  # of a u64 in the map `globals` that the session sets to CLOCK_BOOTTIME (ns) before it starts


class Assumption(Record):
    """Something that programs have from the machine they were compiled for, and that another machine may have too.

    kind              name                          value
    tracepoint_field  "sched:sched_switch.prev_pid" offset and size in the record, in bytes
    possible_cpus                                   how many CPUs programs look at; another machine may have fewer
    """

    kind: str
    name: str
    value: tuple[int, ...]


class ObjectSpec(Record):
    """All that an engine needs to load and a session to run. Names are unique within each tuple."""

    programs: tuple[ProgramSpec, ...]
    maps: tuple[MapSpec, ...] = ()
    probes: tuple[ProbeSpec, ...] = ()
    events: tuple[EventSpec, ...] = ()
    views: tuple[ViewSpec, ...] = ()
    strings: tuple[str, ...] = ()
    ringbuf: str = ""  # name of the map that events are written to
    lost: str = ""  # name of the array (per-CPU or not) whose u64 at the start of entry 0 counts events without room
    stacks: tuple[tuple[str, str], ...] = ()  # (layout param "map" value, map name): reserved for stack trace maps
    btf: bytes = b""  # the object's own BTF, when it ships one
    failures: tuple[FailureSpec, ...] = ()
    settings: Settings = Settings()
    streams: tuple[StreamSpec, ...] = ()
    # Name of an array whose entry 0 counts records that programs begin (a u64) and finish (the next one): others found no room.
    attempts: str = ""
    warnings: tuple[Diagnostic, ...] = ()  # of the compilation
    kernel_id: str = ""  # Target.kernel_id of the machine that this was compiled for
    # What programs have from that machine's kernel for good ("struct file.f_mode"): another one cannot run them.
    fixed: str = ""
    assumed: tuple[Assumption, ...] = ()  # to be checked where another kernel loads this
    externs: tuple[
        tuple[str, CType], ...
    ] = ()  # functions of another object: it cannot be loaded before they were linked
    # The reserved word of an event holds the monotonic time in units of STAMP_NS, as far as it fits: rings can be read in order of time.
    stamped: bool = False


STAMP_NS = 64  # so that 32 bits last for some minutes


def layout_kinds(spec: ObjectSpec) -> frozenset[str]:
    """Return the kinds of all layouts in an object's events and views, nested ones included."""
    waiting = [field.layout for event in spec.events for field in event.fields]
    for view in spec.views:
        waiting += [layout for layout in (view.key, view.value) if layout is not None]
    kinds = set()
    while waiting:
        layout = waiting.pop()
        kinds.add(layout.kind)
        waiting += [field.layout for field in layout.fields]
        if layout.element is not None:
            waiting.append(layout.element)
    return frozenset(kinds)
