"""The text form of the IR: printer and parser, inverse to each other. `ir` describes the form by example."""

from __future__ import annotations

from ..errors import CompileError, Diagnostic, Span
from ..spec.object import CoreAccess, MapSpec
from .ir import (
    BINARY,
    BTF,
    COMPARE,
    FUNC,
    I64,
    MAP,
    MAPOBJ,
    NONE,
    STACK,
    WIDTH,
    Block,
    Const,
    Function,
    Inst,
    Module,
    Param,
    Terminator,  # fmt: skip
    Value,
    is_pointer,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Attributes are written `key=value` after the operands; strings bare, numbers decimal.
_NUMBERS = ("imm", "low", "offset", "src_offset", "size", "align")
_FLAGS = ("fetch", "volatile")
_FIXED_TYPES = {"alloca": STACK, "map": MAPOBJ, "funcaddr": FUNC, "map_value": MAP, "percpu_value": MAP, "ksym": BTF, "core": I64,
                "store": NONE, "memcpy": NONE, "memset": NONE, "tailcall": NONE}  # fmt: skip


def format_module(module: Module) -> str:
    """Return the text of a module."""
    parts = [_format_map(spec) for spec in module.maps.values()]
    parts += [format_function(function) for function in module.functions.values()]
    return "\n\n".join(parts) + "\n"


def _format_map(spec: MapSpec) -> str:
    text = f"map @{spec.name} {spec.type} key={spec.key_size} value={spec.value_size} max_entries={spec.max_entries}"
    if spec.flags:
        text += f" flags={spec.flags}"
    if spec.initial:
        text += f" initial={spec.initial.hex()}"
    return text + (" frozen=1" if spec.frozen else "")


def format_function(function: Function) -> str:
    """Return the text of one function."""
    return _Printer(function).text()


class _Printer:
    """Names values of one function as it goes: their own name where it is free, else numbered."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.names: dict[Value, str] = {}
        self.labels: dict[Block, str] = {}
        self.taken: set[str] = set()

    def name(self, value: Value) -> str:
        if isinstance(value, Const):
            return str(value.imm) if value.type == I64 else f"{value.imm}:{value.type}"
        if value not in self.names:
            self.names[value] = self.free("%" + (value.name or "v"))
        return self.names[value]

    def label(self, block: Block) -> str:
        if block not in self.labels:
            self.labels[block] = self.free(block.name)
        return self.labels[block]

    def free(self, base: str) -> str:
        name, n = base, 0
        while name in self.taken:
            n += 1
            name = f"{base}_{n}"
        self.taken.add(name)
        return name

    def text(self) -> str:
        f = self.function
        params = ", ".join(f"{self.name(p)}: {p.type}" for p in f.params)
        attributes = [f"program={f.program}"] if f.program else []
        attributes += [f"{k}={getattr(f, k)}" for k in ("attach_type", "attach_btf") if getattr(f, k)]
        attributes += [f"license={f.license.replace(' ', '~')}"] if f.license != "GPL" else []
        attributes += [k for k in ("callback", "sleepable") if getattr(f, k)]
        lines = [" ".join([f"func @{f.name}({params}) -> {f.result}", *attributes, "{"])]
        for i, block in enumerate(f.blocks):
            params = ", ".join(f"{self.name(p)}: {p.type}" for p in block.params)
            lines.append(f"{self.label(block)}:" if not i else f"{self.label(block)}({params}):")
            lines += ["  " + self.inst(inst) for inst in block.insts]
            if block.end is not None:
                lines.append("  " + self.end(block.end))
        return "\n".join([*lines, "}"])

    def inst(self, inst: Inst) -> str:
        words = [inst.op if inst.op in _FIXED_TYPES else f"{inst.op}.{inst.type}"]
        if inst.symbol:
            words.append(f"@{inst.symbol}")
        if inst.args:
            words.append(", ".join(self.name(a) for a in inst.args))
        words += [f"{k}={getattr(inst, k)}" for k in _NUMBERS if getattr(inst, k)]
        words += [k for k in _FLAGS if getattr(inst, k)]
        if inst.core is not None:
            c = inst.core
            words.append(
                f"core={c.kind}|{c.type_name.replace(' ', '~')}|{'.'.join(map(str, c.path))}|{c.value}|{c.index}"
            )
        text = " ".join(words)
        return text if inst.type == NONE else f"{self.name(inst)} = {text}"

    def end(self, end: Terminator) -> str:
        words = [self.name(a) for a in end.args]
        words += [f"{self.label(block)}({', '.join(map(self.name, arguments))})" for block, arguments in end.targets]
        return f"{end.op} {', '.join(words)}".rstrip()


def parse_module(text: str, name: str = "ir") -> Module:
    """Read a module back. Raises CompileError with line and column."""
    return _Parser(text, name).module()


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self.file = name
        self.lines = text.splitlines()
        self.number = 0

    def fail(self, message: str, word: str = "") -> CompileError:
        line = self.lines[self.number - 1] if 0 < self.number <= len(self.lines) else ""
        column = max(line.find(word), 0) + 1 if word else 1
        span = Span(self.file, self.number, column, self.number, column + max(len(word), 1))
        return CompileError([Diagnostic("ERROR", message, span, line)])

    def __iter__(self) -> Iterator[str]:
        while self.number < len(self.lines):
            self.number += 1
            line = self.lines[self.number - 1].split(";")[0].strip()
            if line:
                yield line

    def module(self) -> Module:
        module = Module()
        for line in self:
            if line.startswith("map @"):
                module.add_map(self.map(line))
            elif line.startswith("func @"):
                function = self.head(line)
                module.functions[function.name] = function
                self.body(function)
            else:
                raise self.fail(f"expected a map or a function, found {line.split()[0]!r}", line.split()[0])
        return module

    def map(self, line: str) -> MapSpec:
        words = line.split()
        if len(words) < 3:
            raise self.fail("a map needs a name and a type")
        options = dict(w.split("=", 1) for w in words[3:] if "=" in w)
        try:
            key, value, entries = (int(options.pop(k)) for k in ("key", "value", "max_entries"))
            return MapSpec(
                words[1][1:],
                words[2],
                key,
                value,
                entries,
                int(options.get("flags", 0)),
                bytes.fromhex(options.get("initial", "")),
                options.get("frozen", "0") == "1",
            )
        except (KeyError, ValueError):
            raise self.fail("a map needs key=, value= and max_entries= with numbers") from None

    def head(self, line: str) -> Function:
        open_, close = line.find("("), line.find(")")
        if open_ < 0 or close < open_ or not line.endswith("{"):
            raise self.fail("expected: func @name(%param: type) -> type {")
        rest = line[close + 1 : -1].split()
        if len(rest) < 2 or rest[0] != "->":
            raise self.fail("a function needs its result type: -> i64")
        self.values: dict[str, Value] = {}
        function = Function(line[6:open_], self.params(line[open_ + 1 : close]), rest[1])
        for word in rest[2:]:
            key, _, value = word.partition("=")
            if key in ("program", "attach_type", "attach_btf", "license"):
                setattr(function, key, value.replace("~", " "))
            elif key in ("callback", "sleepable"):
                setattr(function, key, True)
            else:
                raise self.fail(f"unknown attribute {key!r}", word)
        return function

    def params(self, text: str) -> list[Param]:
        params = []
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, colon, type_ = part.partition(":")
            if not colon or not name.startswith("%"):
                raise self.fail(f"expected %name: type, found {part!r}", part)
            param = Param(self.type(type_.strip()), name[1:])
            self.define(name[1:], param)
            params.append(param)
        return params

    def type(self, text: str) -> str:
        if text not in WIDTH and not is_pointer(text) and text != NONE:
            raise self.fail(f"no such type: {text!r}", text)
        return text

    def define(self, name: str, value: Value) -> None:
        if name in self.values:
            raise self.fail(f"%{name} is defined twice", f"%{name}")
        self.values[name] = value

    def body(self, function: Function) -> None:
        blocks: dict[str, Block] = {}
        pending: list[tuple[int, Inst | Terminator, str]] = []
        block: Block | None = None
        for line in self:
            if line == "}":
                break
            if line.endswith(":"):
                name, _, params = line[:-1].partition("(")
                if name in blocks:
                    raise self.fail(f"block {name} is defined twice", name)
                block = blocks[name] = Block(name, self.params(params.rstrip(")")))
                function.blocks.append(block)
                continue
            if block is None or block.end is not None:
                raise self.fail("an instruction outside of a block")
            item, operands = self.statement(line)
            if isinstance(item, Terminator):
                block.end = item
            else:
                block.insts.append(item)
            pending.append((self.number, item, operands))
        else:
            raise self.fail("the function is not closed by }")
        if not blocks:
            raise self.fail(f"function {function.name} has no block")
        for block in blocks.values():
            if block.end is None:
                raise self.fail(f"block {block.name} does not end with jump, branch, ret or unreachable")
        last = self.number
        for self.number, item, operands in pending:
            self.resolve(item, operands, blocks)
        self.number = last

    def statement(self, line: str) -> tuple[Inst | Terminator, str]:
        first = line.split()[0]
        if first in ("jump", "branch", "ret", "unreachable"):
            return Terminator(first), line[len(first) :].strip()
        name, equals, right = line.partition(" = ")
        head, _, rest = (right if equals else line).partition(" ")
        op, _, type_ = head.partition(".")
        if op not in BINARY and op not in COMPARE and op not in _OTHERS:
            raise self.fail(f"no such operation: {op!r}", op)
        type_ = _FIXED_TYPES.get(op) or self.type(type_ or I64)
        inst = Inst(op, type_, [], name=name[1:] if equals else "")
        if equals:
            if not name.startswith("%"):
                raise self.fail(f"expected %name = …, found {name!r}", name)
            self.define(name[1:], inst)
        return inst, rest.strip()

    def resolve(self, item: Inst | Terminator, text: str, blocks: dict[str, Block]) -> None:
        if isinstance(item, Terminator):
            for part in _split(text):
                name, paren, arguments = part.partition("(")
                if paren:
                    if name not in blocks:
                        raise self.fail(f"no such block: {name!r}", name)
                    item.targets.append((blocks[name], [self.value(a) for a in _split(arguments.rstrip(")"))]))
                else:
                    item.args.append(self.value(part))
            return
        operands = []
        for word in text.split():
            key, equals, value = word.partition("=")
            if word.startswith("@"):
                item.symbol = word[1:]
            elif equals:
                self.attribute(item, key, value)
            elif word in _FLAGS:
                setattr(item, word, True)
            else:
                operands.append(word.rstrip(","))
        item.args = [self.value(a) for a in operands]

    def attribute(self, inst: Inst, key: str, value: str) -> None:
        try:
            if key == "core":
                kind, type_name, path, number, index = value.split("|")
                steps = tuple(int(p) if p.isdigit() else p for p in path.split(".") if p)
                inst.core = CoreAccess(kind, type_name.replace("~", " "), steps, int(number), int(index))
            elif key in _NUMBERS:
                setattr(inst, key, int(value, 0))
            else:
                raise self.fail(f"unknown attribute {key!r}", key)
        except ValueError:
            raise self.fail(f"wrong value of {key}: {value!r}", f"{key}={value}") from None

    def value(self, text: str) -> Value:
        text = text.strip()
        if text.startswith("%"):
            if text[1:] not in self.values:
                raise self.fail(f"{text} is not defined", text)
            return self.values[text[1:]]
        number, _, type_ = text.partition(":")
        try:
            return Const(int(number, 0), self.type(type_) if type_ else I64)
        except ValueError:
            raise self.fail(f"expected a value, found {text!r}", text) from None


_OTHERS = frozenset(
    ["zext", "sext", "trunc", "cast", "neg", "bswap", "ptradd", "alloca", "load", "store", "memcpy", "memset", "core", "map",
     "map_value", "percpu_value", "ksym", "call", "callsub", "kfunc", "funcaddr", "atomic", "tailcall", "bound", "opaque", "const"]
)  # fmt: skip


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and not depth:
            parts.append(text[start:i].strip())
            start = i + 1
    parts.append(text[start:].strip())
    return [p for p in parts if p]
