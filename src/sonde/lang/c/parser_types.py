"""Types of C, from tokens to the tree: specifiers, struct, union and enum, attributes."""

from __future__ import annotations

from ..source import diagnose
from . import ast
from .parser_cursor import Fault, UnknownTypeName
from .parser_expressions import ExpressionParser
from .parser_words import BASIC_TYPES, BASIC_WORDS, QUALIFIERS, STORAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Specifiers:
    """What has been read of a declaration's specifiers. `words` are those of a basic type, `word_at` the index of the first."""

    __slots__ = ("attributes", "inline", "qualifiers", "storage", "type", "word_at", "word_end", "words")

    def __init__(self) -> None:
        self.type: ast.TypeSyntax | None = None
        self.words: list[str] = []
        self.word_at = self.word_end = 0
        self.qualifiers: list[str] = []
        self.storage = ""
        self.inline = False
        self.attributes: list[ast.Attribute] = []


class TypeParser(ExpressionParser):
    """Parses what names or defines a type."""

    def declarator_parts(self, named: bool | None, attributes: list[ast.Attribute]) -> tuple[str, list[ast.Derived]]:
        """Parse a declarator in parts; see `parser_declarations`."""
        raise NotImplementedError

    def specifiers(self) -> ast.Specifiers:
        """Parse storage class, qualifiers, type and attributes, in any order. Raises Fault."""
        start = self.at
        found = Specifiers()
        while True:
            kind = self.kind
            if kind == "name":
                if found.type is not None or found.words or not self._at_known_type():
                    break
                token = self.tokens[self.at]
                self.next()
                found.type = ast.NamedType(token.span, token.text)
                continue
            parse = _SPECIFIERS.get(kind)
            if parse is None:
                break
            parse(self, found)
        type_ = found.type
        if type_ is None:
            type_ = self._basic_type(found) if found.words else self._no_type(start)
        return ast.Specifiers(
            self.span(start), type_, tuple(found.qualifiers), found.storage, found.inline, tuple(found.attributes)
        )

    def _at_known_type(self) -> bool:
        """Whether the name at the cursor is a type, or stands where it must have been meant as one (an error, then)."""
        name = self.tokens[self.at].text
        if self.is_type_name(name):
            return True
        if self._must_be_type():
            if (
                self.kinds[self.at + 1] == self.kinds[self.at + 2] == "name"
            ):  # `strct data x`: what follows makes no sense
                raise self.unknown_type()
            self.report(self.unknown_type().diagnostic)
            self.declare(name, True)
            return True
        return False

    def _must_be_type(self) -> bool:
        """Whether a declaration follows the name at the cursor: `name name`, `name *name`, `name **`."""
        kinds, at = self.kinds, self.at + 1
        while kinds[at] in QUALIFIERS:
            at += 1
        if kinds[at] == "name":
            return True
        stars = 0
        while kinds[at] == "*" or kinds[at] in QUALIFIERS:
            stars += 1
            at += 1
        return stars > 0 and (kinds[at] == "name" or kinds[at] in (")", ","))

    def unknown_type(self) -> Fault:
        """Make the error that the name at the cursor is no type; its diagnostic is an `UnknownTypeName`."""
        token = self.tokens[self.at]
        plain = diagnose(token.span, f"unknown type name '{token.text}'")
        return Fault(UnknownTypeName(plain.severity, plain.message, plain.span, plain.excerpt, name=token.text))

    def _no_type(self, start: int) -> ast.TypeSyntax:
        """Raise Fault: a type was expected behind the specifiers that began at `start`."""
        if self.kind == "name" and self.kinds[self.at + 1] not in ("=", ";", ","):
            raise self.unknown_type()
        if self.at > start:
            raise self.unexpected("a type behind " + f"'{self.tokens[self.at - 1].text}'")
        raise self.unexpected("a type")

    # parts of specifiers --------------------------------------------------------------------------------------

    def _word(self, found: Specifiers) -> None:
        if found.type is not None:
            raise self._second_type(found)
        if not found.words:
            found.word_at = self.at
        found.words.append(self.kind)
        self.next()
        found.word_end = self.at

    def _second_type(self, found: Specifiers) -> Fault:
        type_ = found.type
        if isinstance(type_, (ast.StructType, ast.EnumType)) and self._ends_definition(type_):
            return self.missing(";", f"behind the definition of '{_tag(type_)}'")
        return self.fault(f"'{self.tokens[self.at].text}' cannot be combined with the type before it")

    def _ends_definition(self, type_: ast.StructType | ast.EnumType) -> bool:
        body = type_.members if isinstance(type_, ast.StructType) else type_.enumerators
        return body is not None and self.kinds[self.at - 1] == "}"

    def _basic_type(self, found: Specifiers) -> ast.TypeSyntax:
        words = found.words
        if len(words) > 1 and tuple(sorted(words)) not in BASIC_TYPES:
            place = self.span(found.word_at)
            raise self.fault(f"there is no type '{' '.join(words)}'", place)
        if len(words) == 1 and words[0] == "_Complex":
            raise self.fault(
                "there is no type '_Complex' without a floating-point type", self.tokens[found.word_at].span
            )
        end = self.at
        self.at = found.word_end
        span = self.span(found.word_at)
        self.at = end
        return ast.BasicType(span, tuple(words))

    def _qualifier(self, found: Specifiers) -> None:
        kind = self.kind
        at = self.at
        self.next()
        if kind == "_Atomic" and self.kind == "(":
            self._atomic_type(found, at)
        if kind not in found.qualifiers:
            found.qualifiers.append(kind)

    def _atomic_type(self, found: Specifiers, start: int) -> None:
        """Parse `(type)` behind _Atomic: the type, qualified by it."""
        opened = self.at
        if found.type is not None or found.words:
            raise self.fault("a type follows _Atomic, but there is one already")
        self.next()
        self.enter()
        operand = self.type_name()
        self.depth -= 1
        self.expect_close(")", opened)
        found.type = ast.TypeofType(self.span(start), operand)

    def _storage(self, found: Specifiers) -> None:
        kind = self.kind
        if found.storage and found.storage != kind:
            raise self.fault(f"'{kind}' cannot be combined with '{found.storage}'")
        found.storage = kind
        self.next()

    def _inline(self, found: Specifiers) -> None:
        found.inline = True
        self.next()

    def _attributes_of(self, found: Specifiers) -> None:
        self.attributes(found.attributes)

    def _alignas(self, found: Specifiers) -> None:
        start = self.at
        opened = self._open()
        operand = self.type_name() if self.at_type() else self.constant()
        self._close(opened)
        found.attributes.append(ast.Attribute(self.span(start), "aligned", (operand,)))

    def _noreturn(self, found: Specifiers) -> None:
        found.attributes.append(ast.Attribute(self.tokens[self.at].span, "noreturn"))
        self.next()

    def _thread_local(self, found: Specifiers) -> None:
        raise self.fault("a BPF program has no thread-local variables", hint="use a per-CPU array or task storage.")

    # struct, union, enum, typeof ------------------------------------------------------------------------------

    def _tagged(self, found: Specifiers) -> None:
        if found.type is not None or found.words:
            raise self._second_type(found)
        found.type = self._enum() if self.kind == "enum" else self._struct()

    def _struct(self) -> ast.StructType:
        start = self.at
        kind = self.kind
        attributes: list[ast.Attribute] = []
        self.next()
        self.attributes(attributes)
        name = self._tag_name()
        members = None
        if self.kind == "{":
            self.enter()
            members = self._members()
            self.depth -= 1
            self.attributes(attributes)
        elif not name:
            raise self.unexpected(f"a name or '{{' behind '{kind}'")
        if members is not None:
            attributes += self.packing()
        return ast.StructType(self.span(start), kind, name, members, tuple(attributes))

    def packing(self) -> list[ast.Attribute]:
        """Return what `#pragma pack` says about the struct just read."""
        raise NotImplementedError

    def pragma(self) -> None:
        """Take in the pragma at the cursor. Raises Fault."""
        raise NotImplementedError

    def _tag_name(self) -> str:
        if self.kind != "name":
            return ""
        name = self.tokens[self.at].text
        self.next()
        return name

    def _members(self) -> tuple[ast.MemberDecl, ...]:
        opened = self.at
        members: list[ast.MemberDecl] = []
        self.next()
        while self.kind != "}":
            if self.kind == "end":
                raise self.unclosed(opened)
            start, depth, scopes = self.at, self.depth, self.open_scopes
            try:
                self._member_declaration(members)
            except Fault as fault:
                self.report(fault.diagnostic)
                self.depth = depth
                self.close_scopes(scopes)
                self.skip_declaration(start)
        self.next()
        return tuple(members)

    def skip_declaration(self, start: int) -> None:
        """Move behind the faulty declaration that began at `start`."""
        raise NotImplementedError

    def _member_declaration(self, members: list[ast.MemberDecl]) -> None:
        while self.kind == "__extension__":
            self.next()
        if self.kind == ";" or self.kind == "pragma":
            self.next() if self.kind == ";" else self.pragma()
            return
        if self.kind == "_Static_assert":
            raise self.fault("a _Static_assert inside a struct is not supported", hint="write it behind the struct.")
        start = self.at
        specifiers = self.specifiers()
        if specifiers.storage:
            raise self.fault(f"a member cannot be '{specifiers.storage}'", self.tokens[start].span)
        if self.kind == ";":
            members.append(ast.MemberDecl(self.span(start), specifiers, None))
            self.next()
            return
        while True:
            members.append(self._member(specifiers))
            if self.kind != ",":
                break
            self.next()
        self.semicolon("behind a member")

    def _member(self, specifiers: ast.Specifiers) -> ast.MemberDecl:
        start = self.at
        attributes: list[ast.Attribute] = []
        declarator = None
        width = None
        self.attributes(attributes)
        if self.kind != ":":
            at = self.at
            name, derived = self.declarator_parts(True, attributes)
            declarator = ast.Declarator(self.span(at), name, tuple(derived))
            self.attributes(attributes)
        if self.kind == ":":
            self.next()
            width = self.constant()
        self.attributes(attributes)
        return ast.MemberDecl(self.span(start), specifiers, declarator, width, tuple(attributes))

    def _enum(self) -> ast.EnumType:
        start = self.at
        attributes: list[ast.Attribute] = []
        self.next()
        self.attributes(attributes)
        name = self._tag_name()
        enumerators = None
        if self.kind == "{":
            self.enter()
            enumerators = self._enumerators()
            self.depth -= 1
            self.attributes(attributes)
        elif not name:
            raise self.unexpected("a name or '{' behind 'enum'")
        return ast.EnumType(self.span(start), name, enumerators, tuple(attributes))

    def _enumerators(self) -> tuple[ast.Enumerator, ...]:
        opened = self.at
        enumerators: list[ast.Enumerator] = []
        self.next()
        while True:
            start = self.at
            name = self.expect_name("of an enumeration constant")
            attributes: list[ast.Attribute] = []
            self.attributes(attributes)
            value = self.constant() if self.accept("=") else None
            self.declare(name, False)
            enumerators.append(ast.Enumerator(self.span(start), name, value, tuple(attributes)))
            if not self.accept(",") or self.kind == "}":
                break
        self.expect_close("}", opened)
        return tuple(enumerators)

    def _typeof(self, found: Specifiers) -> None:
        start = self.at
        if found.type is not None or found.words:
            raise self._second_type(found)
        unqualified = self.kind == "typeof_unqual"
        opened = self._open()
        operand = self.type_name() if self.at_type() else self.expression()
        self._close(opened)
        found.type = ast.TypeofType(self.span(start), operand, unqualified)

    # attributes -----------------------------------------------------------------------------------------------

    def attributes(self, into: list[ast.Attribute]) -> None:
        """Parse any number of `__attribute__((…))`. Raises Fault."""
        while self.kind == "__attribute__":
            self.next()
            outer = self.at
            self.expect("(", "behind __attribute__")
            inner = self.at
            self.expect("(", "behind __attribute__(")
            self.enter()
            while True:
                if self.kind != "," and self.kind != ")":
                    into.append(self._attribute())
                if not self.accept(","):
                    break
            self.depth -= 1
            self.expect_close(")", inner)
            self.expect_close(")", outer)

    def _attribute(self) -> ast.Attribute:
        start = self.at
        name = self.tokens[start].text
        if self.tokens[start].kind != "name":
            raise self.unexpected("the name of an attribute")
        self.next()
        args: list[ast.Expr | ast.TypeName] = []
        if self.kind == "(":
            opened = self.at
            self.next()
            while self.kind != ")":
                args.append(self.type_name() if self.at_type() else self.assignment())
                if not self.accept(","):
                    break
            self.expect_close(")", opened)
        return ast.Attribute(self.span(start), bare_name(name), tuple(args))


def bare_name(name: str) -> str:
    """Return the name of an attribute without the underscores around it."""
    return name[2:-2] if len(name) > 4 and name.startswith("__") and name.endswith("__") else name


def _tag(type_: ast.StructType | ast.EnumType) -> str:
    kind = type_.kind if isinstance(type_, ast.StructType) else "enum"
    return f"{kind} {type_.name}".rstrip()


_SPECIFIERS: dict[str, Callable[[TypeParser, Specifiers], None]] = {
    **dict.fromkeys(BASIC_WORDS, TypeParser._word),
    **dict.fromkeys(STORAGE, TypeParser._storage),
    **dict.fromkeys(QUALIFIERS, TypeParser._qualifier),
    **dict.fromkeys(["struct", "union", "enum"], TypeParser._tagged),
    "inline": TypeParser._inline,
    "typeof": TypeParser._typeof,
    "typeof_unqual": TypeParser._typeof,
    "__attribute__": TypeParser._attributes_of,
    "_Alignas": TypeParser._alignas,
    "_Noreturn": TypeParser._noreturn,
    "_Thread_local": TypeParser._thread_local,
}
