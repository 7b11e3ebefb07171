"""Listings of kernel types: `struct iov*`, `union x`, `enum y`, `typedef z`, as names or as C definitions."""

from __future__ import annotations

from .functions import iter_btfs
from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..debuginfo.btf import Btf
    from .scope import Scope

KEYWORDS = {"struct": ("struct",), "union": ("union",), "enum": ("enum", "enum64"), "typedef": ("typedef",)}


def names_type(text: str) -> bool:
    """Tell whether a pattern asks for types: it begins with a keyword of C, and a blank."""
    keyword, blank, name = text.partition(" ")
    return keyword in KEYWORDS and bool(blank) and bool(name.strip())


def iter_types(text: str, scope: Scope, *, verbose: bool) -> Iterator[str]:
    """Yield `struct iovec` for each match; with `verbose` the lines of its definition, and an empty one."""
    keyword, _, pattern = text.partition(" ")
    pattern = pattern.strip()
    for module, btf in iter_btfs("", scope):
        for name in _match(btf, keyword, pattern):
            if not verbose:
                yield f"{keyword} {name}"
                continue
            definition = _define(btf, keyword, name)
            if definition:
                yield from f"{module}: {definition}".split("\n")
                yield ""


def _match(btf: Btf, keyword: str, pattern: str) -> list[str]:
    if not has_wildcard(pattern):
        return [pattern] if btf.get_type(_spell(keyword, pattern)) is not None else []
    matches = make_matcher(pattern)
    return sorted({name for _, name in btf.iter_names(KEYWORDS[keyword]) if matches(name)})


def _spell(keyword: str, name: str) -> str:
    return name if keyword == "typedef" else f"{keyword} {name}"


def _define(btf: Btf, keyword: str, name: str) -> str:
    from ..debuginfo.btfdump import definition

    ctype = btf.get_type(_spell(keyword, name))
    return definition(ctype) if ctype is not None else ""
