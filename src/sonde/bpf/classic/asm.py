"""Text to classic BPF: the kernel's bpf_asm notation with labels, and what `tcpdump -d` and `-ddd` print.

ldh [12]                    loads: [k], [x + k], M[k], #k, #len, 4*([k]&0xf), and ancillary data by name (#cpu, #mark …; [vlanp], as tcpdump has it)
jeq #0x800, ip, drop        a jump with both ways, with one (the other goes on), or as "jt 2 jf 5" with numbers of instructions
ip: ret #-1                 a label
"""

from __future__ import annotations

from ...errors import CompileError, Diagnostic, Span
from .code import (
    ABS,
    AD_OFF,
    ALU,
    ANCILLARY,
    ANCILLARY_STEP,
    ANCILLARY_TEXTS,
    IMM,
    IND,
    JMP,
    LD,
    LDX,
    LEN,
    MEM,
    MISC,
    MSH,
    OPERATIONS,
    RET,
    ST,
    STX,
    A,
    B,
    Filter,
    K,
    W,
    X,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from re import Match, Pattern

_SHORT = {"poff": "pay_offset", "type": "pkttype", "ifidx": "ifindex", "nla": "nlattr", "nlan": "nlattr_nest", "proto": "protocol",
          "hatype": "hatype", "rxhash": "rxhash", "cpu": "cpu", "vlan_tci": "vlan_tag", "vlan_pr": "vlan_tag_present",
          "vlan_avail": "vlan_tag_present", "rand": "random", "vlan_tpid": "vlan_tpid", "mark": "mark", "queue": "queue",
          "xor_x": "alu_xor_x"}  # fmt: skip
_NUMBER = r"-?(?:0[xX][0-9a-fA-F]+|\d+)"
_OPERANDS = (
    (rf"#({_NUMBER})", "number"), (r"#(?:pktlen|len)", "length"), (rf"M\[({_NUMBER})\]", "scratch"), (rf"\[({_NUMBER})\]", "absolute"),
    (rf"\[\s*x\s*\+\s*({_NUMBER})\]", "indirect"), (r"\[\s*x\s*\]", "indirect"),
    (rf"4\s*\*\s*\(\s*\[({_NUMBER})\]\s*&\s*0xf\s*\)", "header"), (r"%?x", "x"), (r"%?a", "a"), (r"#([a-z_]+)", "name"), (r"\[([a-z_]+)\]", "data"), (r"", "none"),
)  # fmt: skip
_LINE = r"\s*(?:\(\d+\)\s*)?(?:([A-Za-z_]\w*):\s*)?(?:([a-z]+)\s*(.*?))?\s*(?:[;/].*)?$"


def assemble(text: str, name: str = "<filter>") -> list[Filter]:
    """Return the instructions of `text`. Raises CompileError with a diagnostic for each wrong line."""
    numbers = _read_numbers(text)
    if numbers is not None:
        return numbers
    return _Assembler(text, name).run()


def _read_numbers(text: str) -> list[Filter] | None:
    """The decimal form, of `tcpdump -ddd`; None for other text."""
    rows = [line.split() for line in text.strip().splitlines()]
    if not rows or not all(word.isdigit() for row in rows for word in row) or len(rows[0]) != 1:
        return None
    if int(rows[0][0]) != len(rows) - 1 or any(len(row) != 4 for row in rows[1:]):
        return None
    return [Filter(*map(int, row)) for row in rows[1:]]


class _Assembler:
    def __init__(self, text: str, name: str) -> None:
        import re

        self.lines = text.splitlines()
        self.name = name
        self.line: Pattern[str] = re.compile(_LINE)
        self.operands = [(re.compile(pattern + "$"), kind) for pattern, kind in _OPERANDS]
        self.diagnostics: list[Diagnostic] = []
        self.labels: dict[str, int] = {}
        self.parsed: list[tuple[int, str, str]] = []  # line, operation, operands

    def run(self) -> list[Filter]:
        for number, line in enumerate(self.lines, 1):
            match = self.line.match(line)
            if match is None:
                self.error(number, "this is no instruction")
            else:
                self.take(number, match)
        program = [self.make(at, *each) for at, each in enumerate(self.parsed)]
        if self.diagnostics:
            raise CompileError(self.diagnostics)
        return program

    def take(self, number: int, match: Match[str]) -> None:
        label, operation, operands = match.groups()
        if label:
            if label in self.labels:
                self.error(number, f"label {label!r} is defined twice")
            self.labels[label] = len(self.parsed)
        if operation:
            self.parsed.append((number, operation, operands.strip()))

    def error(self, number: int, message: str, hint: str = "") -> None:
        text = self.lines[number - 1]
        start = len(text) - len(text.lstrip()) + 1
        span = Span(self.name, number, start, number, max(len(text.rstrip()) + 1, start + 1))
        self.diagnostics.append(Diagnostic("ERROR", message, span, text, hint))

    # one line -------------------------------------------------------------------------------------------------

    def make(self, at: int, number: int, operation: str, text: str) -> Filter:
        if operation in _JUMPS or operation in ("ja", "jmp"):
            return self.jump(at, number, operation, text)
        kind, value = self.operand(text)
        code = _CODES.get((operation, kind))
        if kind == "name":
            full = _SHORT.get(value, value)
            if full not in ANCILLARY or operation not in ("ld", "ldh", "ldb", "ldi"):
                self.error(number, f"there is no data called #{value}", f"there are {', '.join(sorted(_SHORT))}")
                return Filter(0)
            return Filter(LD | W | ABS, k=(AD_OFF + ANCILLARY.index(full) * ANCILLARY_STEP) & 0xFFFFFFFF)
        if kind == "data" and value in ANCILLARY_TEXTS and (operation, "absolute") in _CODES:
            offset = AD_OFF + ANCILLARY_TEXTS.index(value) * ANCILLARY_STEP
            return Filter(_CODES[operation, "absolute"], k=offset & 0xFFFFFFFF)
        if code is None:
            known = any(name == operation for name, _ in _CODES)
            self.error(
                number, f"{operation} takes no operand {text!r}" if known else f"there is no operation {operation!r}"
            )
            return Filter(0)
        if not -(1 << 31) <= int(value or "0", 0) < 1 << 32:
            self.error(number, f"{value} does not fit into 32 bits")
        return Filter(code, k=int(value or "0", 0) & 0xFFFFFFFF)

    def operand(self, text: str) -> tuple[str, str]:
        for pattern, kind in self.operands:
            match = pattern.match(text)
            if match:
                return kind, match.group(1) if match.lastindex else ""
        return "unknown", ""

    def jump(self, at: int, number: int, operation: str, text: str) -> Filter:
        import re

        if operation in ("ja", "jmp"):
            target = self.target(number, text)
            return Filter(JMP, k=(target - at - 1) & 0xFFFFFFFF)
        both = re.match(r"(.*?)\s+jt\s+(\d+)\s+jf\s+(\d+)$", text)
        words = [both[1], both[2], both[3]] if both else [word.strip() for word in text.split(",")]
        kind, value = self.operand(words[0])
        turned, op = _JUMPS[operation]
        if kind not in ("number", "x") or not 2 <= len(words) <= 3:
            self.error(number, f"{operation} needs a number or x, and one or two targets")
            return Filter(0)
        targets = [self.target(number, word) for word in words[1:]]
        yes, no = targets[0], targets[1] if len(targets) > 1 else at + 1
        if turned:
            yes, no = no, yes
        distances = (yes - at - 1, no - at - 1)
        if not all(0 <= distance < 256 for distance in distances):
            self.error(number, "a conditional jump goes forward, by 255 instructions at most", "use ja for more")
            return Filter(0)
        return Filter(JMP | op | (X if kind == "x" else K), *distances, int(value or "0", 0) & 0xFFFFFFFF)

    def target(self, number: int, word: str) -> int:
        if word.isdigit():
            return int(word)
        if word not in self.labels:
            from difflib import get_close_matches

            close = get_close_matches(word, self.labels, 1)
            self.error(number, f"there is no label {word!r}", f"did you mean {close[0]}?" if close else "")
            return len(self.parsed)
        return self.labels[word]


# Operations by name and kind of operand. Jumps: (ways exchanged, operation).
_JUMPS = {"jeq": (False, 0x10), "jne": (True, 0x10), "jneq": (True, 0x10), "jgt": (False, 0x20), "jge": (False, 0x30),
          "jlt": (True, 0x30), "jle": (True, 0x20), "jset": (False, 0x40)}  # fmt: skip


def _codes() -> dict[tuple[str, str], int]:
    table = {
        ("ld", "number"): LD | IMM, ("ldi", "number"): LD | IMM, ("ldx", "number"): LDX | IMM, ("ldxi", "number"): LDX | IMM,
        ("ld", "length"): LD | W | LEN, ("ldx", "length"): LDX | W | LEN, ("ld", "scratch"): LD | MEM, ("ldx", "scratch"): LDX | MEM,
        ("st", "scratch"): ST, ("stx", "scratch"): STX, ("ldxb", "header"): LDX | MSH | B, ("ldx", "header"): LDX | MSH | B,
        ("tax", "none"): MISC, ("txa", "none"): MISC | 0x80, ("neg", "none"): ALU | 0x80, ("ret", "number"): RET | K,
        ("ret", "a"): RET | A, ("ret", "none"): RET | A, ("ret", "x"): RET | X,
    }  # fmt: skip
    for size, suffix in ((W, ""), (0x08, "h"), (B, "b")):
        table["ld" + suffix, "absolute"] = LD | size | ABS
        table["ld" + suffix, "indirect"] = LD | size | IND
    for code, (name, operand) in OPERATIONS.items():
        if code & 7 == ALU and operand:
            table[name, "x" if operand == "x" else "number"] = code
    return table


_CODES = _codes()
