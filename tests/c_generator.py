"""Random C: functions `long test(long *io)` that are defined for every input, for comparison with gcc (which gets -fwrapv).

Divisors are never 0 or -1, counts of shifts are masked, loops have bounds, indices are masked.
"""

from __future__ import annotations

import random

TYPES = ("s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64", "_Bool")
LARGE = ("__int128", "unsigned __int128")
BINARY = ("+", "-", "*", "&", "|", "^", "<", "<=", ">", ">=", "==", "!=", "&&", "||")
CONSTANTS = ("0", "1", "2", "7", "-1", "100", "255", "256u", "65535", "0x7fffffff", "0x80000000", "0xffffffffu", "-128",
             "0x123456789abL", "0x8000000000000000", "1ul", "'c'", "-5L")  # fmt: skip
FIELDS = ("a", "b", "c", "d", "e", "f")
STRUCT = """struct rec { s8 a; u32 b : 5; s32 c : 11; u64 d; u16 e[4]; s64 f : 40; };
"""


class CGenerator:
    """One function for each seed."""

    def __init__(self, seed: int, size: int = 20) -> None:
        self.random = random.Random(seed)
        self.size = size
        self.variables: list[str] = []
        self.fixed: list[str] = []  # loop counters: read only
        self.helpers: list[tuple[str, int]] = []
        self.count = 0

    def make(self) -> str:
        """Return the text."""
        parts = [STRUCT, *(self._helper() for _ in range(self.random.randrange(3)))]
        body = ["struct rec r = {}, s = {};", "int i = 8;"]
        for n in range(4):
            for kind in self.random.sample(TYPES, 2):
                name = f"v{len(self.variables)}"
                body.append(f"{kind} {name} = io[{n}];")
                self.variables.append(name)
        if self.random.random() < 0.4:
            body.append(f"{self.random.choice(LARGE)} big = (unsigned __int128)io[0] << 64 | (u64)io[1];")
            self.variables.append("big")
        body += self._block(self.size, 0)
        outputs = [
            *self.variables,
            "r.a",
            "r.b",
            "r.c",
            "r.d",
            "r.f",
            "r.e[0]",
            "r.e[1]",
            "r.e[2]",
            "r.e[3]",
            "s.d + s.e[1]",
        ]
        body += [f"io[{8 + at}] = {self._as_long(name)};" for at, name in enumerate(outputs)]
        if "big" in self.variables:
            body.append("io[50] = (s64)(big >> 64);")
        body.append("return i + " + self.expression(2) + ";")
        return "\n".join([*parts, "long test(long *io)", "{", *("    " + line for line in body), "}", ""])

    def _as_long(self, name: str) -> str:
        return f"(s64)({name})"

    def _helper(self) -> str:
        name, count = f"help{len(self.helpers)}", self.random.randint(1, 4)
        kinds = [self.random.choice(TYPES) for _ in range(count)]
        saved, self.variables = self.variables, [f"p{n}" for n in range(count)]
        body = f"if ({self.expression(1, False)}) return {self.expression(2, False)}; {self.random.choice(self.variables)}++;"
        text = (
            f"static {self.random.choice(TYPES)} {name}({', '.join(f'{k} p{n}' for n, k in enumerate(kinds))})\n"
            f"{{ {body} return {self.expression(3, False)}; }}\n"
        )
        self.variables = saved
        self.helpers.append((name, count))
        return text

    # statements ---------------------------------------------------------------------------------------------------

    def _block(self, budget: int, depth: int) -> list[str]:
        lines: list[str] = []
        while budget > 0:
            kind = self.random.random()
            if kind < 0.55 or depth > 2:
                lines.append(self._assignment() + ";")
                budget -= 1
            elif kind < 0.75:
                lines.append(f"if ({self.expression(2)}) {{")
                lines += self._indented(self._block(self.random.randint(1, 4), depth + 1))
                if self.random.random() < 0.5:
                    lines.append("} else {")
                    lines += self._indented(self._block(self.random.randint(1, 3), depth + 1))
                lines.append("}")
                budget -= 5
            elif kind < 0.88:
                lines += self._loop(depth)
                budget -= 6
            else:
                lines += self._switch(depth)
                budget -= 6
        return lines

    def _indented(self, lines: list[str]) -> list[str]:
        return ["    " + line for line in lines]

    def _loop(self, depth: int) -> list[str]:
        self.count += 1
        name = f"n{self.count}"
        rounds = self.random.randint(1, 5)
        self.fixed.append(name)
        body = self._indented(self._block(self.random.randint(1, 4), depth + 1))
        if self.random.random() < 0.3:
            body.insert(
                self.random.choice((0, len(body))),
                f"    if ({self.expression(1)}) {self.random.choice(('break', 'continue'))};",
            )
        self.fixed.pop()
        if self.random.random() < 0.5:
            return [f"for (int {name} = 0; {name} < {rounds}; {name}++) {{", *body, "}"]
        return [f"int {name} = {rounds};", f"while ({name}-- > 0) {{", *body, "}"]

    def _switch(self, depth: int) -> list[str]:
        labels = self.random.sample(range(-2, 12), self.random.randint(1, 4))
        lines = [f"switch ({self.expression(1)} & 15) {{"]
        for label in labels:
            last = (
                f" ... {label + 2}" if self.random.random() < 0.2 and not {label + 1, label + 2} & set(labels) else ""
            )
            lines.append(f"case {label}{last}:")
            labels = [*labels, label + 1, label + 2] if last else labels
            lines += self._indented(self._block(self.random.randint(1, 2), depth + 1))
            if self.random.random() < 0.7:
                lines.append("    break;")
        lines.append("default:")
        lines += self._indented(self._block(1, depth + 1))
        return [*lines, "}"]

    def _assignment(self) -> str:
        target = self._target()
        kind = self.random.random()
        if kind < 0.15:
            return (
                self.random.choice(("++", "--")) + target
                if self.random.random() < 0.5
                else target + self.random.choice(("++", "--"))
            )
        if kind < 0.3:
            op = self.random.choice(("+", "-", "*", "&", "|", "^"))
            return f"{target} {op}= {self.expression(2)}"
        if kind < 0.36:
            return self.random.choice(("s = r", "r = s", "s.d = r.d = " + self.expression(1)))
        return f"{target} = {self.expression(3)}"

    def _target(self) -> str:
        kind = self.random.random()
        if kind < 0.7:
            return self.random.choice(self.variables)
        return self.random.choice(
            ("r.a", "r.b", "r.c", "r.d", "r.f", "r.e[2]", f"r.e[{self.random.choice(self.variables[:8])} & 3]")
        )

    # expressions --------------------------------------------------------------------------------------------------

    def expression(self, depth: int, records: bool = True) -> str:
        """Return an expression of some integer type."""
        if depth <= 0 or self.random.random() < 0.15:
            return self._leaf(records)
        a, b = self.expression(depth - 1, records), self.expression(depth - 1, records)
        kind = self.random.random()
        if kind < 0.5:
            return f"({a} {self.random.choice(BINARY)} {b})"
        if kind < 0.58:
            return f"((s64)({a}) {self.random.choice(('/', '%'))} (((s64)({b}) & 63) + 2))"
        if kind < 0.63:
            return f"((u32)({a}) {self.random.choice(('/', '%'))} (((u32)({b}) & 0xffff) | 1))"
        if kind < 0.73:
            return f"(({self.random.choice(TYPES[:8])})({a}) {self.random.choice(('<<', '>>'))} ((u32)({b}) & 7))"
        if kind < 0.8:
            return f"(({self.random.choice(TYPES)})({a}))"
        if kind < 0.87:
            return f"({self.random.choice(('-', '~', '!', '+'))} {a})"
        if kind < 0.94:
            return f"({a} ? {b} : {self.expression(depth - 1, records)})"
        if self.helpers and records:
            name, count = self.random.choice(self.helpers)
            return f"{name}({', '.join(self.expression(depth - 2, records) for _ in range(count))})"
        return f"({a}, {b})"

    def _leaf(self, records: bool) -> str:
        kind = self.random.random()
        if kind < 0.25:
            return self.random.choice(CONSTANTS)
        if kind < 0.4 and records:
            return self.random.choice(("r.a", "r.b", "r.c", "r.d", "r.f", "r.e[1]", "s.d", "s.e[2]"))
        if kind < 0.5 and self.fixed and records:
            return self.random.choice(self.fixed)
        return self.random.choice(self.variables)
