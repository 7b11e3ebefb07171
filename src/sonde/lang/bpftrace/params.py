"""Parameters of a script: `$1`, `$#` and getopt() become literals, `$N` in attach points becomes text.

A positional parameter is a number where its text is one and a string otherwise; inside str() it is always a string. A
missing one is 0, or "" in str(). Named parameters follow `--`: `--name=value` or `--name`.
"""

from __future__ import annotations

from ...errors import CompileError, Diagnostic, UsageError
from ...record import Record, replace
from ..source import diagnose
from . import ast
from .attachpoints import iter_parameters, split_parts
from .fault import Fault
from .literals import scan_integer
from .rewrite import iter_nodes, rewrite, rewrite_children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class NamedParam(Record):
    """One option that a script takes through getopt()."""

    name: str
    default: int | str | bool
    description: str = ""


def split_arguments(args: Iterable[str]) -> tuple[tuple[str, ...], dict[str, str | None]]:
    """Split what follows `--` on the command line into positional and named parameters (None: no `=value`)."""
    positional: list[str] = []
    named: dict[str, str | None] = {}
    for arg in args:
        if arg.startswith("--") and len(arg) > 2:
            name, equals, value = arg[2:].partition("=")
            named[name] = value if equals else None
        else:
            positional.append(arg)
    return tuple(positional), named


def list_params(program: ast.Program) -> tuple[NamedParam, ...]:
    """Return the named parameters of a script, in the order of their first use. Raises CompileError for wrong calls."""
    if "getopt" not in program.words:
        return ()
    found: dict[str, NamedParam] = {}
    errors: list[Diagnostic] = []
    for node in iter_nodes(program):
        if isinstance(node, ast.Call) and node.name == "getopt":
            try:
                param = _read_getopt(node)
                before = found.setdefault(param.name, param)
                if before.default != param.default or type(before.default) is not type(param.default):
                    raise CompileError([diagnose(node.span, _conflict(before))])
                if param.description and not before.description:
                    found[param.name] = param
                elif param.description and param.description != before.description:
                    message = (
                        f"Command line option '{param.name}' must have the same description in all places it's used."
                    )
                    raise CompileError([diagnose(node.span, message, hint="wrap the call in a macro.")])
            except CompileError as error:
                errors += error.diagnostics
    if errors:
        raise CompileError(errors)
    return tuple(found.values())


def render_help(params: tuple[NamedParam, ...]) -> str:
    """Return the text of `--help` after `--`."""
    if not params:
        return "HINT: no custom program options defined."
    lines = [f"--{p.name}: {p.description}" if p.description else f"--{p.name}" for p in params]
    return "\n".join(["HINT: expected program options:", *lines])


def resolve_params(program: ast.Program, positional: tuple[str, ...], named: Mapping[str, str | None]) -> ast.Program:
    """Replace all parameters by literals. Run it after macro expansion.

    Raises CompileError for wrong getopt() calls, UsageError for options that the script does not have or whose
    value has the wrong type.
    """
    params = list_params(program)
    values = _evaluate(params, named)
    resolver = _Resolver(positional, values)
    probes = tuple(resolver.resolve_probe(p) for p in program.probes)
    subprograms = program.subprograms
    if resolver.wanted(program):
        probes = tuple(rewrite_children(p, resolver.change) for p in probes)
        subprograms = tuple(rewrite_children(s, resolver.change) for s in subprograms)
    if probes == program.probes and subprograms == program.subprograms:
        return program
    warnings = program.warnings + tuple(resolver.warnings)
    return replace(program, probes=probes, subprograms=subprograms, warnings=warnings)


# named ----------------------------------------------------------------------------------------------------------


