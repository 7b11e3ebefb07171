"""C definitions inside a script to types and constants: struct, union, enum, typedef, #define.

The preprocessor (`cpreproc`) goes first; what remains is parsed here, declaration by declaration, and laid out
(`debuginfo.layout`). Types that a script does not define come from `lookup`, which is the kernel's BTF.
"""

from __future__ import annotations

from ...debuginfo.ctype import (
    VOID,
    Array,
    CType,
    Enum,
    Float,
    Forward,
    FuncProto,
    Int,
    Pointer,
    Typedef,
    Void,
    sizeof,
    strip,
)
from ...debuginfo.layout import MemberDecl, lay_out
from ...errors import CompileError
from ...record import Record
from ..source import Place
from . import ast
from .cconst import Evaluator
from .cpreproc import CMacro, CToken, Preprocessor, c_error, unquote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ...debuginfo.ctype import TypeRef
    from ..source import Source

    Lookup = Callable[[str], "CType | None"]


class CScope(Record, eq=False):
    """What the C definitions of a script define.

    `types` has the keys "struct s", "union u", "enum e" and typedef names. `enumerators` maps the name of an enumerator to
    its enumeration. `constants` are the macros that are a number or a string, `macros` the text of the others.
    """

    types: dict[str, CType]
    constants: dict[str, int | str]
    enumerators: dict[str, Enum]
    macros: dict[str, str]


def parse_c(
    definitions: Iterable[ast.CDefinition],
    lookup: Lookup | None,
    arch: str = "x86_64",
    directories: Sequence[str] = (),
) -> CScope:
    """Parse the C definitions of a script. `lookup` finds a type of the kernel by a key of `CScope.types`.

    `directories` are searched for headers. `lookup` None means that the kernel has no BTF. Raises CompileError.
    """
    predefined = {"__LP64__": "1", "__linux__": "1", f"__{arch}__": "1", "__KERNEL__": "1"}
    if lookup is not None:
        predefined["BPFTRACE_HAVE_BTF"] = "1"
    from .headers import Headers

    headers = Headers(directories)
    preprocessor = Preprocessor(predefined, lookup is not None, headers)
    tokens = preprocessor.run(definitions)
    parser = _Parser(tokens, preprocessor.header_constants, lookup, arch)
    parser.headers = headers.sources
    parser.parse_all()
    constants: dict[str, int | str] = dict(preprocessor.header_constants)
    macros: dict[str, str] = {}
    for name, macro in preprocessor.macros.items():
        if name not in predefined and macro.params is None and macro.body:
            value = _constant_of(macro, preprocessor, parser)
            if value is None:
                macros[name] = " ".join(t.text for t in macro.body)
            else:
                constants[name] = value
    return CScope(parser.types, constants, parser.enumerators, macros)


def _constant_of(macro: CMacro, preprocessor: Preprocessor, parser: _Parser) -> int | str | None:
    """The value of an object-like macro; None when it is not a constant."""
    try:
        tokens = preprocessor.expand(list(macro.body))
        if tokens and all(t.kind == "string" for t in tokens):
            return "".join(unquote(t) for t in tokens)
        return parser.evaluate_tokens(tokens)
    except CompileError:
        return None


