"""Statements of C, from tokens to the tree; and where the parser goes on behind a faulty one."""

from __future__ import annotations

from ..source import diagnose
from . import ast
from .parser_cursor import Fault, GiveUp
from .parser_declarations import DeclarationParser
from .parser_words import DECLARATION_STARTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Prefix = tuple[int, "str | None", "ast.Expr | None", "ast.Expr | None"]

# What may follow a name that begins a declaration, if the name is a type.
_BEHIND_TYPE = DECLARATION_STARTS | {"name", "*", "(", ";"}
_ONLY_DECLARATIONS = DECLARATION_STARTS - {"__attribute__"}


class Reopened(Exception):
    """A function begins inside another one: the parser goes on at file level. Never leaves this package."""


class StatementParser(DeclarationParser):
    """Parses statements. `unroll` is what a pragma has said about the loop that comes next."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.unroll = 0
        self._blocks: list[int] = []  # indices of the braces that are open

    def compound(self) -> ast.Compound:
        """Parse a block, a scope of its own. Raises Fault."""
        if self.kind != "{":
            raise self.unexpected("'{'")
        self.open_scope()
        block = self.block()
        self.close_scope()
        return block

    def block(self) -> ast.Compound:
        """Parse `{ … }` in the current scope; errors in statements are reported, and the next one parsed. Raises Fault."""
        opened = self.at
        self._blocks.append(opened)
        self.enter()
        self.next()
        items: list[ast.Statement] = []
        while self.kind != "}":
            if self.kind == "end":
                raise self.unclosed(opened)
            start, depth, scopes, blocks = self.at, self.depth, self.open_scopes, len(self._blocks)
            try:
                items.append(self.statement())
            except Fault as fault:
                self.report(fault.diagnostic)
                if self.kind == "end":
                    raise GiveUp from None
                self.depth = depth
                self.unroll = 0
                self.close_scopes(scopes)
                del self._blocks[blocks:]
                self.skip_statement(start)
        self.next()
        self.depth -= 1
        self._blocks.pop()
        return ast.Compound(self.span(opened), tuple(items))

    def statement(self) -> ast.Statement:
        """Parse a statement or a declaration. Raises Fault."""
        kind = self.kind
        if kind == "name":
            at = self.at
            behind = self.kinds[at + 1]
            if behind == ":":
                return self._labelled()
            if behind in _BEHIND_TYPE and self._begins_declaration(behind):
                return self.declaration()
            return self._expression_statement()
        parse = _STATEMENTS.get(kind)
        if parse is not None:
            return parse(self)
        if kind in DECLARATION_STARTS:
            return self.declaration()
        return self._expression_statement()

    def _begins_declaration(self, behind: str) -> bool:
        """Whether the name at the cursor, with `behind` behind it, begins a declaration."""
        name = self.tokens[self.at].text
        if self.is_type_name(name):
            return True
        if behind == "name":
            return not self.is_declared(name) or self.kinds[self.at + 2] in ("=", ";", ",", "[")
        return behind == "*" and not self.is_declared(name) and self._must_be_type() and self._ends_like_declarator()

    def _ends_like_declarator(self) -> bool:
        """Whether `name *name` is followed by what follows a declarator: `a * b;` of unknown names is no product."""
        at = self.at + 1
        while self.kinds[at] != "name":
            if self.kinds[at] == "end":
                return False
            at += 1
        return self.kinds[at + 1] in ("=", ";", ",")

    def _expression_statement(self) -> ast.Statement:
        start = self.at
        expr = self.expression()
        self.semicolon("behind the expression")
        return ast.ExprStatement(self.span(start), expr)

    def body(self) -> ast.Statement:
        """Parse the statement that belongs to an `if`, a loop, a `switch`. Raises Fault."""
        is_name = self.kind == "name" and self.kinds[self.at + 1] in _BEHIND_TYPE
        if self._begins_declaration(self.kinds[self.at + 1]) if is_name else self.kind in _ONLY_DECLARATIONS:
            raise self.fault("a declaration cannot stand here", hint="put it into a block: { … }.")
        self.enter()
        statement = self.statement()
        self.depth -= 1
        return statement

    # labels ---------------------------------------------------------------------------------------------------

    def _labelled(self) -> ast.Statement:
        """Parse labels and the statement behind them; without recursion, since they come in rows."""
        prefixes: list[Prefix] = []
        while True:
            if self.kind == "case":
                prefixes.append(self._case())
            elif self.kind == "default":
                prefixes.append((self.at, None, None, None))
                self.next()
                self.expect(":", "behind 'default'")
            elif self.kind == "name" and self.kinds[self.at + 1] == ":":
                prefixes.append((self.at, self.tokens[self.at].text, None, None))
                self.go_to(self.at + 2)
                self.attributes([])  # `unused` is all that may be said of a label
            else:
                break
        self.check_chain(len(prefixes))
        if self.kind == "}":  # C23 allows it, and so do gcc and clang
            statement: ast.Statement = ast.ExprStatement(self.span_of_nothing(), None)
        else:
            statement = self.statement()
        for start, name, low, high in reversed(prefixes):
            span = self.span(start)
            statement = ast.Case(span, low, high, statement) if name is None else ast.Label(span, name, statement)
        return statement

    def _case(self) -> Prefix:
        start = self.at
        self.next()
        low = self.constant()
        high = self.constant() if self.accept("...") else None
        self.expect(":", "behind 'case'")
        return start, None, low, high

    def _attributed(self) -> ast.Statement:
        """Parse a statement or a declaration that begins with an attribute, such as `__attribute__((fallthrough));`."""
        start = self.at
        behind = self.behind_attributes(start)
        kind = self.kinds[behind]
        if kind in DECLARATION_STARTS or (kind == "name" and self._begins_declaration_at(behind)):
            return self.declaration()
        self.attributes([])
        if self.kind == ";":
            self.next()
            return ast.ExprStatement(self.span(start), None)
        return self.statement()

    def _begins_declaration_at(self, index: int) -> bool:
        """Whether the name at `index` begins a declaration."""
        start = self.at
        self.go_to(index)
        behind = self.kinds[index + 1]
        answer = behind in _BEHIND_TYPE and self._begins_declaration(behind)
        self.go_to(start)
        return answer

    # statements by their first word ---------------------------------------------------------------------------

    def _empty(self) -> ast.Statement:
        self.next()
        return ast.ExprStatement(self.tokens[self.at - 1].span, None)

    def _condition(self) -> ast.Expr:
        word = self.kind
        self.next()
        opened = self.at
        self.expect("(", f"behind '{word}'")
        self.enter()
        condition = self.expression()
        self.depth -= 1
        self.expect_close(")", opened)
        return condition

    def _if(self) -> ast.Statement:
        """Parse `if` with its chain of `else if`, without recursion."""
        chain: list[tuple[int, ast.Expr, ast.Statement]] = []
        last: ast.Statement | None = None
        while True:
            start = self.at
            condition = self._condition()
            chain.append((start, condition, self.body()))
            if self.kind != "else":
                break
            self.next()
            if self.kind != "if":
                last = self.body()
                break
        self.check_chain(len(chain))
        for start, condition, yes in reversed(chain):
            last = ast.If(self.span(start), condition, yes, last)
        assert last is not None
        return last

    def _take_unroll(self) -> int:
        unroll, self.unroll = self.unroll, 0
        return unroll

    def _while(self) -> ast.Statement:
        start = self.at
        unroll = self._take_unroll()
        condition = self._condition()
        body = self.body()
        return ast.While(self.span(start), condition, body, unroll)

    def _do(self) -> ast.Statement:
        start = self.at
        unroll = self._take_unroll()
        self.next()
        body = self.body()
        if self.kind != "while":
            raise self.unexpected("'while' behind the body of 'do'")
        condition = self._condition()
        self.semicolon("behind 'do … while'")
        return ast.DoWhile(self.span(start), body, condition, unroll)

    def _for(self) -> ast.Statement:
        start = self.at
        unroll = self._take_unroll()
        self.next()
        opened = self.at
        self.expect("(", "behind 'for'")
        self.enter()
        self.open_scope()
        init = self._for_init()
        condition = None if self.kind == ";" else self.expression()
        self.expect(";", "behind the condition of 'for'")
        step = None if self.kind == ")" else self.expression()
        self.depth -= 1
        self.expect_close(")", opened)
        body = self.body()
        self.close_scope()
        return ast.For(self.span(start), init, condition, step, body, unroll)

    def _for_init(self) -> ast.Declaration | ast.Expr | None:
        if self.accept(";"):
            return None
        start = self.at
        while self.kind == "__extension__":
            self.next()
        if self._at_declaration():
            return self.declaration()
        self.go_to(start)
        init = self.expression()
        self.expect(";", "behind the first part of 'for'")
        return init

    def _switch(self) -> ast.Statement:
        start = self.at
        value = self._condition()
        body = self.body()
        return ast.Switch(self.span(start), value, body)

    def _goto(self) -> ast.Statement:
        start = self.at
        self.next()
        if self.kind == "*":
            raise self.fault("a BPF program cannot jump to a computed address", hint="use a switch.")
        name = self.expect_name("of a label behind 'goto'")
        self.semicolon("behind 'goto'")
        return ast.Goto(self.span(start), name)

    def _break(self) -> ast.Statement:
        start = self.at
        self.next()
        self.semicolon("behind 'break'")
        return ast.Break(self.span(start))

    def _continue(self) -> ast.Statement:
        start = self.at
        self.next()
        self.semicolon("behind 'continue'")
        return ast.Continue(self.span(start))

    def _return(self) -> ast.Statement:
        start = self.at
        self.next()
        value = None if self.kind == ";" or self.kind == "}" else self.expression()
        self.semicolon("behind 'return'")
        return ast.Return(self.span(start), value)

    def _extension_statement(self) -> ast.Statement:
        """Parse a statement or declaration behind `__extension__`."""
        start = self.at
        while self.kind == "__extension__":
            self.next()
        if self._at_declaration():
            return self.declaration()
        self.go_to(start)
        return self._expression_statement()

    def _at_declaration(self) -> bool:
        """Whether a declaration begins at the cursor."""
        return self.kind in DECLARATION_STARTS or (self.kind == "name" and self._begins_declaration_at(self.at))

    def _refuse_local_labels(self) -> ast.Statement:
        raise self.fault(
            "local labels (__label__) are not supported", hint="give each label of the function a name of its own."
        )

    def _pragma(self) -> ast.Statement:
        """Parse the statement behind pragmas; what is said of unrolling must stand before a loop."""
        at = self.at
        while self.kind == "pragma":
            self.pragma()
        if self.unroll and self.kind not in _LOOPS:
            raise self.fault("expected a loop behind this #pragma", self.tokens[at].span)
        return self.statement()

    def pragma(self) -> None:
        """Take a pragma in; see `parser_pragmas`."""
        raise NotImplementedError

    # inline assembly ------------------------------------------------------------------------------------------

    def _asm(self) -> ast.Statement:
        start = self.at
        self.next()
        while self.kind in ("volatile", "inline", "goto"):
            if self.kind == "goto":
                raise self.fault("'asm goto' is not supported", hint="test a value that the assembly writes.")
            self.next()
        opened = self.at
        self.expect("(", "behind 'asm'")
        template = self.string().value.decode("latin-1")
        outputs = self._asm_operands()
        inputs = self._asm_operands()
        clobbers = self._asm_clobbers()
        self.expect_close(")", opened)
        self.semicolon("behind 'asm'")
        return ast.Asm(self.span(start), template, outputs, inputs, clobbers)

    def _asm_operands(self) -> tuple[ast.AsmOperand, ...]:
        operands: list[ast.AsmOperand] = []
        if not self.accept(":"):
            return ()
        while self.kind == "[" or self.kind == "string":
            start = self.at
            name = ""
            if self.accept("["):
                name = self.expect_name("of an operand")
                self.expect("]", "behind the name of an operand")
            constraint = self.string().value.decode("latin-1")
            opened = self.at
            self.expect("(", "behind a constraint")
            self.enter()
            expr = self.expression()
            self.depth -= 1
            self.expect_close(")", opened)
            operands.append(ast.AsmOperand(self.span(start), name, constraint, expr))
            if not self.accept(","):
                break
        return tuple(operands)

    def _asm_clobbers(self) -> tuple[str, ...]:
        clobbers: list[str] = []
        if self.accept(":"):
            while self.kind == "string":
                clobbers.append(self.string().value.decode("latin-1"))
                if not self.accept(","):
                    break
        return tuple(clobbers)

    # recovery -------------------------------------------------------------------------------------------------

    def refuse_nested_function(self, start: int, name: str) -> None:
        """Report that a function begins where one is still open, and go on at file level."""
        opened = self.tokens[self._blocks[-1]].span
        note = diagnose(opened, "this '{' may be the one that is not closed", severity="NOTE")
        place = self.tokens[self.at].span
        message = f"function '{name}' begins inside another one"
        self.report(diagnose(place, message, hint="is a '}' missing before it?", notes=(note,)))
        self.go_to(start)
        raise Reopened

    def skip_statement(self, start: int) -> None:
        """Move behind the faulty statement that began at `start`, or before the brace that closes its block."""
        kinds = self.kinds
        braces, parens = self._depth_since(start)
        at = max(self.at, start)
        is_for = kinds[start] == "for"
        while kinds[at] != "end":
            kind = kinds[at]
            at += 1
            if kind == "{":
                braces += 1
            elif kind == "}":
                braces -= 1
                if braces < 0:
                    at -= 1
                    break
                if braces == 0 and kinds[at] != "else" and kinds[at] not in _INSIDE:
                    break
            elif kind == "(":
                parens += 1
            elif kind == ")":
                parens -= 1
            elif kind == ";" and braces == 0 and not (is_for and parens > 0) and kinds[at] != "else":
                break
        if at == start and kinds[at] not in ("}", "end"):
            at += 1
        self.go_to(at)

    def _depth_since(self, start: int) -> tuple[int, int]:
        """Return how many braces and parentheses are open at the cursor since index `start`."""
        braces = parens = 0
        for kind in self.kinds[start : self.at]:
            if kind in _DEPTHS:
                braces += _DEPTHS[kind][0]
                parens += _DEPTHS[kind][1]
        return max(braces, 0), parens

    def skip_declaration(self, start: int) -> None:
        """Move behind the faulty member that began at `start`."""
        self.skip_statement(start)


_LOOPS = frozenset(["for", "while", "do"])
_INSIDE = frozenset([";", ",", ")", "."])  # behind a brace that closes an initialiser or a statement expression
_DEPTHS = {"{": (1, 0), "}": (-1, 0), "(": (0, 1), ")": (0, -1)}
_STATEMENTS: dict[str, Callable[[StatementParser], ast.Statement]] = {
    "{": StatementParser.compound,
    ";": StatementParser._empty,
    "if": StatementParser._if,
    "while": StatementParser._while,
    "do": StatementParser._do,
    "for": StatementParser._for,
    "switch": StatementParser._switch,
    "case": StatementParser._labelled,
    "default": StatementParser._labelled,
    "goto": StatementParser._goto,
    "break": StatementParser._break,
    "continue": StatementParser._continue,
    "return": StatementParser._return,
    "asm": StatementParser._asm,
    "pragma": StatementParser._pragma,
    "_Static_assert": StatementParser.static_assert,
    "__attribute__": StatementParser._attributed,
    "__extension__": StatementParser._extension_statement,
    "__label__": StatementParser._refuse_local_labels,
}
