"""Environment: what a name means that a C text does not define.

Types, enumerators and kernel functions come from the target's BTF, `struct tracepoint__CATEGORY__EVENT` from the format files
of tracefs, helpers from the machine's table. Each name is looked up when somebody uses it, and the answer is kept; nothing ever walks over all of BTF.
"""

from __future__ import annotations

from ...compiler.helpers import get_helper, helper_names
from ...debuginfo.ctype import INT32, UINT64, VOID, CType, Member, Pointer, Struct, Typedef
from ...errors import FeatureError
from ...probes.close import close_names
from .arithmetic import INT, integer_of_words
from .prototypes import builtin_names, builtin_prototype, helper_prototype

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...debuginfo.btf import Btf
    from ...debuginfo.ctype import Enum, FuncProto
    from ...debuginfo.tracefs import TracepointFormat
    from ...spec.target import Target

# Typedefs that mean the same on every kernel, as the kernel's headers have them; they need no look into BTF.
_STANDARD = {
    "u8": "unsigned char", "s8": "signed char", "u16": "unsigned short", "s16": "short", "u32": "unsigned int", "s32": "int",
    "u64": "unsigned long long", "s64": "long long", "__u8": "unsigned char", "__s8": "signed char", "__u16": "unsigned short",
    "__s16": "short", "__u32": "unsigned int", "__s32": "int", "__u64": "unsigned long long", "__s64": "long long",
    "__be16": "__u16", "__be32": "__u32", "__be64": "__u64", "__le16": "__u16", "__le32": "__u32", "__le64": "__u64",
    "__sum16": "__u16", "__wsum": "__u32", "bool": "_Bool", "size_t": "unsigned long", "ssize_t": "long", "uintptr_t": "unsigned long",
    "intptr_t": "long", "ptrdiff_t": "long", "int8_t": "signed char", "uint8_t": "unsigned char", "int16_t": "short",
    "uint16_t": "unsigned short", "int32_t": "int", "uint32_t": "unsigned int", "int64_t": "long long",
    "uint64_t": "unsigned long long",
}  # fmt: skip
# The same for names of which a kernel's own meaning goes first.
_FALLBACK = {
    "pid_t": "int", "uid_t": "unsigned int", "gid_t": "unsigned int", "umode_t": "unsigned short", "mode_t": "unsigned int",
    "dev_t": "unsigned int", "ino_t": "unsigned long", "off_t": "long", "loff_t": "long long", "time_t": "long", "clock_t": "long",
    "sector_t": "unsigned long long", "gfp_t": "unsigned int", "fmode_t": "unsigned int", "sa_family_t": "unsigned short",
    "socklen_t": "int", "uint": "unsigned int", "ulong": "unsigned long", "ushort": "unsigned short", "uchar": "unsigned char",
    "u_char": "unsigned char", "u_short": "unsigned short", "u_int": "unsigned int", "u_long": "unsigned long",
    "u_int8_t": "unsigned char", "u_int16_t": "unsigned short", "u_int32_t": "unsigned int", "u_int64_t": "unsigned long long",
    "in_addr_t": "__u32", "in_port_t": "__u16", "time64_t": "long long", "ktime_t": "long long", "caddr_t": "char *",
}  # fmt: skip
_TRACEPOINT = "tracepoint__"