_QUALIFIERS = frozenset(
    ["const", "volatile", "restrict", "__const", "__volatile__", "__restrict", "__restrict__", "__extension__", "_Atomic",
     "static", "extern", "inline", "__inline", "register", "__user", "__kernel", "__rcu", "__percpu", "__iomem"]
)  # fmt: skip
_INT_WORDS = frozenset(
    ["char", "short", "int", "long", "signed", "unsigned", "__signed__", "_Bool", "float", "double", "__int128", "void"]
)  # fmt: skip
_STANDARD = {
    "bool": "_Bool", "u8": "unsigned char", "s8": "signed char", "u16": "unsigned short", "s16": "short", "u32": "unsigned",
    "s32": "int", "u64": "unsigned long long", "s64": "long long", "__u8": "unsigned char", "__s8": "signed char",
    "__u16": "unsigned short", "__s16": "short", "__u32": "unsigned", "__s32": "int", "__u64": "unsigned long long",
    "__s64": "long long", "__be16": "unsigned short", "__be32": "unsigned", "__be64": "unsigned long long",
    "__le16": "unsigned short", "__le32": "unsigned", "__le64": "unsigned long long", "int8_t": "signed char",
    "uint8_t": "unsigned char", "int16_t": "short", "uint16_t": "unsigned short", "int32_t": "int", "uint32_t": "unsigned",
    "int64_t": "long", "uint64_t": "unsigned long", "size_t": "unsigned long", "ssize_t": "long", "off_t": "long",
    "loff_t": "long long", "ptrdiff_t": "long", "intptr_t": "long", "uintptr_t": "unsigned long", "time_t": "long",
    "pid_t": "int", "uid_t": "unsigned", "gid_t": "unsigned", "mode_t": "unsigned", "dev_t": "unsigned long",
    "ino_t": "unsigned long", "sa_family_t": "unsigned short", "socklen_t": "unsigned", "in_addr_t": "unsigned",
    "in_port_t": "unsigned short",
}  # fmt: skip
_TAGS = ("struct", "union", "enum")
MAX_NESTING = 32
MAX_BYTES = 1 << 40


def _closer(tokens: list[CToken], at: int) -> int:
    """The index of what closes the bracket at `at`, or of the last token."""
    depth = 0
    while at < len(tokens) - 1:
        depth += (tokens[at].kind in ("(", "[", "{")) - (tokens[at].kind in (")", "]", "}"))
        if depth <= 0:
            break
        at += 1
    return at


class _Attributes:
    """Attributes met on the way."""

    __slots__ = ("aligned", "packed")

    def __init__(self) -> None:
        self.aligned = 0
        self.packed = False


class _TokenList:
    """A cursor over the tokens of all definitions; the last one has the kind "end"."""

    def __init__(self, tokens: list[CToken]) -> None:
        from .cpreproc import NOWHERE

        end = CToken("end", "", tokens[-1].span if tokens else NOWHERE)
        self.tokens = [*tokens, end]
        self.at = 0

    @property
    def token(self) -> CToken:
        return self.tokens[self.at]

    def accept(self, kind: str) -> bool:
        if self.token.kind != kind:
            return False
        self.at += 1
        return True

    def expect(self, kind: str) -> None:
        if not self.accept(kind):
            found = f"'{self.token.text}'" if self.token.text else "the end"
            raise c_error(self.token.span, f"expected '{kind}' in a C definition, found {found}")

    def accept_name(self) -> str:
        if self.token.kind != "name":
            return ""
        self.at += 1
        return self.tokens[self.at - 1].text


