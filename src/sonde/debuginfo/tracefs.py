"""tracefs: which events the kernel has, and the layout of their records.

The text of events/CATEGORY/EVENT/format becomes a `TracepointFormat`, whose fields carry C types. The declarations in it
are what the kernel's macros printed: C, with the arrays' bounds and sizes to be taken from the numbers beside it.
"""

from __future__ import annotations

from ..errors import FeatureError, FormatError, PrivilegeError, ProbeError
from ..record import Record
from .ctype import CHAR, UINT32, VOID, Array, CType, Enum, Int, Member, Pointer, Qualified, Struct, Typedef, sizeof

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Union

    from .btf import Btf
    from .ctype import TypeRef

    BtfSource = Union[Btf, Callable[[], Btf], None]

ROOTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


class TracepointField(Record, eq=False):
    """One field of a record. `text` is its declaration as the kernel prints it.

    A dynamic field ("data_loc", "rel_loc") is a u32 at `offset`: where the data starts (from the start of the record, or
    from the end of this field) in the low 16 bits, and its length in bytes in the high 16. `ctype` is the type of that data.
    """

    name: str
    ctype: CType
    offset: int
    size: int
    signed: bool
    dynamic: str = ""
    common: bool = False
    text: str = ""


class TracepointFormat(Record, eq=False):
    """The layout of one event's record. `struct` has all fields, common ones included, a dynamic field as its u32."""

    name: str
    ident: int
    category: str
    fields: tuple[TracepointField, ...]
    struct: Struct
    print_fmt: str

    def get_field(self, name: str) -> TracepointField | None:
        """Return the field `name`, or None."""
        for field in self.fields:
            if field.name == name:
                return field
        return None


# Finding tracefs ------------------------------------------------------------------------------------------------

_detached: list[str] = []  # the path of our own mount; its descriptor stays open as long as the process lives


def find_root() -> str:
    """Return the directory of a mounted tracefs. Where there is none, mount one that only this process sees.

    Raises PrivilegeError when tracefs may not be read, or not be mounted; FeatureError when the kernel has none.
    """
    import os

    refused = ""
    for root in (*ROOTS, *_detached):
        try:
            os.stat(root + "/events")
            return root
        except PermissionError:
            refused = refused or root
        except OSError:
            pass
    if refused:
        raise PrivilegeError(
            f"{refused} may not be read by this user",
            hint=f"as root: mount -o remount,mode=755 {refused} (or give a group access with gid=)",
        )
    for root in _iter_mounts():
        if os.access(root + "/events", os.R_OK):
            return root
    _detached.append(_mount_detached())
    return _detached[-1]


