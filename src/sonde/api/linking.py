"""Objects out of objects: several linked to one, and the part of a kernel's types that an object needs."""

from __future__ import annotations

from ..errors import FormatError, UsageError
from ..record import replace
from .objects import is_object, open_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..bpf.objfile.model import Question
    from ..debuginfo.btf import Btf
    from .trace import TraceOptions

_TYPES_LIMIT = 256 << 20  # bytes of a file with BTF


def link(
    paths: Sequence[str], options: TraceOptions | None = None, *, warn: Callable[[str], None] | None = None
) -> bytes:
    """Link objects, and C in libbpf's style (which is compiled first), to one object.

    Raises FormatError, which names both files, where two contradict each other; CompileError.
    """
    from ..bpf.objfile.combine import combine_objects

    return combine_objects([(path, _read(path, options, warn)) for path in paths], warn)


def _read(path: str, options: TraceOptions | None, warn: Callable[[str], None] | None) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", path=path) from None
    if data[:4] == b"\x7fELF":
        return data
    if not path.endswith(".c"):
        raise UsageError(f"{path} is neither an object nor C", hint="what is linked are objects (.o) and .bpf.c files")
    from ..lang.source import Source
    from .build import build
    from .trace import TraceOptions

    options = replace(options or TraceOptions(), linkable=True)
    return build(Source(path, data.decode("utf-8", "surrogateescape")), options, warn=warn)


def is_linking(words: Sequence[str]) -> bool:
    """Tell whether a command line's words are files to be linked: the first is an object, or a C file that others follow."""
    return bool(words) and (is_object(words[0]) or (len(words) > 1 and words[0].endswith(".c")))


def is_btf(path: str) -> bool:
    """Tell whether a file begins as BTF does, in either byte order; False also for one that cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(2) in (b"\x9f\xeb", b"\xeb\x9f")
    except OSError:
        return False


def open_types(path: str) -> Btf:
    """Read a kernel's types: BTF as /sys/kernel/btf has it, or an ELF file with a section .BTF. Raises FormatError, FeatureError."""
    from ..debuginfo.btf import Btf

    if not is_object(path):
        return Btf.open(path)
    from ..debuginfo.elf import Elf

    with open(path, "rb") as file:
        elf = Elf(file.read(_TYPES_LIMIT), path)
    section = elf.get_section(".BTF")
    if section is None:
        raise FormatError("there is no section .BTF in this file", path=path)
    return Btf.from_bytes(elf.read_section(section))


def cut_types(kernel: Btf, paths: Sequence[str]) -> bytes:
    """Return the part of a kernel's types that the CO-RE relocations of objects ask for, as BTF. Raises FormatError."""
    from ..debuginfo.btfcut import cut_btf

    return cut_btf(kernel, [question for path in paths for question in _questions(path)])


def _questions(path: str) -> Iterator[Question]:
    for program in open_object(path).programs:
        for fill in program.fills:
            if fill.core is not None:
                yield fill.core