class _Parser(_TokenList):
    """Parses declarations. Names of types are resolved when a size is needed, so that pointers may look ahead."""

    def __init__(self, tokens: list[CToken], constants: dict[str, int], lookup: Lookup | None, arch: str) -> None:
        super().__init__(tokens)
        self.depth = 0
        self.header_constants = constants
        self.lookup = lookup
        self.arch = arch
        self.headers: set[Source] = set()  # texts of which only types count
        self.types: dict[str, CType] = {}
        self.enumerators: dict[str, Enum] = {}
        self.pending: dict[str, int] = {}  # enumerators of the enumeration that is being parsed

    # constants ------------------------------------------------------------------------------------------------

    def evaluate(self) -> int:
        """Evaluate the constant expression at the cursor."""
        evaluator = Evaluator(self.tokens, self.token.span, self._resolve, self._type_at)
        evaluator.at = self.at
        value = evaluator.evaluate()
        self.at = evaluator.at
        return value

    def evaluate_tokens(self, tokens: list[CToken]) -> int:
        """Evaluate other tokens, in the scope of everything that was parsed."""
        saved = self.tokens, self.at
        self.tokens = [*tokens, self.tokens[-1]]
        self.at = 0
        try:
            value = self.evaluate()
            if self.token.kind != "end":
                raise c_error(self.token.span, f"'{self.token.text}' does not belong in a constant expression")
        finally:
            self.tokens, self.at = saved
        return value

    def _resolve(self, name: str) -> int | None:
        if name in self.pending:
            return self.pending[name]
        enum = self.enumerators.get(name)
        return self.header_constants.get(name) if enum is None else enum.values[name]

    def _type_at(self, at: int) -> tuple[int, bool, int] | None:
        """The callback of Evaluator: (size, signed, index behind) of the type name at `at`."""
        token = self.tokens[at]
        if token.kind != "name" or not self._begins_type(token.text):
            return None
        saved = self.at
        self.at = at
        base = self._parse_specifiers(_Attributes())
        _, ref = self._parse_declarator(base)
        ctype = self._complete(ref, token)
        end, self.at = self.at, saved
        inner = strip(ctype)
        return sizeof(ctype), isinstance(inner, Int) and inner.signed, end

    def _begins_type(self, word: str) -> bool:
        if word in _TAGS or word in _INT_WORDS or word in _QUALIFIERS:
            return True
        return word not in self.pending and word not in self.enumerators and self._find_typedef(word) is not None

    # declarations ---------------------------------------------------------------------------------------------

    def parse_all(self) -> None:
        """Parse everything up to the end of the tokens."""
        while self.token.kind != "end":
            if not self.accept(";") and not self._skip_object():
                self._parse_declaration()

    def _skip_object(self) -> bool:
        """Pass over a function or variable of a header, which scripts cannot use; True if one was there."""
        at, tokens = self.at, self.tokens
        span = tokens[at].span
        if not isinstance(span, Place) or span.source not in self.headers:
            return False
        words: list[str] = []
        while tokens[at].kind in ("name", "*"):
            if tokens[at].text in ("__attribute__", "__attribute"):
                at = _closer(tokens, at + 1)
            words.append(tokens[at].text)
            at += 1
        if "typedef" in words or (tokens[at].kind == "{" and set(words) & set(_TAGS)):
            return False
        if tokens[at].kind not in ("(", "[", "=", ",", ";") or (
            tokens[at].kind == ";" and len(words) < 3 and set(words) & set(_TAGS)
        ):
            return False  # `struct s;` declares a tag
        while tokens[at].kind not in (";", "{", "end"):
            at = _closer(tokens, at) + 1 if tokens[at].kind in ("(", "[") else at + 1
        if tokens[at].kind == "{":
            at = _closer(tokens, at)
            if tokens[at + 1].kind == ";":  # an initialiser
                at += 1
        self.at = min(at + 1, len(tokens) - 1)
        return True

    def _parse_declaration(self) -> None:
        start = self.token
        is_typedef = self.token.text == "typedef"
        if is_typedef:
            self.at += 1
        attributes = _Attributes()
        base = self._parse_specifiers(attributes)
        while self.token.kind not in (";", "end"):
            name, ref = self._parse_declarator(base)
            self._parse_attributes(attributes)
            if not name:
                raise c_error(start.span, "expected a name in a C definition")
            if is_typedef:
                self._define(name, Typedef(name, ref), start)
            if not self.accept(","):
                break
        self.expect(";")

    def _define(self, key: str, ctype: CType, token: CToken) -> None:
        if key in self.types:
            raise c_error(token.span, f"redefinition of '{key}'")
        self.types[key] = ctype

    def _parse_specifiers(self, attributes: _Attributes) -> TypeRef:
        """Parse what stands before the declarators."""
        words: list[str] = []
        found: TypeRef | None = None
        first = self.token
        while self.token.kind == "name":
            word = self.token.text
            if word in _QUALIFIERS:
                self.at += 1
            elif self._parse_attributes(attributes):
                continue
            elif word in _INT_WORDS and found is None:
                words.append(word)
                self.at += 1
            elif word in _TAGS and found is None and not words:
                found = self._parse_enum() if word == "enum" else self._parse_struct(word)
            elif found is None and not words:
                found = self._find_typedef(word)
                if found is None:
                    raise c_error(self.token.span, f"unknown type name '{word}'", _UNKNOWN_HINT)
                self.at += 1
            else:
                break
        if found is not None:
            return found
        if not words:
            raise c_error(first.span, f"expected a type in a C definition, found '{first.text}'")
        return self._integer_type(words, first)

    def _integer_type(self, words: list[str], token: CToken) -> CType:
        """The type that words such as `unsigned long int` name, in whatever order."""
        base = [w for w in words if w not in ("signed", "unsigned", "__signed__", "int")]
        unsigned = "unsigned" in words
        if base in (["void"], ["_Bool"], ["float"], ["double"], ["long", "double"]):
            return {"void": VOID, "_Bool": Int("bool", 1, False, "bool"), "float": Float("float", 4)}.get(
                base[0], Float(" ".join(base), 8 if base == ["double"] else 16)
            )
        sizes = {"char": 1, "short": 2, "": 4, "long": 8, "long long": 8, "__int128": 16}
        size = sizes.get(" ".join(base))
        if size is None or len(words) > 5:
            raise c_error(token.span, f"'{' '.join(words)}' is not a type")
        name = " ".join(base) or "int"
        if base == ["char"]:
            signed = not unsigned and ("signed" in words or self.arch != "aarch64")
            explicit = "unsigned " if unsigned else "signed " if "signed" in words else ""
            return Int(explicit + name, 1, signed, "char")
        return Int(("unsigned " if unsigned else "") + name, size, not unsigned)

    def _find_typedef(self, name: str) -> CType | None:
        found = self.types.get(name)
        if found is None and self.lookup is not None:
            found = self.lookup(name)
        if found is None and name in _STANDARD:
            words = _STANDARD[name].split()
            found = Typedef(name, self._integer_type(words, self.token))
        return found

    def _parse_attributes(self, attributes: _Attributes) -> bool:
        """Parse attributes if some are here."""
        found = False
        while self.token.kind == "name" and self.token.text in (
            "__attribute__",
            "__attribute",
            "__packed",
            "__aligned",
        ):
            found = True
            word = self.accept_name()
            if word == "__packed":
                attributes.packed = True
            elif word == "__aligned":
                self.expect("(")
                attributes.aligned = max(attributes.aligned, self._alignment())
                self.expect(")")
            else:
                self._parse_attribute_list(attributes)
        return found

    def _parse_attribute_list(self, attributes: _Attributes) -> None:
        self.expect("(")
        self.expect("(")
        while not self.accept(")"):
            name = self.accept_name().strip("_")
            if name == "packed":
                attributes.packed = True
            if self.accept("("):
                if name == "aligned":
                    attributes.aligned = max(attributes.aligned, self._alignment())
                    self.expect(")")
                else:
                    self._skip_to_closer()
            elif name == "aligned":
                attributes.aligned = 16
            if not self.accept(",") and self.token.kind != ")":
                self.expect(")")
        self.expect(")")

    def _alignment(self) -> int:
        token = self.token
        value = self.evaluate()
        if value <= 0 or value & (value - 1) or value > 1 << 28:
            raise c_error(token.span, f"an alignment of {value} is not a power of two")
        return value

    def _skip_to_closer(self) -> None:
        depth = 1
        while depth:
            if self.token.kind == "end":
                self.expect(")")
            depth += {"(": 1, ")": -1}.get(self.token.kind, 0)
            self.at += 1

    # declarators ----------------------------------------------------------------------------------------------

    def _parse_declarator(self, base: TypeRef) -> tuple[str, TypeRef]:
        """Parse `*name[3]` and the like around `base`; the name may be missing."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise c_error(self.token.span, f"a declaration nested deeper than {MAX_NESTING} levels")
        pointers = 0
        while self.accept("*"):
            pointers += 1
            if pointers > MAX_NESTING:
                raise c_error(self.token.span, f"more than {MAX_NESTING} pointers in a row")
            base = Pointer(base)
            while self.token.kind == "name" and self.token.text in _QUALIFIERS:
                self.at += 1
            self._parse_attributes(_Attributes())
        if self.token.kind == "(":
            inner = self.at + 1
            self.at += 1
            self._skip_to_closer()
            base = self._parse_suffixes(base)
            end, self.at = self.at, inner
            result = self._parse_declarator(base)
            self.expect(")")
            self.at = end
        else:
            name = self.accept_name()
            result = name, self._parse_suffixes(base)
        self.depth -= 1
        return result

    def _parse_suffixes(self, base: TypeRef) -> TypeRef:
        """Parse `[2][3]` or `(parameters)`."""
        if self.accept("("):
            self._skip_to_closer()
            return FuncProto(base, ())
        counts: list[int] = []
        while self.token.kind == "[":
            token = self.token
            self.at += 1
            count = 0 if self.token.kind == "]" else self.evaluate()
            self.expect("]")
            if not 0 <= count <= MAX_BYTES or len(counts) >= MAX_NESTING:
                raise c_error(token.span, f"an array cannot have {count} elements")
            counts.append(count)
        for count in reversed(counts):
            base = Array(self._complete(base, self.token), count)
            if sizeof(base) > MAX_BYTES:
                raise c_error(self.token.span, "an array that large does not exist")
        return base

    def _complete(self, ref: TypeRef, token: CToken) -> CType:
        """Return the type behind a reference. Raises CompileError when it is not defined (yet)."""
        ctype = ref if isinstance(ref, CType) else ref()
        inner = strip(ctype)
        if isinstance(inner, Forward):
            hint = "define it above, or use a pointer to it."
            raise c_error(token.span, f"'{inner.kind} {inner.name}' is not defined", hint)
        return ctype

    # struct, union, enum --------------------------------------------------------------------------------------

    def _tag_reference(self, key: str) -> TypeRef:
        """A type by its tag, which may be defined further below."""
        found = self.types.get(key)
        if found is not None:
            return found

        def resolve() -> CType:
            kind, _, name = key.partition(" ")
            later = self.types.get(key)
            if later is None and self.lookup is not None:
                later = self.lookup(key)
            return later if later is not None else Forward(kind, name)

        return resolve

    def _parse_struct(self, kind: str) -> TypeRef:
        start = self.token
        self.at += 1
        attributes = _Attributes()
        self._parse_attributes(attributes)
        tag = self.accept_name()
        self._parse_attributes(attributes)
        if not self.accept("{"):
            if not tag:
                raise c_error(start.span, f"expected a name or '{{' behind '{kind}'")
            return self._tag_reference(f"{kind} {tag}")
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise c_error(start.span, f"a {kind} nested deeper than {MAX_NESTING} levels")
        members: list[MemberDecl] = []
        while not self.accept("}"):
            if not self.accept(";"):
                self._parse_members(members)
        self.depth -= 1
        self._parse_attributes(attributes)
        result = lay_out(kind, tag, members, packed=attributes.packed, aligned=attributes.aligned, arch=self.arch)
        if result.size > MAX_BYTES:
            raise c_error(start.span, f"the {kind} is too large")
        if tag:
            self._define(f"{kind} {tag}", result, start)
        return result

    def _parse_members(self, members: list[MemberDecl]) -> None:
        """Parse one declaration inside a struct: it may declare several members."""
        first = self.token
        shared = _Attributes()
        base = self._parse_specifiers(shared)
        if self.token.kind == ";":
            inner = base if isinstance(base, CType) else None
            if inner is not None and not inner.name:
                members.append(MemberDecl("", inner, -1, shared.aligned, shared.packed))
            self.at += 1
            return
        while True:
            token = self.token
            name, ref = ("", base) if token.kind == ":" else self._parse_declarator(base)
            ctype = self._complete(ref, token)
            if isinstance(strip(ctype), (Void, FuncProto)):
                raise c_error(token.span, f"'{name}' cannot be a member of this type")
            width = self._parse_width(ctype, token) if self.accept(":") else -1
            if not name and width < 0:
                raise c_error(first.span, "expected the name of a member")
            if name and any(m.name == name for m in members):
                raise c_error(token.span, f"duplicate member '{name}'")
            own = _Attributes()
            self._parse_attributes(own)
            aligned = max(own.aligned, shared.aligned)
            members.append(MemberDecl(name, ctype, width, aligned, own.packed or shared.packed))
            if not self.accept(","):
                break
        self.expect(";")

    def _parse_width(self, ctype: CType, token: CToken) -> int:
        width = self.evaluate()
        inner = strip(ctype)
        if not isinstance(inner, (Int, Enum)) or not 0 <= width <= 8 * inner.size:
            raise c_error(token.span, f"a bit-field of {width} bits does not fit its type")
        return width

    def _parse_enum(self) -> TypeRef:
        start = self.token
        self.at += 1
        attributes = _Attributes()
        self._parse_attributes(attributes)
        tag = self.accept_name()
        if not self.accept("{"):
            if not tag:
                raise c_error(start.span, "expected a name or '{' behind 'enum'")
            return self._tag_reference(f"enum {tag}")
        values: dict[str, int] = {}
        self.pending = values
        following = 0
        while not self.accept("}"):
            token = self.token
            name = self.accept_name()
            if not name:
                raise c_error(token.span, "expected the name of an enumerator")
            if name in values or name in self.enumerators:
                raise c_error(token.span, f"redefinition of '{name}'")
            values[name] = self.evaluate() if self.accept("=") else following
            following = values[name] + 1
            if not self.accept(",") and self.token.kind != "}":
                self.expect("}")
        self.pending = {}
        self._parse_attributes(attributes)
        enum = _make_enum(tag, values, attributes.packed)
        self.enumerators.update(dict.fromkeys(values, enum))
        if tag:
            self._define(f"enum {tag}", enum, start)
        return enum


_UNKNOWN_HINT = "neither the script nor the kernel's BTF defines it."


def _make_enum(tag: str, values: dict[str, int], packed: bool) -> Enum:
    """The enumeration in the type that gcc chooses for it."""
    low, high = min(values.values(), default=0), max(values.values(), default=0)
    signed = low < 0
    for size in (1, 2, 4, 8) if packed else (4, 8):
        bits = 8 * size
        if (-(1 << (bits - 1)) <= low and high < 1 << (bits - 1)) if signed else high < 1 << bits:
            break
    return Enum(tag, size, signed, values)


def expand_c_macros(program: ast.Program, scope: CScope) -> ast.Program:
    """Replace the names of macros that are expressions of the script's language. Raises CompileError."""
    if not program.words & scope.macros.keys():
        return program
    from ..source import Source
    from .parser import parse_expression
    from .rewrite import rewrite, rewrite_children

    expanding: list[str] = []

    def change(node: ast.Node) -> ast.Node | None:
        if not isinstance(node, ast.Identifier) or node.name not in scope.macros or node.name in expanding:
            return None
        if len(expanding) > MAX_NESTING:
            raise c_error(node.span, f"macros use each other more than {MAX_NESTING} levels deep")
        expanding.append(node.name)
        body = parse_expression(Source(f"#define {node.name}", scope.macros[node.name]))
        result = rewrite(body, change)
        expanding.pop()
        return result

    return rewrite_children(program, change)