class Environment:
    """The names that a target gives to a C text."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._typedefs: dict[str, CType | None] = {}
        self._tags: dict[tuple[str, str], CType | None] = {}
        self._enumerators: dict[str, tuple[int, Enum] | None] = {}
        self._helpers: dict[str, FuncProto | None] = {}
        self._btf: Btf | None = None
        self._have_btf = True

    @property
    def btf(self) -> Btf | None:
        """The target's BTF, or None where the kernel has none."""
        if self._btf is None and self._have_btf:
            try:
                self._btf = self.target.btf()
            except FeatureError:
                self._have_btf = False
        return self._btf

    # types ----------------------------------------------------------------------------------------------------

    def is_type_name(self, name: str) -> bool:
        """Tell whether `name` is a typedef here: what a parser wants to know of names that the text does not declare."""
        if name in _STANDARD:
            return True
        if name.startswith("bpf_") and get_helper(name[4:]) is not None:
            return False
        return self.get_typedef(name) is not None

    def get_typedef(self, name: str) -> CType | None:
        """Return the typedef `name`, or None."""
        if name not in self._typedefs:
            self._typedefs[name] = self._find_typedef(name)
        return self._typedefs[name]

    def _find_typedef(self, name: str) -> CType | None:
        words = _STANDARD.get(name)
        if words is None and self.btf is not None:
            found = self.btf.get_typedef(name)
            if found is not None:
                return found
        words = words or _FALLBACK.get(name)
        if words is None:
            return Pointer(VOID) if name == "__builtin_va_list" else None
        if words.endswith("*"):
            return Typedef(name, Pointer(integer_of_words(words.split()[:-1]) or VOID))
        number = integer_of_words(words.split())
        return Typedef(name, number or self.get_typedef(words) or INT)

    def get_tag(self, kind: str, name: str) -> CType | None:
        """Return `struct`, `union` or `enum` (`kind`) `name`; None when it is nowhere defined."""
        key = kind, name
        if key not in self._tags:
            self._tags[key] = self._find_tag(kind, name)
        return self._tags[key]

    def _find_tag(self, kind: str, name: str) -> CType | None:
        if kind == "struct" and name.startswith(_TRACEPOINT):
            category, _, event = name[len(_TRACEPOINT) :].partition("__")
            return tracepoint_struct(name, self.target.tracepoint(category, event))
        return self.btf.get_type(f"{kind} {name}") if self.btf is not None else None

    # values and functions -------------------------------------------------------------------------------------

    def get_enumerator(self, name: str) -> tuple[int, Enum] | None:
        """Return the value and the type of an enumeration constant of the kernel, or None."""
        if name not in self._enumerators:
            self._enumerators[name] = self.btf.get_enumerator(name) if self.btf is not None else None
        return self._enumerators[name]

    def get_helper(self, name: str) -> FuncProto | None:
        """Return the prototype of the helper that C calls `name` ("bpf_ktime_get_ns"), or None."""
        if name not in self._helpers:
            known = name.startswith("bpf_")
            self._helpers[name] = helper_prototype(name[4:], self._struct) if known else None
        return self._helpers[name]

    def _struct(self, name: str) -> CType | None:
        return self.get_tag("struct", name)

    def get_builtin(self, name: str) -> FuncProto | None:
        """Return the prototype of `__builtin_…` or of the plain function that it stands for (memcpy), or None."""
        return builtin_prototype(name.removeprefix("__builtin_"))

    def get_kernel_function(self, name: str) -> FuncProto | None:
        """Return the prototype of a function of the kernel (a kfunc, when programs may call it), or None."""
        return self.btf.get_func(name) if self.btf is not None else None

    # near misses ----------------------------------------------------------------------------------------------

    def close_functions(self, name: str, known: Iterable[str] = ()) -> list[str]:
        """Return callable names that somebody who wrote `name` may have meant."""
        helpers = ["bpf_" + helper for helper in helper_names()]
        return close_names(name, [*known, *helpers, *("__builtin_" + b for b in builtin_names())])

    def close_types(self, kind: str, name: str, known: Iterable[str] = ()) -> list[str]:
        """Return names of types of `kind` ("struct", "union", "enum", "typedef") that resemble `name`. Walks over all of BTF."""
        kernel = [n for _, n in self.btf.iter_names([kind])] if self.btf is not None else []
        standard = [*_STANDARD, *_FALLBACK] if kind == "typedef" else []
        return close_names(name, [*known, *standard, *kernel])


def tracepoint_struct(name: str, form: TracepointFormat) -> Struct:
    """Return the struct that a tracepoint program of BCC gets: the record's fields, a dynamic one as `int data_loc_NAME`."""
    members = [Member("__do_not_use__", UINT64, 0)]
    size = 8
    for field in form.fields:
        ctype: CType = field.ctype
        label = field.name
        if field.dynamic:
            label, ctype = f"{field.dynamic}_{field.name}", INT32
        members.append(Member(label, ctype, 8 * field.offset))
        size = max(size, field.offset + field.size)
    return Struct("struct", name, (size + 7) & ~7, tuple(members), align=8)
