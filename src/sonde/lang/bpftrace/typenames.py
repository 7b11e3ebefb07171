"""Type names: `uint8`, `struct foo *`, `int32[4]`, `typeof(…)`, and the words that cannot be types."""

from __future__ import annotations

from . import ast
from .cursor import TokenCursor
from .fault import Fault

_TYPE_WORDS = """bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 string buffer inet void none
    kstack_t ustack_t ksym_t usym_t username_t timestamp macaddr_t cgroup_path_t timestamp_mode min_t max_t sum_t count_t avg_t
    stats_t umin_t umax_t usum_t uavg_t ustats_t hist_t lhist_t tseries_t"""
BUILTIN_TYPES = frozenset(_TYPE_WORDS.split())
TAGS = frozenset(["struct", "union", "enum"])
_C_WORDS = frozenset(["signed", "unsigned", "char", "short", "int", "long"])
_BUILTINS = frozenset(["args", "ctx", "kstack", "nsecs", "pid", "tid", "ustack"])
_NO_TYPES = frozenset(["sizeof", "offsetof", "typeinfo", "comptime", "true", "false", "if"])


def is_builtin(name: str) -> bool:
    """Tell whether a bare `name` can only be a value of the tracer, never a type, a record's field or a macro argument."""
    return name in _BUILTINS or (name[:3] == "arg" and name[3:].isdigit())


class TypeNameParser(TokenCursor):
    """Adds type names to the cursor."""

    def parse_expression(self) -> ast.Expr:
        """Any expression (see the expression parser)."""
        raise NotImplementedError

    def parse_type(self) -> ast.TypeName:
        """A type name or `typeof(…)`, with pointer and array suffixes. Raises Fault."""
        start = self.token.start
        word = self.expect_name("expected type name")
        operand: ast.Expr | ast.TypeName | None = None
        if word == "typeof" and self.token.kind == "(":
            self.enter()
            self.take()
            operand = self.parse_type_or_expression(")")
            self.expect(")")
            self.depth -= 1
            word = ""
        elif word in TAGS:
            word += " " + self.expect_name("expected identifier")
        elif word in _C_WORDS:
            while self.token.kind == "name" and self.token.value in _C_WORDS:
                word += " " + self.take().value
        return self._parse_suffixes(start, word, operand)

    def _parse_suffixes(self, start: int, name: str, operand: ast.Expr | ast.TypeName | None) -> ast.TypeName:
        pointers = 0
        dims: list[int | None] = []
        length = 0
        while self.token.kind in ("*", "["):
            length += 1
            self.check_chain(length)
            if self.accept("*"):
                if dims:  # a pointer to an array: the array becomes the operand
                    inner = ast.TypeName(self.span(start), name, pointers, tuple(dims), operand)
                    name, pointers, dims, operand = "", 0, [], inner
                pointers += 1
                continue
            self.take()
            dims.append(self.take().value if self.token.kind == "int" else None)
            self.expect("]")
        if isinstance(operand, ast.TypeName) and not pointers and not dims:
            return ast.TypeName(self.span(start), operand.name, operand.pointers, operand.dims, operand.typeof)
        return ast.TypeName(self.span(start), name, pointers, tuple(dims), operand)

    def try_type(self) -> ast.TypeName | None:
        """A type name if one stands here, else None, and the cursor stays."""
        mark = self.mark()
        try:
            return self.parse_type()
        except Fault:
            self.back_to(mark)
            return None

    def parse_type_or_expression(self, closer: str) -> ast.Expr | ast.TypeName:
        """What `sizeof` and its like take. A bare unknown name is an expression: it may be a typedef or a macro's argument."""
        token = self.token
        if token.kind == "name" and token.value == "typeof":
            return self.parse_type()
        if token.kind == "name" and not is_builtin(token.value) and token.value not in _NO_TYPES:
            mark = self.mark()
            type_ = self.try_type()
            if type_ is not None and self.token.kind == closer:
                known = type_.name in BUILTIN_TYPES or " " in type_.name or type_.name in _C_WORDS or not type_.name
                if known or type_.pointers or type_.dims:
                    return type_
            self.back_to(mark)
        return self.parse_expression()
