"""Virtual headers: what `#include` of a header of the kernel, of libc, of BCC or of libbpf makes known, with no file behind it.

Types, enumerators and prototypes are not in them: the analysis finds those in BTF and in the table of helpers when they are named. Headers
carry macros and a few inline functions, as tables from name to text, which nobody tokenises before a program uses the name.

One header of the kernel makes all macros of the kernel known, since programs lean on what headers include; what the text itself defines
or declares goes before.

What the text of these headers leaves to the compiler:

* `__bcc_table(kind, key, leaf, name, max_entries, flags[, extra])` declares a map of the BCC dialect (`ast.TableDecl`).
* `__attribute__((bpf_args("WORD")))` on a function says how parameters behind the first, the context, are had; `BPF_PROG`, `BPF_KPROBE`
  and their like put it there. WORD is "tracing" (they are ctx[0], ctx[1] …), "kprobe" (the argument registers of pt_regs), "kretprobe"
  (the first is the return value), "ksyscall" (the registers of the system call's caller), "usdt" (arguments of the probe).
* Functions that only the compiler can make: `bpf_usdt_readarg`, `bpf_num_cpus`, `load_byte`, `load_half`, `load_word`, `load_dword`,
  `cursor_advance`, `bpf_dext_pkt`, `bpf_dins_pkt`, `incr_cksum_l3`, `incr_cksum_l4`; what libbpf's usdt.bpf.h has stands for
  `__builtin_bpf_usdt_readarg`, `…_arg_cnt`, `…_arg_size`; the `__builtin_` functions of gcc, and clang's for CO-RE: `__builtin_preserve_access_index`,
  `…_field_info`, `…_type_info`, `…_enum_value`, `__builtin_btf_type_id`.
* Structs of packets (bcc/proto.h) have `__attribute__((deprecated("packet")))`, as in BCC.
"""

from __future__ import annotations

from ....record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ....spec.target import Target
    from ..macros import Definition

    Group = Callable[[], dict[str, Definition]]


class Header(Record, eq=False):
    """A virtual header: tables of macros that it makes known, and C text that it puts in, if any."""

    name: str
    groups: tuple[Group, ...] = ()
    text: Callable[[], str] | None = None


class Dependent(Record, eq=False):
    """A macro that is different for each kernel. `make(target)` returns what stands behind its name, or None where it is no macro."""

    make: Callable[[Target], str | None]


class Inline(Record, eq=False):
    """An inline function (or a struct) whose definition, `text`, a program gets when it uses the name. It may use others, and macros."""

    header: str
    text: str


def parse_table(text: str) -> dict[str, str]:
    """Return the macros of a text that consists of `#define` alone: what stands behind each name, by name."""
    table: dict[str, str] = {}
    for chunk in text.split("\n#define ")[1:]:
        line = chunk.partition("\n")[0]
        end = min((i for i in (line.find(" "), line.find("("), line.find("\t")) if i >= 0), default=len(line))
        table[line[:end]] = chunk[end:]
    return table


_cache: dict[str, dict[str, Definition]] = {}


def kernel_group() -> dict[str, Definition]:
    """Return all macros and inline functions of kernel headers, by name."""
    if "kernel" not in _cache:
        from .kernel import make_table

        _cache["kernel"] = make_table()
    return _cache["kernel"]


def net_group() -> dict[str, Definition]:
    """Return the macros of network headers that are names of members (`sk_state`), and so may hit members of the text's own structs."""
    if "net" not in _cache:
        from .kernel import make_members

        _cache["net"] = make_members()
    return _cache["net"]


def bcc_group() -> dict[str, Definition]:
    """Return the macros and functions of BCC's dialect, which every program of that dialect has."""
    if "bcc" not in _cache:
        from .bcc import DEFINITIONS, MACROS

        definitions = {name: Inline("bcc/helpers.h", text) for name, text in DEFINITIONS.items()}
        _cache["bcc"] = {**parse_table(MACROS), **definitions}
    return _cache["bcc"]


def libbpf_group(name: str) -> Group:
    """Return what gives the macros of libbpf's header `bpf/NAME.h`."""
    return _LIBBPF_GROUPS[name]


def _make_libbpf_group(name: str) -> Group:
    def group() -> dict[str, Definition]:
        if name not in _cache:
            from .libbpf import DEFINITIONS, make_text

            _cache[name] = dict(parse_table(make_text(name)))
            if name == "bpf_helpers":
                _cache[name].update({word: Inline("bpf/bpf_helpers.h", text) for word, text in DEFINITIONS.items()})
        return _cache[name]

    return group


_LIBBPF_GROUPS = {
    name: _make_libbpf_group(name) for name in ("bpf_helpers", "bpf_tracing", "bpf_core_read", "bpf_endian", "usdt.bpf")
}


# what #include finds --------------------------------------------------------------------------------------------------