def _read_getopt(call: ast.Call) -> NamedParam:
    """Check a getopt() call and return what it says. Raises CompileError."""
    if not 1 <= len(call.args) <= 3:
        message = "The 'getopt' function can take a maximum of three arguments and a minimum of one argument."
        raise CompileError([diagnose(call.span, message, hint='getopt("name", default, "description")')])
    name = call.args[0]
    if not isinstance(name, ast.String):
        raise CompileError([diagnose(name.span, "First argument to 'getopt' must be a string literal.")])
    default: int | str | bool = False
    if len(call.args) > 1:
        value = _literal(call.args[1])
        if value is None:
            message = "Second argument to 'getopt' must be a string literal, integer literal, or a boolean literal."
            raise CompileError([diagnose(call.args[1].span, message)])
        default = value
    description = ""
    if len(call.args) == 3:
        last = call.args[2]
        if not isinstance(last, ast.String):
            raise CompileError(
                [diagnose(last.span, "Function 'getopt' requires the third parameter to be a string literal.")]
            )
        description = last.value
    return NamedParam(name.value, default, description)


class _HelpWanted(UsageError):
    """`--help` behind `--`: the message is the whole answer."""

    def render(self) -> str:
        return self.message


def _literal(node: ast.Node) -> int | str | bool | None:
    if isinstance(node, (ast.Integer, ast.String, ast.Boolean)):
        return node.value
    if isinstance(node, ast.Unary) and node.op == "-" and isinstance(node.operand, ast.Integer):
        return -node.operand.value
    return None


def _conflict(before: NamedParam) -> str:
    default = str(before.default).lower() if isinstance(before.default, bool) else before.default
    return (
        f"Command line option '{before.name}' needs to have the same default value in all places it is used. "
        f"Previous default value: {default}"
    )


def _evaluate(params: tuple[NamedParam, ...], named: Mapping[str, str | None]) -> dict[str, int | str | bool]:
    """Return the value of each parameter of the script. Raises UsageError."""
    known = {p.name for p in params}
    unknown = [f"--{name}" for name in named if name not in known]
    if unknown == ["--help"]:
        raise _HelpWanted(render_help(params))
    if unknown:
        options = ": ".join(f"--{p.name}" for p in params)
        hint = f"expected program options: {options}" if params else "no custom program options defined."
        raise UsageError(f"unexpected program command line options: {', '.join(unknown)}", hint=hint)
    return {p.name: _convert(p, named[p.name]) if p.name in named else p.default for p in params}


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def _convert(param: NamedParam, text: str | None) -> int | str | bool:
    if isinstance(param.default, bool):
        value = _BOOLEANS.get("true" if text is None else text)
        if value is None:
            raise _wrong(param, "expects a boolean (e.g. 'true')", text)
        return value
    if text is None:
        raise _wrong(param, "expects a string" if isinstance(param.default, str) else "expects an integer", text)
    if isinstance(param.default, str):
        return text
    number = parse_number(text)
    if number is None:
        raise _wrong(param, "invalid integer", text)
    return number


def _wrong(param: NamedParam, what: str, text: str | None) -> UsageError:
    hint = f"write --{param.name}=VALUE" + (f" ({param.description})" if param.description else "")
    return UsageError(
        f"program command line option --{param.name} {what} (value: {'true' if text is None else text})", hint=hint
    )


def parse_number(text: str) -> int | None:
    """Return the value of a text that is one integer literal, perhaps with a sign; else None."""
    digits = text.strip()
    negative = digits.startswith("-")
    if digits[:1] in ("-", "+"):
        digits = digits[1:]
    if not digits[:1].isdigit() or not digits.isascii():
        return None
    try:
        value, end = scan_integer(digits + "\0", 0)
    except Fault:
        return None
    if end != len(digits) or (negative and value > 1 << 63):
        return None
    return -value if negative else value


# rewriting ------------------------------------------------------------------------------------------------------