def _iter_mounts() -> Iterator[str]:
    """Yield the places where tracefs is mounted, by /proc/self/mounts (where blanks are written in octal)."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split(" ")
        if len(words) > 2 and words[2] == "tracefs":
            yield words[1].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on every architecture; kernel 5.2
_CLOEXEC, _FSCONFIG_CMD_CREATE = 1, 6


def _mount_detached() -> str:
    """Mount a tracefs that is attached nowhere, so that nothing is left behind; return its path by descriptor."""
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *args: int | bytes | None) -> int:
        wide = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in args]
        result: int = libc.syscall(ctypes.c_long(number), *wide)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    try:
        context = call(_FSOPEN, b"tracefs", _CLOEXEC)
        try:
            call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
            return f"/proc/self/fd/{call(_FSMOUNT, context, _CLOEXEC, 0)}"
        finally:
            os.close(context)
    except OSError as error:
        raise _no_tracefs(error) from None


def _no_tracefs(error: OSError) -> FeatureError | PrivilegeError:
    import errno

    hint = f"as root: mount -t tracefs tracefs {ROOTS[0]}"
    if error.errno in (errno.EPERM, errno.EACCES):
        return PrivilegeError("tracefs is not mounted", capability="CAP_SYS_ADMIN", hint=hint)
    if error.errno == errno.ENODEV:
        return FeatureError("this kernel has no tracefs", feature="tracefs", hint="it needs CONFIG_TRACING=y")
    return FeatureError(
        f"tracefs is not mounted, and mounting it failed: {error.strerror}", feature="tracefs", hint=hint
    )


# Events -----------------------------------------------------------------------------------------------------------


def iter_events(root: str) -> Iterator[tuple[str, str]]:
    """Yield (category, event) of every tracepoint event, in the kernel's order."""
    try:
        with open(root + "/available_events", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        yield from _iter_event_folders(root)
        return
    for line in lines:
        category, colon, event = line.partition(":")
        if colon:
            yield category, event


def _iter_event_folders(root: str) -> Iterator[tuple[str, str]]:
    import os

    try:
        categories = sorted(e.name for e in os.scandir(root + "/events") if e.is_dir())
    except PermissionError:
        raise PrivilegeError(f"{root}/events may not be read by this user") from None
    except OSError as error:
        raise FeatureError(f"{root}/events cannot be read: {error.strerror}", feature="tracefs") from None
    for category in categories:
        try:
            events = sorted(e.name for e in os.scandir(f"{root}/events/{category}") if e.is_dir())
        except OSError:
            continue
        for event in events:
            yield category, event


def read_format(category: str, event: str, root: str, *, btf: BtfSource = None) -> TracepointFormat:
    """Read and parse the format of one event. Raises ProbeError, with close names, when there is no such event."""
    path = f"{root}/events/{category}/{event}/format"
    try:
        if "/" in category or "/" in event or "\0" in path:
            raise FileNotFoundError
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except PermissionError:
        raise PrivilegeError(f"{path} may not be read by this user") from None
    except OSError:
        raise ProbeError(
            f"there is no tracepoint {category}:{event}", close=_close_events(category, event, root)
        ) from None
    return parse_format(text, path=path, category=category, btf=btf)


def _close_events(category: str, event: str, root: str) -> list[str]:
    from difflib import get_close_matches

    known = [f"{c}:{e}" for c, e in iter_events(root)]
    return get_close_matches(f"{category}:{event}", known, n=3, cutoff=0.7)


# Formats ----------------------------------------------------------------------------------------------------------


def parse_format(text: str, *, path: str = "", category: str = "", btf: BtfSource = None) -> TracepointFormat:
    """Parse the text of a format file. Named types that C does not define are looked up in `btf`, on first use.

    `btf` is a Btf, or a function that returns one (or raises FeatureError), or None: then they are integers of the
    field's size. Raises FormatError.
    """
    head, _, print_fmt = text.partition("\nprint fmt: ")
    name = ""
    ident = -1
    fields: list[TracepointField] = []
    for line in head.splitlines():
        if line.startswith("\tfield"):
            fields.append(_parse_field(line, path, btf))
        elif line.startswith("name: "):
            name = line[6:].strip()
        elif line.startswith("ID: "):
            ident = _number(line[4:], "ID", path)
    if not name or ident < 0 or not fields:
        raise FormatError("a tracepoint format without name, ID or fields", path=path)
    size = max(f.offset + f.size for f in fields)
    members = tuple(Member(f.name, UINT32 if f.dynamic else f.ctype, f.offset * 8) for f in fields)
    struct = Struct("struct", f"{category}_{name}" if category else name, size, members)
    return TracepointFormat(name, ident, category, tuple(fields), struct, print_fmt.strip())


def _number(text: str, what: str, path: str) -> int:
    text = text.strip()
    digits = text[1:] if text.startswith("-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise FormatError(f"{what} is {text[:40]!r}, not a number", path=path)
    return int(text)


def _parse_field(line: str, path: str, btf: BtfSource) -> TracepointField:
    """Parse "\tfield:DECLARATION;\toffset:N;\tsize:N;\tsigned:N;"."""
    numbers = {}
    parts = line.strip().split(";")
    for part in parts[1:]:
        key, colon, value = part.strip().partition(":")
        if colon:
            numbers[key] = _number(value, key, path)
    # "field special:" was how old kernels marked the fields of events without a struct.
    _, colon, declaration = parts[0].partition(":")
    if not colon or not declaration or "offset" not in numbers or "size" not in numbers:
        raise FormatError(f"a field line that cannot be read: {line.strip()[:80]!r}", path=path)
    offset, size, signed = numbers["offset"], numbers["size"], bool(numbers.get("signed", 0))
    if offset < 0 or size < 0:
        raise FormatError(f"a field at offset {offset} of {size} bytes: {declaration[:80]!r}", path=path)
    name, ctype, dynamic = parse_declaration(declaration, size, signed, btf=btf, path=path)
    return TracepointField(name, ctype, offset, size, signed, dynamic, name.startswith("common_"), declaration)


_DYNAMIC = {"__data_loc": "data_loc", "__rel_loc": "rel_loc"}
_QUALIFIERS = frozenset(["const", "volatile"])
_BASE_WORDS = frozenset(["unsigned", "signed", "char", "short", "int", "long"])
_DEPTH_LIMIT = 16  # pointers and array bounds in one declaration


def parse_declaration(
    text: str, size: int, signed: bool, *, btf: BtfSource = None, path: str = ""
) -> tuple[str, CType, str]:
    """Parse the declaration of a field that takes `size` bytes: its name, type, and "", "data_loc" or "rel_loc"."""
    bare, bounds = _split_bounds(text, path)
    words = bare.replace("*", " * ").split()
    dynamic = _DYNAMIC.get(words[0], "") if words else ""
    if dynamic:
        del words[0]
    if len(words) < 2 or not (words[-1].replace("_", "a").isalnum()) or words.count("*") > _DEPTH_LIMIT:
        raise _unreadable(text, path)
    name = words.pop()
    star = words.index("*") if "*" in words else len(words)
    # Of an array or pointer, the size of the field says nothing about that of the type at the left.
    whole = size if star == len(words) and not bounds and not dynamic else 0
    base = _base_type(words[:star], whole, signed, btf, text, path)
    for word in words[star:]:
        if word == "*":
            base = Pointer(base)
        elif word in _QUALIFIERS:
            base = Qualified(word, base)
    ctype = base if isinstance(base, CType) else base()
    return name, _arrange(ctype, bounds, 0 if dynamic else size), dynamic


def _unreadable(text: str, path: str) -> FormatError:
    return FormatError(f"a declaration that cannot be read: {text[:80]!r}", path=path)


def _split_bounds(text: str, path: str) -> tuple[str, list[int]]:
    """Take the array bounds out of a declaration, wherever they stand ("char[] name", "char name[16]")."""
    bare = ""
    bounds: list[int] = []
    rest = text
    while True:
        before, bracket, rest = rest.partition("[")
        bare += before
        if not bracket:
            return bare, bounds
        bound, close, rest = rest.partition("]")
        if not close or len(bounds) >= _DEPTH_LIMIT:
            raise _unreadable(text, path)
        bounds.append(int(bound) if bound.isascii() and bound.isdigit() and len(bound) < 8 else 0)
        bare += " "


def _arrange(ctype: CType, bounds: list[int], size: int) -> CType:
    """Make the array type; the outermost bound follows from the size, since kernels print some as a macro's name."""
    for bound in reversed(bounds[1:]):
        ctype = Array(ctype, bound)
    if bounds:
        element = sizeof(ctype)
        ctype = Array(ctype, size // element if element else bounds[0])
    return ctype


def _base_type(words: list[str], size: int, signed: bool, btf: BtfSource, text: str, path: str) -> TypeRef:
    """Return the type that stands before pointers and name. `size` is that of the field, 0 where it says nothing."""
    plain = [w for w in words if w not in _QUALIFIERS and not w.startswith("__seg")]
    ctype: TypeRef | None = None
    if len(plain) == 2 and plain[0] in ("struct", "union", "enum"):
        ctype = _tagged_type(plain[0], plain[1], size, signed, btf)
    elif plain and all(w in _BASE_WORDS for w in plain):
        ctype = _arithmetic_type(plain, size)
    elif len(plain) == 1:
        ctype = _named_type(plain[0], size, signed, btf)
    if ctype is None:
        raise _unreadable(text, path)
    for word in words:
        if word in _QUALIFIERS:
            ctype = Qualified(word, ctype)
    return ctype


def _arithmetic_type(words: list[str], size: int) -> CType:
    """A C integer; where the field is wider (syscalls keep every argument in 8 bytes), it takes the field's width."""
    width = 1 if "char" in words else 2 if "short" in words else 8 if "long" in words else 4
    name = " ".join(words)
    if name == "char" and size in (0, 1):
        return CHAR
    return Int(name, size if size in (1, 2, 4, 8) else width, "unsigned" not in words)


# Typedefs that every kernel defines alike: size and sign.
_TYPEDEFS = {
    "u8": (1, False), "u16": (2, False), "u32": (4, False), "u64": (8, False),
    "s8": (1, True), "s16": (2, True), "s32": (4, True), "s64": (8, True),
    "__u8": (1, False), "__u16": (2, False), "__u32": (4, False), "__u64": (8, False),
    "__s8": (1, True), "__s16": (2, True), "__s32": (4, True), "__s64": (8, True),
    "uint8_t": (1, False), "uint16_t": (2, False), "uint32_t": (4, False), "uint64_t": (8, False),
    "int8_t": (1, True), "int16_t": (2, True), "int32_t": (4, True), "int64_t": (8, True),
    "uint": (4, False), "ulong": (8, False), "size_t": (8, False), "ssize_t": (8, True),
    "pid_t": (4, True), "tid_t": (4, True), "uid_t": (4, False), "gid_t": (4, False), "dev_t": (4, False),
    "umode_t": (2, False), "loff_t": (8, True), "sector_t": (8, False), "gfp_t": (4, False), "ino_t": (8, False),
}  # fmt: skip


def _named_type(name: str, size: int, signed: bool, btf: BtfSource) -> CType:
    if name == "void":
        return VOID
    if name == "bool" or name == "_Bool":
        return Int("bool", size or 1, False, "bool")
    known = _TYPEDEFS.get(name)
    if known:
        return Typedef(name, Int(name, *known))
    return Typedef(name, lambda: _look_up(name, btf) or _blank(name, size, signed))


def _tagged_type(keyword: str, name: str, size: int, signed: bool, btf: BtfSource) -> TypeRef:
    """`struct x`, `union x`, `enum x`: behind a pointer not looked up before somebody follows it."""
    spelling = f"{keyword} {name}"
    blank = Enum(name, size or 4, signed, {}) if keyword == "enum" else Struct(keyword, name, size, ())
    if keyword == "enum" and size:
        return Typedef(spelling, lambda: _look_up(spelling, btf) or blank)  # few programs ask for the names of values
    if size:
        return _look_up(spelling, btf) or blank
    return lambda: _look_up(spelling, btf) or blank


def _look_up(name: str, btf: BtfSource) -> CType | None:
    if btf is None:
        return None
    try:
        source = btf() if callable(btf) else btf
        return source.get_type(name)
    except FeatureError:
        return None


def _blank(name: str, size: int, signed: bool) -> CType:
    """A type that nobody could name: an integer where the size allows, otherwise bytes."""
    if size in (1, 2, 4, 8):
        return Int(name, size, signed)
    return Struct("struct", name, size, ())
