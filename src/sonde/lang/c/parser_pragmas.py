"""What a #pragma says to the compiler: how often to unroll the next loop, and how closely to pack structs.

Spellings are those of clang and gcc; others (`diagnostic`, `once` …) say nothing about the program and are passed over.
"""

from __future__ import annotations

_OURS = ("unroll", "nounroll", "pack")


def _words(text: str) -> list[str]:
    """Split into words, numbers and parentheses."""
    for mark in "(),":
        text = text.replace(mark, f" {mark} ")
    return text.split()


def is_pragma_for_us(text: str) -> bool:
    """Whether the text behind `#pragma` changes what the program means or how it is compiled."""
    words = _words(text)
    if words[:1] == ["GCC"]:
        return words[1:2] == ["unroll"]
    return words[:2] == ["clang", "loop"] or words[:1] in ([w] for w in _OURS)


class Pragmas:
    """The state that pragmas leave: `pack` is the largest alignment of a member, 0 where there is no limit."""

    def __init__(self) -> None:
        self.pack = 0
        self._stack: list[int] = []

    def take(self, text: str) -> int | None:
        """Take a pragma in; return how the next loop is unrolled (see `ast.While`), or None. Raises ValueError."""
        words = _words(text)
        if words[0] == "pack":
            self._take_pack(words[1:], text)
            return None
        if words[0] in ("GCC", "clang"):
            del words[0]
        if words[0] == "nounroll":
            return 1
        if words[0] == "loop":
            return _loop_hint(words[1:], text)
        return _count([w for w in words[1:] if w not in "()"], text)

    def _take_pack(self, words: list[str], text: str) -> None:
        arguments = [w for w in words if w not in "(),"]
        if arguments[:1] == ["push"]:
            self._stack.append(self.pack)
            del arguments[0]
        elif arguments[:1] == ["pop"]:
            self.pack = self._stack.pop() if self._stack else 0
            return
        elif not arguments:
            self.pack = 0
        for argument in arguments:
            if argument not in ("1", "2", "4", "8", "16"):
                raise ValueError(f"expected push, pop, 1, 2, 4, 8 or 16 in '#pragma {text}', found '{argument}'")
            self.pack = int(argument)


def _count(words: list[str], text: str) -> int:
    if not words or words == ["full"]:
        return -1
    if len(words) != 1 or not words[0].isdecimal() or len(words[0]) > 9:
        raise ValueError(f"expected a number of rounds in '#pragma {text}', found '{' '.join(words)}'")
    return int(words[0]) or 1


def _loop_hint(words: list[str], text: str) -> int | None:
    """`unroll(full)`, `unroll(enable)`, `unroll(disable)`, `unroll_count(N)`; other hints are about vectors."""
    arguments = [w for w in words if w not in "()"]
    if arguments[:1] == ["unroll_count"]:
        return _count(arguments[1:2], text)
    if arguments[:1] != ["unroll"]:
        return None
    return {"disable": 1, "enable": 0}.get("".join(arguments[1:2]), -1)
