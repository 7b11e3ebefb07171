"""uprobe:BINARY:FUNCTION[+OFFSET] and uretprobe: functions and instructions of programs and libraries."""

from __future__ import annotations

from ..errors import FormatError, ProbeError
from ..record import replace
from ..spec.object import ProbeSpec
from .binaries import distinct_files, find_binaries
from .context import regs_context
from .grammar import read_uint, split_offset, wrong_count
from .model import Context, Pattern, Probe
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from ..debuginfo.elf import Elf, Symbol
    from ..spec.target import Target
    from .scope import Scope

    T = TypeVar("T")

_LANGUAGES = ("cpp",)


def parse(kind: str, args: tuple[str, ...], scope: Scope) -> Pattern:
    """BINARY:[cpp:]FUNCTION[+OFFSET], BINARY:ADDRESS or BINARY@FILE:LINE[:COLUMN]; -p and -c may stand for BINARY."""
    if args and "@" in args[0] and len(args) in (2, 3) and all(a.isdecimal() for a in args[1:]):
        return _parse_source(kind, args)
    if (scope.pid or scope.command_path) and (len(args) == 1 or (len(args) == 2 and args[0] in _LANGUAGES)):
        args = ("", *args)
    elif args and not args[0] and len(args) > 1:
        raise ProbeError(f"{kind} should have a target", hint=f"write {kind}:FILE:{args[-1]}")
    if len(args) not in (2, 3):
        raise wrong_count(kind, "2 or 3", len(args))
    path, text = args[0], args[-1]
    language = args[1] if len(args) == 3 else ""
    if language and language not in _LANGUAGES:
        raise ProbeError(f"unsupported language type: {language}", hint="supported: " + ", ".join(_LANGUAGES))
    if not text:
        raise ProbeError(f"{kind} should be attached to a function and/or address")
    if text[0].isdecimal():
        return _parse_address(kind, path, text)
    demangled = language == "cpp"
    symbol, offset = (text, 0) if demangled else split_offset(text, allowed=kind == "uprobe")
    wild = has_wildcard(path) or has_wildcard(symbol)
    if has_wildcard(symbol) and offset:
        raise ProbeError("Cannot use wildcards with an offset")
    name = ":".join((kind, *args[:-1], symbol)) + (f"+{offset}" if offset else "")
    return Pattern(kind, name, path=path, symbol=symbol, offset=offset, demangled=demangled, wild=wild)


def _parse_address(kind: str, path: str, text: str) -> Pattern:
    address = read_uint(text, "Invalid address")
    if has_wildcard(path):
        raise ProbeError("Cannot use wildcards with absolute address")
    return Pattern(kind, f"{kind}:{path}:{address}", path=path, address=address)


def _parse_source(kind: str, args: tuple[str, ...]) -> Pattern:
    path, _, source = args[0].partition("@")
    line, column = int(args[1]), int(args[2]) if len(args) == 3 else 0
    if kind == "uretprobe":
        raise ProbeError("uretprobe cannot be attached by source code location", hint="use uprobe")
    if not path or not source:
        raise ProbeError(f"{kind} should have a target", hint="write uprobe:BINARY@FILE:LINE")
    return Pattern(kind, f"{kind}:" + ":".join(args), path=path, source=source, line=line, column=column)


def expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    """Look into each file that the pattern means. A plain name costs no decoding of whole symbol tables."""
    found = _expand(pattern, scope)
    if not found and pattern.path in _PARTS_OF_LIBC:
        found = _expand(replace(pattern, path="libc"), scope)
    return found


# glibc 2.34 emptied these libraries: their functions are in libc, and scripts still name them.
_PARTS_OF_LIBC = ("libpthread", "libdl", "librt", "libutil", "libanl")


def _expand(pattern: Pattern, scope: Scope) -> list[Probe]:
    paths = find_binaries(pattern.type, pattern.path, scope)
    if pattern.source:
        raise ProbeError(
            f"No DWARF debug info found for '{paths[0]}', cannot attach by source code location.",
            hint="sonde does not read line tables yet; probe a function",
        )
    paths = distinct_files(paths) if len(paths) > 1 else paths
    strict = not has_wildcard(pattern.path)
    return [
        probe for path in paths for probe in read_binary(path, scope, strict, lambda e: _expand_in(pattern, e, scope))
    ]


def read_binary(path: str, scope: Scope, strict: bool, read: Callable[[Elf], list[T]]) -> list[T]:
    """Return what `read` finds in an ELF file; one of many that cannot be read gives nothing, unless `strict`.

    Raises ProbeError or FormatError.
    """
    try:
        return read(scope.machine.open_elf(path))
    except OSError as error:
        if strict:
            raise ProbeError(f"{path} cannot be read: {error.strerror}") from None
    except FormatError:
        if strict:
            raise
    return []


def _expand_in(pattern: Pattern, elf: Elf, scope: Scope) -> list[Probe]:
    path = elf.path
    if pattern.address:
        return [_at_address(pattern, path, elf, scope)]
    if not has_wildcard(pattern.symbol) and not pattern.demangled:
        symbol = elf.get_function(pattern.symbol)
        found = [symbol] if symbol else []
    else:
        found = _match(pattern, elf)
    probes = []
    for symbol in found:
        name = f"{pattern.type}:{path}:" + ("cpp:" if pattern.demangled else "") + symbol.name
        probe = _probe(pattern, name + (f"+{pattern.offset}" if pattern.offset else ""), path, elf, symbol, scope)
        if probe is not None:
            probes.append(probe)
    return probes


