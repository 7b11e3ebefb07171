"""Assembly text to machine code: the notation that `disasm` prints, with labels.

One instruction a line; `;` and `//` start a comment. A line may begin with what the disassembler puts there ("  3: (bf)"), then
with labels ("again:"). Jump targets are `pc+3`, `+3` (slots from the next instruction on) or labels; a call names a
helper (`call map_lookup_elem`, `call bpf_map_lookup_elem#1`, `call 1`), a label or target, or `kfunc#ID`.

Each text of the table in `isa` becomes a pattern of tokens; a line is looked up by its own pattern.
"""

from __future__ import annotations

from ..errors import CompileError, Diagnostic, Span
from .helpers import HELPERS
from .isa import BPF_PSEUDO_CALL, BPF_PSEUDO_KFUNC_CALL, CALL, FRAME_POINTER, FREE, LDDW, LOW, Insn, iter_ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from re import Pattern

    from .isa import Op

    Fields = dict[str, int]

_TOKEN = (
    r"(?P<space>\s+)"
    r"|(?P<comment>;.*|//.*)"
    r"|(?P<target>pc[+-]\d+)"
    r"|(?P<numbered>\w+\#-?\d+(?:[+-]\d+)?)"
    r"|(?P<reg>[rw]\d+\b)"
    r"|(?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d+)\b)"
    r"|(?P<punct>s(?:>>=|[<>/%]=|[<>])|<<=|>>=|[-+*/%&|^=!<>]=|[-+*&=<>()\[\]:,])"
    r"|(?P<word>[A-Za-z_.][\w.]*)"
)
_PREFIX = r"\s*(?:\d+:\s*)?(?:\([0-9a-f]{2}\)\s*)?"
_LABEL = r"\s*([A-Za-z_.][\w.]*):(?!\w)"

_JUMPS = ("goto", "gotol", "may_goto")
_PLACEHOLDERS = {
    "rd": ("r", "dst"), "rs": ("r", "src"), "wd": ("w", "dst"), "ws": ("w", "src"), "pc": ("@", "off"), "far": ("@", "imm"),
    "imm": ("#", "imm"), "hex": ("#", "imm"), "low": ("#", "low"), "high": ("#", "high"), "to": ("#", "to"), "as": ("#", "as"),
}  # fmt: skip
_RANGES = {
    "off": (-(1 << 15), (1 << 15) - 1), "imm": (-(1 << 31), (1 << 32) - 1), "low": (-(1 << 31), (1 << 32) - 1),
    "high": (-(1 << 31), (1 << 32) - 1), "to": (0, 0xFFFF), "as": (0, 0xFFFF), "wide": (-(1 << 63), (1 << 64) - 1),
}  # fmt: skip


class _Token:
    """`shape` is what a pattern sees of it: "r" and "w" for registers, "#" for numbers, "@" for targets, or its text."""

    __slots__ = ("column", "kind", "shape", "text")

    def __init__(self, kind: str, text: str, column: int) -> None:
        self.kind = kind
        self.text = text
        self.column = column
        self.shape = {"reg": text[0], "number": "#", "target": "@"}.get(kind, text)


def assemble(text: str, name: str = "<assembly>") -> list[Insn]:
    """Return the instructions of `text`. Raises CompileError, with a diagnostic for each line that is wrong."""
    return _Assembler(text, name).run()


