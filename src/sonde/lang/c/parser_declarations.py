"""Declarations of C, from tokens to the tree: declarators, parameters, initialisers, type names."""

from __future__ import annotations

from . import ast
from .parser_cursor import Fault
from .parser_types import TypeParser
from .parser_words import QUALIFIERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    Designator = ast.MemberDesignator | ast.IndexDesignator


class DeclarationParser(TypeParser):
    """Parses declarations, at file level and in blocks."""

    def type_name(self) -> ast.TypeName:
        """Parse a type as casts and sizeof have it. Raises Fault."""
        start = self.at
        if self.kind == "name" and not self.is_type_name(self.tokens[start].text):
            raise self.unknown_type()
        specifiers = self.specifiers()
        if specifiers.storage:
            raise self.fault(f"'{specifiers.storage}' cannot stand in a type name", self.tokens[start].span)
        if self.kind == ")" or self.kind == ",":  # nearly always
            declarator = ast.Declarator(self.span_of_nothing(), "")
        else:
            declarator = self.declarator(False)
        return ast.TypeName(self.span(start), specifiers, declarator)

    # declarators ----------------------------------------------------------------------------------------------

    def declarator(self, named: bool | None) -> ast.Declarator:
        """Parse a declarator with the attributes around it: with a name, without (False), or with or without (None). Raises Fault."""
        start = self.at
        attributes: list[ast.Attribute] = []
        if self.kind == "__attribute__":
            self.attributes(attributes)
        name, derived = self.declarator_parts(named, attributes)
        if self.kind == "asm":
            self._assembler_name(attributes)
        if self.kind == "__attribute__":
            self.attributes(attributes)
        span = self.span(start) if self.at > start else self.span_of_nothing()
        return ast.Declarator(span, name, tuple(derived), tuple(attributes))

    def declarator_parts(self, named: bool | None, attributes: list[ast.Attribute]) -> tuple[str, list[ast.Derived]]:
        """Parse a declarator; return its name and what it is, from the name outwards. Raises Fault."""
        pointers: list[ast.Derived] = []
        while self.kind == "*":
            pointers.append(self._pointer())
        name = ""
        derived: list[ast.Derived] = []
        if self.kind == "name" and named is not False:
            name = self.tokens[self.at].text
            self.next()
        elif self.kind == "(" and self._opens_declarator(named):
            name, derived = self._nested_declarator(named, attributes)
        elif named:
            raise self._no_name()
        while self.kind == "[" or self.kind == "(":
            derived.append(self._array() if self.kind == "[" else self._function())
        if pointers:
            pointers.reverse()
            derived += pointers
        if len(derived) > 3:
            self.check_chain(len(derived))
        return name, derived

    def _no_name(self) -> Fault:
        if self.tokens[self.at].kind == "name":
            return self.fault(f"expected a name, but '{self.tokens[self.at].text}' is a word of the language")
        return self.unexpected("a name")

    def _pointer(self) -> ast.PointerTo:
        start = self.at
        qualifiers: list[str] = []
        attributes: list[ast.Attribute] = []
        self.next()
        while True:
            if self.kind in QUALIFIERS:
                if self.kind not in qualifiers:
                    qualifiers.append(self.kind)
                self.next()
            elif self.kind == "__attribute__":
                self.attributes(attributes)
            else:
                return ast.PointerTo(self.span(start), tuple(qualifiers), tuple(attributes))

    def _opens_declarator(self, named: bool | None) -> bool:
        """Whether the parenthesis at the cursor holds a declarator, and not parameters."""
        at = self.at
        self.go_to(self.behind_attributes(at + 1))
        kind = self.kind
        if kind == "name":
            answer = named is True or (named is None and not self.at_type())
        else:
            answer = kind in ("*", "(", "[") or (named is True and kind != ")")
        self.go_to(at)
        return answer

    def _nested_declarator(self, named: bool | None, into: list[ast.Attribute]) -> tuple[str, list[ast.Derived]]:
        opened = self.at
        self.next()
        self.enter()
        self.attributes(into)
        name, derived = self.declarator_parts(named, into)
        self.attributes(into)
        self.depth -= 1
        self.expect_close(")", opened)
        return name, derived

    def _array(self) -> ast.ArrayOf:
        opened = self.at
        self.next()
        while self.kind == "static" or self.kind in QUALIFIERS:  # of a parameter, whose array is a pointer anyway
            self.next()
        size: ast.Expr | None = None
        if self.kind == "*" and self.kinds[self.at + 1] == "]":
            self.next()
        elif self.kind != "]":
            self.enter()
            size = self.assignment()
            self.depth -= 1
        self.expect_close("]", opened)
        return ast.ArrayOf(self.span(opened), size)

    def _function(self) -> ast.FunctionOf:
        opened = self.at
        self.next()
        if self.kind == ")":
            self.next()
            return ast.FunctionOf(self.span(opened), (), False, False)
        if self.kind == "void" and self.kinds[self.at + 1] == ")":
            self.next()
            self.next()
            return ast.FunctionOf(self.span(opened), ())
        self.enter()
        self.open_scope()
        params: list[ast.ParamDecl] = []
        variadic = False
        while True:
            if self.kind == "...":
                variadic = self._ellipsis(params)
                break
            params.append(self._parameter())
            if self.kind != ",":
                break
            self.next()
        self.close_scope()
        self.depth -= 1
        self.expect_close(")", opened)
        return ast.FunctionOf(self.span(opened), tuple(params), variadic)

    def _ellipsis(self, params: list[ast.ParamDecl]) -> bool:
        if not params:
            raise self.fault("a parameter with a name is needed before '...'")
        self.next()
        return True

    def _parameter(self) -> ast.ParamDecl:
        start = self.at
        if self.kind == "name":
            name = self.tokens[start].text
            if not self.is_type_name(name):
                self.report(self.unknown_type().diagnostic)
                self.declare(name, True)
        specifiers = self.specifiers()
        if specifiers.storage not in ("", "register"):
            raise self.fault(f"a parameter cannot be '{specifiers.storage}'", self.tokens[start].span)
        declarator = self.declarator(None)
        if declarator.name:
            self.declare(declarator.name, False)
        return ast.ParamDecl(self.span(start), specifiers, declarator)

    def _assembler_name(self, into: list[ast.Attribute]) -> None:
        """Parse `asm("name")` behind a declarator: an attribute "asm_label"."""
        start = self.at
        opened = self._open()
        name = self.string()
        self._close(opened)
        into.append(ast.Attribute(self.span(start), "asm_label", (name,)))

    # declarations ---------------------------------------------------------------------------------------------

    def declaration(self) -> ast.Declaration:
        """Parse a declaration in a block, with its semicolon. Raises Fault."""
        start = self.at
        specifiers = self.specifiers()
        if self.kind == ";":
            self.next()
            return ast.Declaration(self.span(start), specifiers)
        at = self.at
        first = self.declarator(True)
        if self.kind == "{" and first.derived and isinstance(first.derived[0], ast.FunctionOf):
            self.refuse_nested_function(start, first.name)
        return self.declaration_behind(start, specifiers, first, at)

    def refuse_nested_function(self, start: int, name: str) -> None:
        """Report that a function begins where one is still open, and go on at file level."""
        raise NotImplementedError

    def declaration_behind(
        self, start: int, specifiers: ast.Specifiers, first: ast.Declarator, at: int
    ) -> ast.Declaration:
        """Parse the rest of a declaration behind its first declarator, which began at index `at`. Raises Fault."""
        is_type = specifiers.storage == "typedef"
        self.declare(first.name, is_type)
        declarators = [self._initialised(first, at)]
        while self.kind == ",":
            self.next()
            at = self.at
            declarator = self.declarator(True)
            self.declare(declarator.name, is_type)
            declarators.append(self._initialised(declarator, at))
        self.semicolon("behind the declaration")
        return ast.Declaration(self.span(start), specifiers, tuple(declarators))

    def _initialised(self, declarator: ast.Declarator, start: int) -> ast.InitDeclarator:
        if self.kind != "=":
            return ast.InitDeclarator(declarator.span, declarator)
        self.next()
        init = self.initialiser()
        return ast.InitDeclarator(self.span(start), declarator, init)

    def static_assert(self) -> ast.StaticAssert:
        """Parse `_Static_assert(condition, "message");`. Raises Fault."""
        start = self.at
        opened = self._open()
        condition = self.constant()
        message = self.string().value.decode("utf-8", "replace") if self.accept(",") else ""
        self._close(opened)
        self.expect(";", "behind _Static_assert")
        return ast.StaticAssert(self.span(start), condition, message)

    # initialisers ---------------------------------------------------------------------------------------------

    def initialiser(self) -> ast.Init:
        """Parse what stands behind `=`. Raises Fault."""
        return self.init_list() if self.kind == "{" else self.assignment()

    def init_list(self) -> ast.InitList:
        """Parse `{ … }`. Raises Fault."""
        opened = self.at
        self.next()
        self.enter()
        items: list[ast.InitItem] = []
        while self.kind != "}":
            items.append(self._init_item())
            if self.kind != ",":
                break
            self.next()
        self.depth -= 1
        self.expect_close("}", opened)
        return ast.InitList(self.span(opened), tuple(items))

    def _init_item(self) -> ast.InitItem:
        start = self.at
        designators: tuple[Designator, ...] = ()
        if self.kind == "." or self.kind == "[":
            designators = self._designators()
        elif self.kind == "name" and self.kinds[start + 1] == ":":
            designators = (ast.MemberDesignator(self.tokens[start].span, self.tokens[start].text),)
            self.go_to(start + 2)
        init = self.initialiser()
        return ast.InitItem(self.span(start), designators, init)

    def _designators(self) -> tuple[Designator, ...]:
        found: list[Designator] = []
        while self.kind == "." or self.kind == "[":
            start = self.at
            self.next()
            if self.kinds[start] == ".":
                name = self._member_name(".")
                found.append(ast.MemberDesignator(self.span(start), name))
            else:
                low = self.constant()
                high = self.constant() if self.accept("...") else None
                self.expect_close("]", start)
                found.append(ast.IndexDesignator(self.span(start), low, high))
        self.check_chain(len(found))
        if isinstance(found[-1], ast.MemberDesignator) or self.kind == "=":
            self.expect("=", "behind a designator")
        return tuple(found)