class _Resolver:
    def __init__(self, positional: tuple[str, ...], named: dict[str, int | str | bool]) -> None:
        self.positional = positional
        self.named = named
        self.warnings: list[Diagnostic] = []

    def wanted(self, program: ast.Program) -> bool:
        """Tell whether there is anything to replace in bodies."""
        return "getopt" in program.words or any(word.startswith("$") for word in program.words)

    def text_of(self, number: int) -> str:
        """The text of `$number`, "" when it was not given."""
        return self.positional[number - 1] if number <= len(self.positional) else ""

    def resolve_probe(self, probe: ast.Probe) -> ast.Probe:
        """Expand `$N` in the attach points of a probe."""
        if not any("$" in point.text for point in probe.attach_points):
            return probe
        points = tuple(self._resolve_point(point) for point in probe.attach_points)
        return ast.Probe(probe.span, points, probe.predicate, probe.body, probe.name)

    def _resolve_point(self, point: ast.AttachPoint) -> ast.AttachPoint:
        text = point.text
        for start, end, number in reversed(iter_parameters(text)):
            if text.count('"', 0, start) % 2 == 0:  # not inside quotes
                text = text[:start] + self.text_of(number) + text[end:]
        return point if text == point.text else ast.AttachPoint(point.span, text, split_parts(text))

    def change(self, node: ast.Node) -> ast.Node | None:
        """Replace parameters in expressions."""
        if isinstance(node, ast.Positional):
            return self._literal(node)
        if isinstance(node, ast.PositionalCount):
            return _make_literal(node, len(self.positional))
        if isinstance(node, ast.Call):
            if node.name == "getopt":
                name = node.args[0]
                assert isinstance(name, ast.String)
                return _make_literal(node, self.named[name.value])
            if node.name == "str" and node.args:
                return self._resolve_str(node)
        if isinstance(node, ast.Binary) and node.op == "+":
            return self._resolve_sum(node, False)
        return None

    def _literal(self, node: ast.Positional) -> ast.Expr:
        text = self.text_of(node.number)
        if not text:
            message = f"Positional parameter ${node.number} is empty or not provided."
            self.warnings.append(diagnose(node.span, message, severity="WARNING"))
            return ast.Integer(node.span, 0, "0")
        number = parse_number(text)
        return _make_literal(node, text if number is None else number)

    def _resolve_str(self, call: ast.Call) -> ast.Node | None:
        """`str($1)`, `str($1 + n)`, either with a length: a string literal."""
        arg = call.args[0]
        text: ast.Node | None = None
        if isinstance(arg, ast.Positional):
            text = ast.String(arg.span, self.text_of(arg.number))
        elif isinstance(arg, ast.Binary) and arg.op == "+":
            text = self._resolve_sum(arg, True)
        if not isinstance(text, ast.String):
            return None
        if len(call.args) == 1:
            return ast.String(call.span, text.value)
        length = call.args[1]
        if len(call.args) == 2 and isinstance(length, ast.Integer):
            return ast.String(call.span, text.value[: length.value])
        rest = tuple(rewrite(a, self.change) for a in call.args[1:])
        return ast.Call(call.span, call.name, (text, *rest))  # type: ignore[arg-type]

    def _resolve_sum(self, node: ast.Binary, as_string: bool) -> ast.Node | None:
        """`$1 + n` with a string in $1: the string without its first n characters."""
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(side, ast.Positional):
                text = self.text_of(side.number)
                offset = self._offset(other)
                if offset is not None and (as_string or (text and parse_number(text) is None)):
                    if offset > len(text):
                        warning = diagnose(node.span, "literal string will always be empty", severity="WARNING")
                        self.warnings.append(warning)
                    return ast.String(node.span, text[offset:])
        return None

    def _offset(self, node: ast.Expr) -> int | None:
        value: object = None
        if isinstance(node, ast.Integer):
            value = node.value
        elif isinstance(node, ast.Positional):
            value = parse_number(self.text_of(node.number))
        return value if isinstance(value, int) and value >= 0 else None


def _make_literal(node: ast.Expr, value: int | str | bool) -> ast.Expr:
    if isinstance(value, bool):
        return ast.Boolean(node.span, value)
    if isinstance(value, str):
        return ast.String(node.span, value)
    if value < 0:
        return ast.Unary(node.span, "-", ast.Integer(node.span, -value, str(-value)))
    return ast.Integer(node.span, value, str(value))
