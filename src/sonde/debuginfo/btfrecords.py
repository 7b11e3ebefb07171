"""BTF records as they stand, to records of a `BtfWriter`, of every kind: what linking, splitting and deduplicating BTF works on.

A record's words are numbers, offsets of names, or numbers of types; which is which follows from its kind alone. Format: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .btf import Btf
    from .btfwrite import BtfWriter, Entry, Item

# What the words of a record are, by kind: n a name, w a number, t a type; those before the entries, and those of each entry.
_SHAPES = (
    ("nww", ""), ("nwww", ""), ("nwt", ""), ("nwwttw", ""), ("nww", "ntw"), ("nww", "ntw"), ("nww", "nw"), ("nww", ""),
    ("nwt", ""), ("nwt", ""), ("nwt", ""), ("nwt", ""), ("nwt", ""), ("nwt", "nt"), ("nwtw", ""), ("nww", "tww"),
    ("nww", ""), ("nwtw", ""), ("nwt", ""), ("nww", "nww"),
)  # fmt: skip
_DECL_TAG = 17


def read_record(words: Sequence[int], name: Callable[[int], str], ref: Callable[[int], Item]) -> Entry:
    """Return one record with its names and its references in place of their numbers."""
    fixed, entry = _SHAPES[words[1] >> 24 & 31]
    shape = fixed + entry * ((len(words) - len(fixed)) // len(entry)) if entry else fixed
    made: Entry = []
    for letter, word in zip(shape, words):
        made.append(word if letter == "w" else name(word) if letter == "n" else ref(word))
    return made


def add_btf(
    writer: BtfWriter, btf: Btf, given: Mapping[int, int] | None = None, own: Iterable[int] = ()
) -> dict[int, int]:
    """Add all types of `btf` as they are, those of its base excluded; return the node of each by its number.

    `given` are nodes that stand for types already (-1: for none), whose records are not added, but for those in `own`; tags of what is left out are
    left out. Types of the base are looked up in the writer's own base. Raises FormatError for a reference to a type that does not exist.
    """
    given = given or {}
    first, count = btf.first_id, btf.count_types()
    fresh = [ident for ident in range(first, count + 1) if ident not in given]
    nodes = {0: -1, **given, **dict(zip(fresh, writer.reserve(len(fresh))))}

    def ref(ident: int) -> Item:
        if ident < first:
            return (writer.based(ident),) if ident else ()
        node = nodes.get(ident)
        if node is None:
            btf.kind_of(ident)  # raises
        return (node,) if node is not None and node >= 0 else ()

    for ident in (*fresh, *own):
        words = btf.record(ident)
        record = read_record(words, btf.string_at, ref)
        if words[1] >> 24 & 31 != _DECL_TAG or record[2]:
            writer.put(nodes[ident], record)
    return nodes
