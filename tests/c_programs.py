"""Random C programs whose behaviour C and its compilers agree upon, with `-fwrapv`: what `c_conformance` runs.

Nothing undefined is written: divisors are never zero (nor -1), shifts stay below the width, indices stay in their arrays, nothing is read
before it is written, and an expression changes nothing. Bit-fields are of `int` and narrower: what a wider one is promoted to is a
matter of taste between gcc and clang.
"""

from __future__ import annotations

from random import Random

TYPES = ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64", "_Bool", "enum e"]
WIDTH = {"u8": 8, "s8": 8, "u16": 16, "s16": 16, "u32": 32, "s32": 32, "u64": 64, "s64": 64, "_Bool": 1, "enum e": 32}
INT128 = ["__int128", "unsigned __int128"]
CONSTANTS = [
    "0", "1", "2", "3", "7", "10", "31", "100", "127", "128", "255", "256", "1000", "32767", "32768", "65535", "65536", "2147483647",
    "2147483648", "4294967295", "4294967296", "0x7fffffff", "0x80000000", "0xffffffff", "0x7fffffffffffffff", "0x8000000000000000",
    "0xffffffffffffffff", "1u", "5ul", "77ll", "'a'", "'\\xff'", "E1", "E2",
]  # fmt: skip


class Variable:
    """A name with its type; `kind` is "scalar", "array" (of 8), "struct", "pointer" (to a scalar)."""

    def __init__(self, name: str, ctype: str, kind: str = "scalar") -> None:
        self.name = name
        self.ctype = ctype
        self.kind = kind