class _Assembler:
    def __init__(self, text: str, name: str) -> None:
        self.lines = text.splitlines()
        self.name = name
        self.number = 0  # of the current line, from 1
        self.diagnostics: list[Diagnostic] = []
        self.labels: dict[str, int] = {}
        self.insns: list[Insn] = []
        self.pcs: list[int] = []
        self.open: list[tuple[int, str, _Token, int]] = []  # instruction, field, label, line

    def run(self) -> list[Insn]:
        pc = 0
        patterns = _patterns()
        for line in self.lines:
            self.number += 1
            try:
                start = self.take_labels(line, pc)
                tokens = self.tokenise(line, start, patterns.token)
                if tokens:
                    self.pcs.append(pc)
                    self.insns.append(self.parse(tokens, patterns))
                    pc += self.insns[-1].slots
            except CompileError as error:
                self.diagnostics += error.diagnostics
                if len(self.pcs) > len(self.insns):
                    self.pcs.pop()
        for index, field, token, number in self.open:
            self.number = number
            self.resolve(index, field, token)
        if self.diagnostics:
            raise CompileError(self.diagnostics)
        return self.insns

    def error(self, message: str, column: int, width: int = 1, hint: str = "") -> CompileError:
        span = Span(self.name, self.number, column, self.number, column + width)
        return CompileError([Diagnostic("ERROR", message, span, self.lines[self.number - 1], hint)])

    # lines ----------------------------------------------------------------------------------------------------

    def take_labels(self, line: str, pc: int) -> int:
        """Note the labels that `line` begins with; return where the instruction starts."""
        patterns = _patterns()
        match = patterns.prefix.match(line)
        start = match.end() if match else 0
        while match := patterns.label.match(line, start):
            label = match.group(1)
            if label in self.labels:
                raise self.error(f"label {label!r} is defined twice", match.start(1) + 1, len(label))
            self.labels[label] = pc
            start = match.end()
        return start

    def tokenise(self, line: str, start: int, pattern: Pattern[str]) -> list[_Token]:
        tokens: list[_Token] = []
        while start < len(line):
            match = pattern.match(line, start)
            if not match:
                raise self.error(f"a character that has no place here: {line[start]!r}", start + 1)
            kind = match.lastgroup or ""
            if kind not in ("space", "comment"):
                tokens.append(_Token(kind, match.group(), start + 1))
            start = match.end()
        return _join_offsets(_mark_targets(tokens))

    def parse(self, tokens: list[_Token], patterns: _Patterns) -> Insn:
        if tokens[0].text == "call" and len(tokens) == 2:
            return self.parse_call(tokens[1])
        shape = tuple(t.shape for t in tokens)
        op = patterns.ops.get(shape)
        if op is None:
            raise self.no_such_instruction(tokens, shape, patterns)
        fields: Fields = {}
        for token, (slot, fixed) in zip(tokens, patterns.slots[op.name]):
            if slot:
                self.bind(fields, slot, token, op)
            elif fixed >= 0 and _value(token) != fixed:
                raise self.error(
                    f"only {token.text[:1] if token.kind == 'reg' else ''}{fixed} can stand here", token.column
                )
        return _make(op, fields)

    def no_such_instruction(self, tokens: list[_Token], shape: tuple[str, ...], patterns: _Patterns) -> CompileError:
        """Point at the first token after which no instruction goes on like this."""
        known = 0
        while known < len(shape) and shape[: known + 1] in patterns.prefixes:
            known += 1
        if known == len(shape):
            last = tokens[-1]
            return self.error("the instruction is not complete", last.column + len(last.text))
        return self.error(f"no instruction is written like this, from {tokens[known].text!r} on", tokens[known].column,
                          len(tokens[known].text))  # fmt: skip

    # operands -------------------------------------------------------------------------------------------------

    def bind(self, fields: Fields, slot: str, token: _Token, op: Op) -> None:
        """Put the value of `token` into the field that `slot` names."""
        width = len(token.text)
        if token.shape == "@" and token.kind == "word":
            self.open.append((len(self.insns), slot, token, self.number))
            value = 0
        else:
            value = _value(token)
        if slot in ("dst", "src"):
            if value > FRAME_POINTER:
                raise self.error(f"there is no register {token.text}", token.column, width, "registers are r0 to r10")
            if fields.setdefault(slot, value) != value:
                raise self.error(f"both registers must be the same here, r{fields[slot]}", token.column, width)
            return
        low, high = _RANGES["wide" if op.opcode == LDDW and slot == "imm" and token.shape == "#" else slot]
        if not low <= value <= high:
            raise self.error(f"{token.text} is out of range, {low} to {high}", token.column, width)
        fields[slot] = value

    def parse_call(self, token: _Token) -> Insn:
        """A helper by name or number, a kernel function by BTF id, or a place in this code."""
        text = token.text
        if token.kind == "numbered" and text.startswith("kfunc#"):
            number = text[6:]
            at = max(number.rfind("+"), number.rfind("-", 1))
            ident, off = (int(number[:at]), int(number[at:])) if at > 0 else (int(number), 0)
            self.check(token, "imm", ident)
            self.check(token, "off", off)
            return Insn(CALL, 0, BPF_PSEUDO_KFUNC_CALL, off, _wrap(ident))
        if token.kind == "target":
            self.check(token, "imm", _value(token))
            return Insn(CALL, 0, BPF_PSEUDO_CALL, 0, _wrap(_value(token)))
        if token.kind == "number" and text[0] not in "+-":
            self.check(token, "imm", _value(token))
            return Insn(CALL, imm=_wrap(_value(token)))
        name, _, number = text.partition("#")
        helper = HELPERS.get(name.removeprefix("bpf_"))
        if token.kind == "numbered":
            if (helper and str(helper.ident) != number) or (not helper and name != "unknown") or "+" in number:
                raise self.error(f"no helper is called {text}", token.column, len(text))
            self.check(token, "imm", int(number))
            return Insn(CALL, imm=_wrap(int(number)))
        if token.kind == "word" and helper and name not in self.labels:
            return Insn(CALL, imm=helper.ident)
        if token.kind == "word":
            self.open.append((len(self.insns), "imm", token, self.number))
            return Insn(CALL, 0, BPF_PSEUDO_CALL)
        raise self.error(f"{text} cannot be called", token.column, len(text))

    def check(self, token: _Token, field: str, value: int) -> None:
        low, high = _RANGES[field]
        if not low <= value <= high:
            raise self.error(f"{value} is out of range, {low} to {high}", token.column, len(token.text))

    def resolve(self, index: int, field: str, token: _Token) -> None:
        """Fill in the distance to a label."""
        width = len(token.text)
        if token.text not in self.labels:
            from difflib import get_close_matches

            close = get_close_matches(token.text, self.labels, n=1)
            hint = f"did you mean {close[0]}?" if close else ""
            what = "helper or label" if self.insns[index].opcode == CALL else "label"
            self.diagnostics += self.error(f"there is no {what} {token.text}", token.column, width, hint).diagnostics
            return
        distance = self.labels[token.text] - self.pcs[index] - 1
        low, high = _RANGES[field]
        if not low <= distance <= high:
            message = f"{token.text} is {distance} instructions away, further than this jump reaches"
            self.diagnostics += self.error(message, token.column, width, "use gotol").diagnostics
            return
        setattr(self.insns[index], field, distance & 0xFFFFFFFF if self.insns[index].opcode == LDDW else distance)