_LIBBPF = {
    "bpf/bpf_helpers.h": ("bpf_helpers",),
    "bpf/bpf_helper_defs.h": ("bpf_helpers",),
    "bpf/bpf_tracing.h": ("bpf_helpers", "bpf_tracing"),
    "bpf/bpf_core_read.h": ("bpf_helpers", "bpf_core_read"),
    "bpf/bpf_endian.h": ("bpf_endian",),
    "bpf/usdt.bpf.h": ("bpf_helpers", "bpf_tracing", "usdt.bpf"),
}
_KERNEL_FOLDERS = (
    "linux", "uapi", "net", "asm", "asm-generic", "generated", "trace", "crypto", "scsi", "sound", "drm", "rdma", "xen", "video",
    "target", "acpi", "media", "misc", "soc", "clocksource", "keys", "kunit", "memory", "pcmcia", "ras", "vdso", "kvm", "block", "fs",
    "mm", "drivers", "kernel", "dt-bindings", "math-emu", "cxl", "ufs", "hyperv",
)  # fmt: skip
_LIBC_FOLDERS = ("sys", "netinet", "arpa", "bits", "netpacket", "net")
_LIBC = frozenset(
    [
        "stdint.h", "stddef.h", "stdbool.h", "stdio.h", "stdlib.h", "stdarg.h", "string.h", "strings.h", "errno.h", "limits.h",
        "fcntl.h", "sched.h", "signal.h", "unistd.h", "time.h", "inttypes.h", "ctype.h", "assert.h", "pthread.h", "poll.h",
        "dirent.h", "mqueue.h", "semaphore.h", "termios.h", "elf.h", "endian.h", "byteswap.h", "netdb.h", "ifaddrs.h", "iconv.h",
        "syscall.h", "wait.h", "grp.h", "pwd.h", "float.h", "math.h", "wchar.h", "stdalign.h", "stdatomic.h", "stdnoreturn.h",
    ]
)  # fmt: skip
_NET_WORDS = ("net/", "tcp", "udp", "ip", "in6", "socket", "sock", "skbuff", "netdev", "inet", "sctp", "dccp", "mptcp")


def find_header(name: str) -> Header | None:
    """Return the header of BCC, libbpf or a compiler's own that has this very name, or None."""
    path = name.removeprefix("./")
    if path.rpartition("/")[2] == "vmlinux.h":
        return Header("vmlinux.h")
    if path in ("usdt.bpf.h", "bpf_helpers.h", "bpf_tracing.h", "bpf_core_read.h", "bpf_endian.h", "bpf_helper_defs.h"):
        path = f"bpf/{path}"
    if path in _LIBBPF:
        return Header(path, tuple(libbpf_group(g) for g in _LIBBPF[path]))
    if path in ("bcc/proto.h", "net/proto.h"):
        return Header("bcc/proto.h", (bcc_group,), _proto_text)
    if path in ("bcc/helpers.h", "bcc/bpf.h", "bcc/footer.h"):
        return Header(path, (bcc_group,))
    return None


def _proto_text() -> str:
    from .bcc import PROTO

    return PROTO


def is_system_header(name: str) -> Header | None:
    """Return the virtual header for a name that the kernel or libc may have, or None."""
    first, slash, rest = name.partition("/")
    known = (slash and (first in _KERNEL_FOLDERS or first in _LIBC_FOLDERS)) or name in _LIBC
    if not known or not name.endswith(".h"):
        return None
    path = name.removeprefix("uapi/")
    is_net = (
        path.startswith(_NET_WORDS) or rest.startswith(_NET_WORDS) or path.removeprefix("linux/").startswith(_NET_WORDS)
    )
    return Header(name, (kernel_group, net_group) if is_net else (kernel_group,))


# what is defined from the start ---------------------------------------------------------------------------------------


def predefined(dialect: str, target: Target | None) -> dict[str, Definition]:
    """Return what is defined before the text begins: a compiler's macros, the target's, and those of the dialect."""
    from .compiler import arch_macros, compiler_macros

    table: dict[str, Definition] = {}
    if dialect == "bcc":
        table.update(kernel_group())
        table.update(bcc_group())
    table.update(compiler_macros(dialect))
    if target is not None:
        table.update(arch_macros(dialect, target))
        if dialect == "bcc":
            table.update(target_group(target))
    return table


def target_group(target: Target) -> dict[str, Definition]:
    """Return what headers of the kernel say about the kernel: its version, and the size of a page."""
    from .compiler import version_macros

    return version_macros(target)


def config_definition(name: str, target: Target) -> str | None:
    """Return what the kernel's generated/autoconf.h has for a CONFIG_ name: " 1" where it is y, also for NAME_MODULE where it is m."""
    value = target.kconfig(name)
    if value == "y":
        return " 1"
    if value in ("", "n", "m"):
        if name.endswith("_MODULE") and target.kconfig(name.removesuffix("_MODULE")) == "m":
            return " 1"
        return " 1" if not value and name in _ALWAYS.get(target.arch, ()) else None
    if value.lstrip("-").isdigit() or value.startswith("0x"):
        return f" {value}"
    return ' "' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


# True of every kernel with BTF, also where its configuration cannot be read.
_ALWAYS = {
    arch: frozenset(
        ["CONFIG_ARCH_HAS_SYSCALL_WRAPPER", "CONFIG_64BIT", "CONFIG_BPF", "CONFIG_BPF_SYSCALL", "CONFIG_MMU", *more]
    )
    for arch, more in {"x86_64": ["CONFIG_X86_64", "CONFIG_X86"], "aarch64": ["CONFIG_ARM64"]}.items()
}