class ProgramMaker:
    """Makes one program."""

    def __init__(self, seed: int, *, wide: bool = False) -> None:
        self.random = Random(seed)
        self.wide = wide
        self.types = TYPES + INT128 * wide
        self.variables: list[Variable] = []
        self.functions: list[tuple[str, str, list[str]]] = []
        self.count = 0
        self.loops = 0  # nesting
        self.budget = 0
        self.lines: list[str] = []

    # choices ------------------------------------------------------------------------------------------------------

    def flip(self, odds: float) -> bool:
        return self.random.random() < odds

    def new_name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def of_kind(self, *kinds: str) -> list[Variable]:
        return [v for v in self.variables if v.kind in kinds]

    # expressions --------------------------------------------------------------------------------------------------

    def expression(self, depth: int = 3) -> str:
        """An expression of an arithmetic type, in parentheses where it needs them."""
        if depth <= 0 or self.flip(0.15):
            return self.leaf()
        kind = self.random.randrange(12)
        if kind < 4:
            op = self.random.choice(["+", "-", "*", "&", "|", "^"])
            return f"({self.expression(depth - 1)} {op} {self.expression(depth - 1)})"
        if kind == 4:
            op = self.random.choice(["<", ">", "<=", ">=", "==", "!=", "&&", "||"])
            return f"({self.expression(depth - 1)} {op} {self.expression(depth - 1)})"
        if kind == 5:
            return self.shift(depth)
        if kind == 6:
            return self.division(depth)
        if kind == 7:
            return f"({self.random.choice(['-', '~', '!', '+'])}{self.expression(depth - 1)})"
        if kind == 8:
            return f"(({self.random.choice(self.types)}){self.expression(depth - 1)})"
        if kind == 9:
            return f"({self.expression(depth - 1)} ? {self.expression(depth - 1)} : {self.expression(depth - 1)})"
        if kind == 10 and self.functions:
            return self.call(depth)
        if kind == 11:
            return self.odd_one(depth)
        return self.leaf()

    def leaf(self) -> str:
        choice = self.random.randrange(8)
        if choice == 0 or not self.variables:
            return self.random.choice(CONSTANTS)
        if choice == 1:
            return f"p->in[{self.random.randrange(8)}]"
        return self.value_of(self.random.choice(self.variables))

    def value_of(self, variable: Variable) -> str:
        """The value of a variable, or of a part of it."""
        if variable.kind == "array":
            return f"{variable.name}[{self.index()}]"
        if variable.kind == "struct":
            return variable.name + self.random.choice(MEMBERS)
        return f"(*{variable.name})" if variable.kind == "pointer" else variable.name

    def index(self) -> str:
        """An index below 8."""
        if self.flip(0.5):
            return str(self.random.randrange(8))
        scalars = self.of_kind("scalar")
        return f"{self.random.choice(scalars).name} & 7" if scalars else "p->in[1] & 7"

    def shift(self, depth: int) -> str:
        """A shift by less than the width of what is shifted: of a type that promotion does not change."""
        ctype = self.random.choice(["u32", "s32", "u64", "s64", *(t for t in self.types if t in INT128)])
        most = {"u32": 31, "s32": 31}.get(ctype, 63 if ctype not in INT128 else 127)
        count = f"({self.expression(depth - 2)} & {most})" if self.flip(0.6) else str(self.random.randrange(most + 1))
        return f"(({ctype}){self.expression(depth - 1)} {self.random.choice(['<<', '>>'])} {count})"

    def division(self, depth: int) -> str:
        op = self.random.choice(["/", "%"])
        dividend = self.expression(depth - 1)
        kind = self.random.randrange(3)
        if kind == 0:
            return f"({dividend} {op} {self.random.choice(['2', '3', '7', '10', '16', '255', '1000', '-3', '-10', '3u', '5ul'])})"
        if kind == 1:
            return f"({dividend} {op} (({self.expression(depth - 2)} & 15) + 1))"
        ctype = self.random.choice(["u32", "u64", *(["unsigned __int128"] if self.wide else [])])
        return f"(({ctype}){dividend} {op} (({ctype}){self.expression(depth - 2)} | 1))"

    def narrow(self, text: str) -> str:
        """An expression that is at most 64 bits wide: a wider one cannot choose a case."""
        return f"(({self.random.choice(['s64', 'u64', 'int'])}){text})" if self.wide else text

    def call(self, depth: int) -> str:
        name, _, params = self.random.choice(self.functions)
        return f"{name}({', '.join(self.expression(min(depth, 2) - 1) for _ in params)})"

    def odd_one(self, depth: int) -> str:
        """GNU's and other rarer forms."""
        kind = self.random.randrange(13)
        ctype = self.random.choice(self.types)
        if kind >= 6:
            return self.builtin(kind, depth)
        if kind == 0:
            name = self.new_name("t")
            return f"({{ {ctype} {name} = {self.expression(depth - 1)}; {name} + {self.leaf()}; }})"
        if kind == 1:
            return f"({self.expression(depth - 1)} ?: {self.expression(depth - 1)})"
        if kind == 2:
            return f"sizeof({self.random.choice([ctype, 'struct s', 'struct s[3]', 'struct io'])})"
        if kind == 3:
            return f"((typeof({self.leaf()})){self.expression(depth - 1)})"
        if kind == 4:
            values = ", ".join(self.expression(0) for _ in range(4))
            return f"(({ctype}[]){{ {values} }})[{self.leaf()} & 3]"
        return (
            f"((struct s){{ .b = {self.expression(0)}, .f = {self.expression(0)} }}){self.random.choice(['.b', '.f'])}"
        )

    def builtin(self, kind: int, depth: int) -> str:
        """Builtins, pointers into arrays, strings, constants of the compiler."""
        inner = self.expression(depth - 1)
        arrays = self.of_kind("array")
        if kind in (6, 7) and arrays:
            array = self.random.choice(arrays).name
            first, second = self.random.randrange(4), self.random.randrange(4)
            return self.random.choice(
                [
                    f"*({array} + ({inner} & 7))",
                    f"(&{array}[{first}])[{second}]",
                    f"(&{array}[{first + 4}] - &{array}[{second}])",
                    f"({array} + {first} < {array} + {second})",
                    f"(({self.leaf()} & 7) [{array}])",
                    f"(&{array}[7])[-{first}]",
                ]
            )
        if kind == 8:
            return f'"dtrace"[{inner} & 3]'
        if kind == 9:
            width = self.random.choice(["16", "32", "64"])
            return f"__builtin_bswap{width}({inner})"
        if kind == 10:
            name, ctype = self.random.choice(
                [("popcount", "u32"), ("popcountll", "u64"), ("ffs", "int"), ("ffsll", "s64"), ("parity", "u32")]
            )
            return f"__builtin_{name}(({ctype}){inner})"
        if kind == 11:
            name, ctype = self.random.choice([("clz", "u32"), ("clzll", "u64"), ("ctz", "u32"), ("ctzll", "u64")])
            return f"__builtin_{name}(({ctype}){inner} | 1)"
        if kind == 12:
            return f"__builtin_expect(!!({inner}), {self.random.randrange(2)})"
        return f"table[{inner} & 7]"

    # statements ---------------------------------------------------------------------------------------------------

    def target(self) -> str:
        """Something that may be assigned to."""
        if self.flip(0.25):
            return f"p->out[{self.random.randrange(24)}]"
        return self.value_of(self.random.choice(self.variables))

    def emit(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)

    def statement(self, depth: int) -> None:
        """Write one statement."""
        self.budget -= 1
        nested = depth < 4 and self.budget > 0
        kind = self.random.randrange(19)
        if kind < 5 or not nested:
            self.assignment(depth)
        elif kind == 5:
            self.declaration(depth)
        elif kind in (6, 7, 8):
            self.branch(depth)
        elif kind in (9, 10) and self.loops < 2:
            self.loop(depth)
        elif kind == 11:
            self.switch(depth)
        elif kind == 12 and self.loops:
            self.emit(depth, f"if ({self.expression(2)}) {self.random.choice(['break', 'continue'])};")
        elif kind == 12:
            self.skip(depth)
        elif kind == 13:
            self.struct_copy(depth)
        elif kind == 14:
            self.emit(depth, f"{self.random.choice(['', '++', '--'])}{self.target()};")
        elif kind == 15:
            self.side_effects(depth)
        elif kind == 16:
            self.by_pointer(depth)
        elif kind == 17:
            self.whole_memory(depth)
        else:
            self.assignment(depth)

    def assignment(self, depth: int) -> None:
        target = self.target()
        kind = self.random.randrange(8)
        if kind < 5:
            self.emit(depth, f"{target} = {self.expression()};")
        elif kind == 5:
            divided = self.random.choice(["/=", "%="])
            self.emit(depth, f"{target} {divided} ({self.expression(1)} & 15) + 1;")
        elif kind == 6:
            self.emit(depth, f"{target} {self.random.choice(['<<=', '>>='])} {self.expression(1)} & 7;")
        else:
            self.emit(
                depth, f"{target} {self.random.choice(['+=', '-=', '*=', '&=', '|=', '^='])} {self.expression(2)};"
            )

    def declaration(self, depth: int) -> None:
        kind = self.random.randrange(6)
        ctype = self.random.choice(self.types)
        scalars = [v for v in self.of_kind("scalar") if v.name[0] in "vw"]
        if kind == 0 and len(self.of_kind("array")) < 2 and ctype not in INT128:
            name = self.new_name("a")
            values = ", ".join(self.expression(1) for _ in range(self.random.randrange(1, 9)))
            self.emit(depth, f"{ctype} {name}[8] = {{ {values} }};")
            self.variables.append(Variable(name, ctype, "array"))
        elif kind == 1 and len(self.of_kind("struct")) < 3:
            name = self.new_name("s")
            self.emit(
                depth,
                f"struct s {name} = {{ {self.expression(1)}, .c = {self.expression(1)}, .in.y = {self.expression(1)} }};",
            )
            self.variables.append(Variable(name, "struct s", "struct"))
        elif kind == 2 and scalars:
            aim = self.random.choice(scalars)
            name = self.new_name("q")
            self.emit(depth, f"{aim.ctype} *{name} = &{aim.name};")
            self.variables.append(Variable(name, aim.ctype, "pointer"))
        else:
            name = self.new_name("v")
            self.emit(depth, f"{ctype} {name} = {self.expression()};")
            self.variables.append(Variable(name, ctype))

    def struct_copy(self, depth: int) -> None:
        structs = self.of_kind("struct")
        if len(structs) < 2:
            self.assignment(depth)
            return
        left, right = self.random.sample(structs, 2)
        kind = self.random.randrange(3)
        if kind == 0:
            self.emit(depth, f"{left.name} = {right.name};")
        elif kind == 1:
            self.emit(
                depth, f"{left.name} = (struct s){{ .a = {self.expression(1)}, .w = {{ {self.expression(1)} }} }};"
            )
        else:
            self.emit(depth, f"{left.name} = {self.expression(1)} ? {left.name} : {right.name};")

    def side_effects(self, depth: int) -> None:
        """Write an assignment in which two different things change, neither of which is read besides."""
        names = [v.name for v in self.of_kind("scalar")]
        if len(names) < 2:
            self.assignment(depth)
            return
        left, right = self.random.sample(names, 2)
        change = self.random.choice(
            [f"{right}++", f"{right}--", f"++{right}", f"--{right}", f"({right} += 3)", f"({right} = 5)"]
        )
        form = self.random.randrange(5)
        if form == 0:
            self.emit(depth, f"{left} = {change} {self.random.choice('+-*^')} {self.random.choice(CONSTANTS)};")
        elif form == 1:
            self.emit(depth, f"p->out[{change} & 15] += 3;")
        elif form == 2:
            self.emit(depth, f"{left} = ({change}, {self.random.choice(CONSTANTS)});")
        elif form == 3:
            self.emit(depth, f"{left} = p->in[0] > 5 {self.random.choice(['&&', '||'])} {change};")
        else:
            self.emit(depth, f"{left} = {right} = {self.expression(2)};")

    def by_pointer(self, depth: int) -> None:
        """Call a function that changes what it is given the address of, or that passes structs."""
        structs, scalars = self.of_kind("struct"), [v for v in self.of_kind("scalar") if v.ctype == "u32"]
        kind = self.random.randrange(4)
        if kind == 0 and structs:
            self.emit(depth, f"change(&{self.random.choice(structs).name}, {self.expression(1)});")
        elif kind == 1 and scalars:
            self.emit(depth, f"{self.target()} = bump(&{self.random.choice(scalars).name}, {self.expression(1)});")
        elif kind == 2 and structs:
            name = self.random.choice(structs).name
            self.emit(depth, f"{name} = made({self.expression(1)}, {self.random.choice(structs).name});")
        else:
            self.emit(depth, f"counter += {self.expression(2)}; {self.target()} = counter + next_id();")

    def whole_memory(self, depth: int) -> None:
        """Set, copy or compare whole objects."""
        structs, arrays = self.of_kind("struct"), self.of_kind("array")
        if self.flip(0.5) and structs:
            name = self.random.choice(structs).name
            other = self.random.choice(structs).name
            self.emit(depth, self.random.choice([
                f"__builtin_memset(&{name}, 0, sizeof({name}));",
                f"__builtin_memset(&{name}.w, {self.random.randrange(256)}, sizeof({name}.w));",
                f"__builtin_memcpy(&{name}.w, &{other}.w, sizeof({name}.w));" if name != other else ";",
                f"{{ struct s *r = &{name}; r->b = {self.expression(1)}; r->w[{self.index()} & 1]++; {self.target()} = r->in.x; }}",
                f"{{ s32 *r = {name}.w; *r++ = {self.expression(1)}; *r = r[-1] + 1; }}",
            ]))  # fmt: skip
        elif arrays:
            array = self.random.choice(arrays)
            self.emit(depth, self.random.choice([
                f"for (int k = 0; k < 8; k++) {self.target()} += {array.name}[k];",
                f"{{ {array.ctype} *r = {array.name}; for (int k = 0; k < 8; k++) *r++ += 1; }}",
                f"{{ {array.ctype} *q = {array.name}, *qe = {array.name} + {self.random.randrange(9)}; while (q < qe) {{ {self.target()} += *q; q++; }} }}",
                f"{{ {array.ctype} *q = &{array.name}[8], *qb = {array.name}; u32 n = 0; while (q != qb) n += *--q != 0; {self.target()} = n + (q == qb); }}",
                f"{{ {array.ctype} m[8] = {{ 0 }}; __builtin_memcpy(m, {array.name}, ({self.expression(1)} & 7) * sizeof(m[0])); "
                f"{self.target()} = m[{self.index()}] + (__builtin_memcmp(m, {array.name}, {self.expression(1)} & 7) == 0); }}",
                f"{{ {array.ctype} m[2][4]; __builtin_memcpy(m, {array.name}, sizeof(m)); {self.target()} = m[{self.index()} & 1][{self.index()} & 3]; }}",
                f"{{ union {{ u8 raw[sizeof({array.name})]; {array.ctype} v[8]; }} m; __builtin_memcpy(&m, {array.name}, sizeof(m)); "
                f"{self.target()} = m.raw[{self.index()}]; }}",
            ]))  # fmt: skip
        else:
            self.assignment(depth)

    def skip(self, depth: int) -> None:
        """Write a jump forward, over statements."""
        label = self.new_name("l")
        self.emit(depth, f"if ({self.expression(2)}) goto {label};")
        known = len(self.variables)
        self.emit(depth, "{")
        self.block(depth + 1)
        del self.variables[known:]
        self.emit(depth, "}")
        self.emit(depth, f"{label}: ;")

    def block(self, depth: int) -> None:
        """Write statements of a block; what it declares is gone behind it."""
        known = len(self.variables)
        for _ in range(self.random.randrange(1, 4)):
            self.statement(depth)
        del self.variables[known:]

    def branch(self, depth: int) -> None:
        self.emit(depth, f"if ({self.expression(2)}) {{")
        self.block(depth + 1)
        while self.flip(0.3):
            self.emit(depth, f"}} else if ({self.expression(2)}) {{")
            self.block(depth + 1)
        if self.flip(0.5):
            self.emit(depth, "} else {")
            self.block(depth + 1)
        self.emit(depth, "}")

    def loop(self, depth: int) -> None:
        name = self.new_name("i")
        most = self.random.randrange(1, 6)
        kind = self.random.randrange(4)
        ctype = self.random.choice(["int", "u32", "u8", "s64"])
        self.loops += 1
        counter = Variable(name, ctype)
        counter.kind = "counter"  # is read, not written
        if kind < 2:
            self.emit(depth, f"for ({ctype} {name} = 0; {name} < {most}; {name}++) {{")
            self.body_of_loop(depth, counter)
            self.emit(depth, "}")
        elif kind == 2:
            self.emit(depth, f"{ctype} {name} = {most};")
            self.emit(depth, f"while ({name}-- > 0) {{")
            self.body_of_loop(depth, counter)
            self.emit(depth, "}")
        else:
            self.emit(depth, f"{ctype} {name} = 0;")
            self.emit(depth, "do {")
            self.body_of_loop(depth, counter)
            self.emit(depth, f"}} while (++{name} < {most});")
        self.loops -= 1

    def body_of_loop(self, depth: int, counter: Variable) -> None:
        self.emit(depth + 1, f"{self.target()} += {counter.name};")
        self.block(depth + 1)

    def switch(self, depth: int) -> None:
        self.emit(depth, f"switch ({self.narrow(self.expression(2))} & 7) {{")
        for value in self.random.sample(range(8), self.random.randrange(1, 5)):
            label = f"case {value} ... {value}:" if self.flip(0.2) else f"case {value}:"
            self.emit(depth, label + (" {" if self.flip(1) else ""))
            self.block(depth + 1)
            self.emit(depth + 1, self.random.choice(["break;", "break;", ";"]))
            self.emit(depth, "}")
        if self.flip(0.6):
            self.emit(depth, "default: ;")
            self.emit(depth, "{")
            self.block(depth + 1)
            self.emit(depth, "}")
        self.emit(depth, "}")

    # the whole ----------------------------------------------------------------------------------------------------

    def function(self) -> None:
        """Write a function of numbers that changes nothing outside."""
        name = self.new_name("f")
        params = [self.random.choice(self.types) for _ in range(self.random.randrange(1, 4))]
        params = [p if p not in INT128 else "u64" for p in params]
        result = self.random.choice([t for t in self.types if t not in INT128])
        self.variables = [Variable(f"p{i}", t) for i, t in enumerate(params)]
        known, self.functions = self.functions, []
        self.emit(0, f"static {result} {name}({', '.join(f'{t} p{i}' for i, t in enumerate(params))})")
        self.emit(0, "{")
        if self.flip(0.5):
            self.emit(1, f"if ({self.pure(2)})")
            self.emit(2, f"return {self.pure(2)};")
        self.emit(1, f"return {self.pure(3)};")
        self.emit(0, "}")
        self.functions = [*known, (name, result, params)]

    def pure(self, depth: int) -> str:
        """An expression of a function's parameters alone."""
        return self.expression(depth).replace("p->in[", "table[")

    def make(self) -> str:
        """Return the program."""
        self.lines = HEAD.splitlines()
        for _ in range(self.random.randrange(3)):
            self.function()
        self.variables = []
        self.emit(0, "static u64 run(struct io *p)")
        self.emit(0, "{")
        for number in range(4):
            ctype = self.random.choice(self.types)
            self.emit(1, f"{ctype} w{number} = p->in[{number}];")
            self.variables.append(Variable(f"w{number}", ctype))
        self.budget = self.random.randrange(4, 16)
        while self.budget > 0:
            self.statement(1)
        for number, variable in enumerate(v for v in self.variables if v.kind == "scalar"):
            self.emit(1, f"p->out[{number % 24}] ^= (u64){variable.name};")
        self.emit(1, f"return {self.expression()};")
        self.emit(0, "}")
        return "\n".join(self.lines) + "\n"


MEMBERS = [".a", ".b", ".c", ".f", ".g", ".h", ".w[1]", ".w[0]", ".in.x", ".in.y", ".u", ".lo"]
HEAD = """enum e { E0, E1 = 1, E2 = 70000 };
struct s {
    u8 a; s16 b; u64 c;
    unsigned f : 3; int g : 7; u8 h : 5;
    s32 w[2];
    struct { u16 x; s8 y; } in;
    union { u32 u; u16 lo; };
};
static const u32 table[8] = { 1, 0x80000000, 3, [5] = 77, [6 ... 7] = 0xffffffff };
static u64 counter = 5;
static u32 next_id(void) { static u16 last = 65530; return ++last; }
static u32 bump(u32 *what, s16 by) { *what += by; if (by > 100) return *what >> 3; return 7; }
static void change(struct s *it, u64 to) { it->c ^= to; it->f = to; it->g -= to; it->in.y = it->a--; it->w[to & 1] = to; }
static struct s made(u32 a, struct s from) { struct s r = from; r.u = a; r.w[1] = from.w[0] + from.f; return r; }"""