def _value(token: _Token) -> int:
    if token.kind == "reg":
        return int(token.text[1:])
    text = token.text[2:] if token.kind == "target" else token.text
    return int(text, 16 if "x" in text.lower() else 10)


def _wrap(value: int) -> int:
    """Return a 32-bit value as signed."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def _make(op: Op, fields: Fields) -> Insn:
    fixed = {"dst": op.dst, "src": op.src, "off": op.off, "imm": op.imm}
    dst, src, off, imm = (fields.get(f, 0 if v in (FREE, LOW) else v) for f, v in fixed.items())
    if "to" in fields:
        imm = fields["to"] << 16 | fields["as"]
    if "low" in fields:
        imm = fields["low"] & 0xFFFFFFFF | (fields.get("high", 0) & 0xFFFFFFFF) << 32
    if op.imm == LOW:
        imm &= 0xFFFFFFFF
    return Insn(op.opcode, dst, src, off, imm % (1 << 64) if op.opcode == LDDW else _wrap(imm))


# Tokens to patterns -----------------------------------------------------------------------------------------------


def _mark_targets(tokens: list[_Token]) -> list[_Token]:
    """What follows `goto` or stands in `subprog[]` is a target, also when it is a label or a bare distance."""
    before = ["", "", *(t.text for t in tokens)]
    for token, earlier, last in zip(tokens, before, before[1:]):
        distance = token.kind == "number" and token.text[0] in "+-"
        if (token.kind == "word" or distance) and (last in _JUMPS or (earlier, last) == ("subprog", "[")):
            token.shape = "@"
    return tokens


def _join_offsets(tokens: list[_Token]) -> list[_Token]:
    """LLVM writes the offset of an address as "r1 + 8": join sign and number, as in "r1 +8"."""
    joined: list[_Token] = []
    depth = 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        signed = len(joined) > 1 and joined[-1].text in ("+", "-") and joined[-2].kind == "reg"
        if depth > 0 and token.kind == "number" and token.text[0] not in "+-" and signed:
            sign = joined.pop()
            token = _Token("number", sign.text + token.text, sign.column)
        joined.append(token)
    return joined


class _Patterns:
    """The table as patterns: operations by shape, and of each the fields that its tokens go to."""

    def __init__(self) -> None:
        import re

        self.token = re.compile(_TOKEN)
        self.prefix = re.compile(_PREFIX)
        self.label = re.compile(_LABEL)
        self.ops: dict[tuple[str, ...], Op] = {}
        self.slots: dict[str, list[tuple[str, int]]] = {}
        self.prefixes: set[tuple[str, ...]] = {("call",), ("call", "@")}
        for op in iter_ops():
            if op.opcode != CALL:
                self.add(op)

    def add(self, op: Op) -> None:
        shape: list[str] = []
        slots: list[tuple[str, int]] = []
        text = op.text.replace("{mem}", "{rd}{off}").replace("{from}", "{rs}{off}")
        for literal, name in _split(text):
            for token in self.tokens_of(literal):
                shape.append(token.shape)
                slots.append(("", _value(token) if token.kind in ("reg", "number") else -1))
            if name:
                kind, field = ("#", "off") if name == "off" else _PLACEHOLDERS[name]
                shape.append(kind)
                slots.append((field, -1))
        self.ops[tuple(shape)] = op
        self.slots[op.name] = slots
        self.prefixes.update(tuple(shape[:n]) for n in range(1, len(shape) + 1))

    def tokens_of(self, text: str) -> list[_Token]:
        found = ((m.lastgroup or "", m.group()) for m in self.token.finditer(text))
        return [_Token(kind, piece, 0) for kind, piece in found if kind != "space"]


def _split(text: str) -> list[tuple[str, str]]:
    """Split "a{x}b" into [("a", "x"), ("b", "")]."""
    parts = []
    for piece in text.split("}"):
        literal, _, name = piece.partition("{")
        parts.append((literal, name))
    return parts


_cache: list[_Patterns] = []


def _patterns() -> _Patterns:
    if not _cache:
        _cache.append(_Patterns())
    return _cache[0]
