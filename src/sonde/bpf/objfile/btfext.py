"""Section .BTF.ext to function names, source lines and CO-RE relocations, by the section that they are about.

Format: Documentation/bpf/btf.rst, struct btf_ext_header and the three kinds of records of include/uapi/linux/bpf.h.
"""

from __future__ import annotations

from struct import unpack_from

from ...debuginfo.corerelo import KINDS, local_answer, read_access
from ...debuginfo.ctype import Array, Enum, Float, Forward, Int, Struct, Typedef
from ...errors import FormatError
from ...record import Record, replace
from .model import LINE_COLUMN_BITS, Question, SourceLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...debuginfo.btf import Btf
    from ...debuginfo.ctype import CType

_MAGIC = 0xEB9F
_LEAST = (8, 16, 16)  # bytes of a record of func_info, line_info, core_relo
_MOST_BYTES = 1 << 12


class Extension(Record):
    """What .BTF.ext says: lists by section name, sorted by offset in bytes of the section."""

    lines: dict[str, list[tuple[int, SourceLine]]]
    questions: dict[str, list[tuple[int, Question]]]


def read_extension(data: bytes, btf: Btf, path: str = "") -> Extension:
    """Decode all of .BTF.ext. Raises FormatError, with the offset within the section."""
    found = Extension({}, {})
    for number, section, at in iter_extension(data, btf, path):
        if number == 1:
            place, line = _read_line(data, at, btf)
            found.lines.setdefault(section, []).append((place, line))
        elif number == 2:
            question = _read_question(data, at, btf, path)
            found.questions.setdefault(section, []).append((unpack_from("<I", data, at)[0], question))
    for table in (found.lines, found.questions):
        for records in table.values():
            records.sort(key=lambda record: record[0])
    return found


def iter_extension(data: bytes, btf: Btf, path: str = "") -> Iterator[tuple[int, str, int]]:
    """Yield (table, section, place) of each record: table 0 is func_info, 1 line_info, 2 CO-RE. Raises FormatError."""
    if len(data) < 24:
        raise FormatError(f"corrupt .BTF.ext: {len(data)} bytes are too few for a header", path=path)
    magic, version, _, header = unpack_from("<HBBI", data)
    if magic != _MAGIC or version != 1 or header < 24:
        raise FormatError(
            f"corrupt .BTF.ext: magic {magic:#06x}, version {version}, header of {header} bytes", path=path, offset=0
        )
    tables = [unpack_from("<II", data, at) for at in (8, 16, 24) if at + 8 <= min(header, len(data))]
    for number, (offset, size) in enumerate(tables):
        if header + offset + size > len(data):
            raise FormatError(
                f"corrupt .BTF.ext: a table of {size} bytes at {offset} reaches beyond the end",
                path=path,
                offset=8 + 8 * number,
            )
        for section, at in _iter_records(data, header + offset, size, _LEAST[number], btf, path):
            yield number, section, at


def _iter_records(data: bytes, start: int, size: int, least: int, btf: Btf, path: str) -> Iterator[tuple[str, int]]:
    """Yield the section and the place of each record of a table."""
    if not size:
        return
    end = start + size
    step = int.from_bytes(data[start : start + 4], "little")
    if size < 4 or not least <= step <= _MOST_BYTES or step % 4:
        raise FormatError(f"corrupt .BTF.ext: records of {step} bytes", path=path, offset=start)
    at = start + 4
    while at < end:
        if at + 8 > end:
            raise FormatError("corrupt .BTF.ext: a table ends within a section", path=path, offset=at)
        name, count = unpack_from("<II", data, at)
        if not count or at + 8 + count * step > end:
            raise FormatError(f"corrupt .BTF.ext: {count} records of {step} bytes do not fit", path=path, offset=at)
        section = btf.string_at(name)
        for place in range(at + 8, at + 8 + count * step, step):
            yield section, place
        at += 8 + count * step


def _read_line(data: bytes, at: int, btf: Btf) -> tuple[int, SourceLine]:
    place, file, text, where = unpack_from("<IIII", data, at)
    line, column = where >> LINE_COLUMN_BITS, where & (1 << LINE_COLUMN_BITS) - 1
    return place, SourceLine(btf.string_at(file), line, max(column, 1), btf.string_at(text).rstrip("\n"))


def _read_question(data: bytes, at: int, btf: Btf, path: str) -> Question:
    _, ident, access, number = unpack_from("<IIII", data, at)
    if number >= len(KINDS):
        raise FormatError(f"a CO-RE relocation of kind {number} is not known", path=path, offset=at + 12)
    try:
        kind, root = KINDS[number], btf.type_by_id(ident)
        index, steps = read_access(kind, root, btf.string_at(access))
        question = Question(kind, name_type(root), steps, ident, index, root)
        return replace(question, value=local_answer(question) & 0xFFFFFFFFFFFFFFFF)
    except FormatError as error:
        raise FormatError(f"the CO-RE relocation cannot be read: {error.message}", path=path, offset=at) from None


def name_type(ctype: CType) -> str:
    """Return a type's name as CO-RE relocations have it: "struct file", "enum pid_type", "size_t"; "" for one that has none."""
    if isinstance(ctype, (Struct, Forward)):
        return f"{ctype.kind} {ctype.name}"
    if isinstance(ctype, Enum):
        return f"enum {ctype.name}"
    return ctype.name if isinstance(ctype, (Typedef, Int, Float, Array)) else ""