def _probe(pattern: Pattern, name: str, path: str, elf: Elf, symbol: Symbol, scope: Scope) -> Probe | None:
    if pattern.offset:
        if symbol.size and pattern.offset >= symbol.size:
            raise ProbeError(
                f"{name}: {symbol.name} has only {symbol.size} bytes", hint="the offset must be inside the function"
            )
        _check_boundary(elf, symbol, symbol.vaddr + pattern.offset, name, scope)
    offset = elf.get_offset(symbol.vaddr + pattern.offset)
    if offset < 0:
        return None
    spec = ProbeSpec(name, pattern.type, "", path=path, offset=offset, symbol=symbol.name, pid=scope.pid)
    return Probe(pattern.type, name, spec, "kprobe")


def _at_address(pattern: Pattern, path: str, elf: Elf, scope: Scope) -> Probe:
    name = f"{pattern.type}:{path}:{pattern.address}"
    offset = elf.get_offset(pattern.address)
    if offset < 0 or not _is_code(elf, pattern.address):
        raise ProbeError(f"{name}: there is no code at 0x{pattern.address:x} in {path}")
    symbol = elf.get_function_at(pattern.address)
    inside = pattern.address - symbol.vaddr if symbol else 0
    if symbol and inside:
        place = f"{symbol.name}+{inside}"
        if pattern.type == "uretprobe":
            raise ProbeError(
                f"uretprobes cannot be attached at function offset. (address resolved to: {place})",
                hint=f"{symbol.name} begins at 0x{symbol.vaddr:x}",
            )
        _check_boundary(elf, symbol, pattern.address, name, scope)
    text = symbol.name if symbol else ""
    spec = ProbeSpec(
        name, pattern.type, "", path=path, offset=offset, address=pattern.address, symbol=text, pid=scope.pid
    )
    return Probe(pattern.type, name, spec, "kprobe")


def _is_code(elf: Elf, vaddr: int) -> bool:
    return any(s.type == 1 and s.flags & 1 and s.vaddr <= vaddr < s.vaddr + s.file_size for s in elf.segments)


def _check_boundary(elf: Elf, symbol: Symbol, vaddr: int, name: str, scope: Scope) -> None:
    """Refuse the middle of an instruction: a breakpoint there would corrupt the program."""
    if scope.unsafe:
        return
    inside = vaddr - symbol.vaddr
    hint = "--unsafe forces it, at the risk of corrupting the program"
    if elf.arch == "aarch64" and vaddr % 4:
        raise ProbeError(f"{name}: instructions begin at multiples of 4", hint=hint)
    if elf.arch != "x86_64":
        return
    if symbol.size == 0:
        raise ProbeError(f"Could not determine boundary for {symbol.name} (symbol has size 0).", hint=hint)
    from ..debuginfo.x86length import is_boundary

    start = elf.get_offset(symbol.vaddr)
    if not is_boundary(elf.data[start : start + symbol.size], inside):
        place = f"{elf.path}:{symbol.name}+{inside}"
        raise ProbeError(f"Could not add uprobe into middle of instruction: {place}", hint=hint)


def _match(pattern: Pattern, elf: Elf) -> list[Symbol]:
    wanted = _make_matcher(pattern)
    found: dict[str, Symbol] = {}
    for symbol in elf.iter_functions():
        # Without a size nobody knows where the function ends; the C runtime's own stubs are like that.
        if symbol.size and ".part." not in symbol.name and symbol.name not in found and wanted(symbol.name):
            found[symbol.name] = symbol
    return [found[name] for name in sorted(found)]


def _make_matcher(pattern: Pattern) -> Callable[[str], bool]:
    plain = make_matcher(pattern.symbol)
    if not pattern.demangled:
        return plain
    from ..debuginfo.demangle import demangle

    with_params = "(" in pattern.symbol

    def matches(name: str) -> bool:
        if not name.startswith("_Z"):
            return plain(name)
        text = demangle(name)
        return plain(text if with_params else text.rpartition("(")[0] or text) or plain(name)

    return matches


def context_of(probe: Probe, target: Target) -> Context:
    """The registers at the instruction, or after the function returned."""
    return regs_context(target.arch)


def close(pattern: Pattern, scope: Scope) -> list[str]:
    """Functions of the same files that sound alike."""
    from .close import close_names

    names: list[str] = []
    for path in find_binaries(pattern.type, pattern.path, scope)[:8]:
        known = read_binary(path, scope, False, lambda elf: elf.function_names())
        names += [f"{pattern.type}:{path}:{name}" for name in close_names(pattern.symbol.strip("*"), known)]
    return names[:3]


def iter_names(pattern: Pattern, scope: Scope) -> Iterator[str]:
    """The functions of each file, sorted, those without a size too."""
    wanted = _make_matcher(pattern)
    prefix = "cpp:" if pattern.demangled else ""
    strict = not has_wildcard(pattern.path)
    found = []
    for path in find_binaries(pattern.type, pattern.path, scope):
        for name in read_binary(path, scope, strict, lambda elf: elf.function_names()):
            if wanted(name) and ".part." not in name:
                found.append(f"{pattern.type}:{path}:{prefix}{_quote(name) if pattern.demangled else name}")
    yield from sorted(set(found))


def _quote(name: str) -> str:
    if not name.startswith("_Z"):
        return name
    from ..debuginfo.demangle import demangle

    text = demangle(name)
    return f'"{text}"' if text != name else name


def iter_params(name: str, scope: Scope) -> Iterator[str]:
    """The parameters are in DWARF, which is not read yet."""
    return iter(())
