"""Names that the preprocessor answers for itself: `__LINE__` and its like, and in conditions `defined`, `__has_include` …"""

from __future__ import annotations

from .directives import header_name, whole_line
from .tokens import Token, c_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..source import Place
    from .preprocessor import Preprocessor

    Special = Callable[[Preprocessor, Token], Token]


def _made(token: Token, kind: str, text: str) -> Token:
    return Token(kind, text, token.span, token.space)


def _outermost(place: Place) -> Place:
    while place.call is not None:
        place = place.call
    return place


def _line(pp: Preprocessor, token: Token) -> Token:
    return _made(token, "number", str(_outermost(token.span).line + pp.file.line_shift))


def _quoted(token: Token, text: str) -> Token:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return _made(token, "string", f'"{text}"')


def _file(pp: Preprocessor, token: Token) -> Token:
    return _quoted(token, pp.file.name)


def _base_file(pp: Preprocessor, token: Token) -> Token:
    return _quoted(token, (pp.files[0] if pp.files else pp.file).source.name)


def _counter(pp: Preprocessor, token: Token) -> Token:
    pp.counter += 1
    return _made(token, "number", str(pp.counter - 1))


# The same text gives the same program on any day: these are what gcc says where it does not know.
_NO_TIME = {"__DATE__": "??? ?? ????", "__TIME__": "??:??:??", "__TIMESTAMP__": "??? ??? ?? ??:??:?? ????"}

SPECIALS: dict[str, Special] = {
    "__LINE__": _line,
    "__FILE__": _file,
    "__BASE_FILE__": _base_file,
    "__COUNTER__": _counter,
    "__INCLUDE_LEVEL__": lambda pp, token: _made(token, "number", str(len(pp.files))),
    **dict.fromkeys(_NO_TIME, lambda pp, token: _quoted(token, _NO_TIME[token.text])),
}


# operators of conditions ----------------------------------------------------------------------------------------------


def _truth(token: Token, value: bool) -> Token:
    return _made(token, "number", str(int(value)))


def _defined(pp: Preprocessor, token: Token) -> Token:
    """`defined X` and `defined(X)`."""
    name = pp.next_raw()
    opened = name.kind == "("
    if opened:
        name = pp.next_raw()
    if name.kind != "name":
        raise c_error(token.span, "'defined' needs the name of a macro")
    if opened and pp.next_raw().kind != ")":
        raise c_error(token.span, "'defined(' without its ')'")
    return _truth(token, pp.is_defined(name.text))


def _operand(pp: Preprocessor, token: Token) -> list[Token]:
    """Return the tokens in the parentheses behind an operator, as they are."""
    if not pp.take_parenthesis():
        raise c_error(token.span, f"{token.text} needs its operand in parentheses")
    tokens: list[Token] = []
    depth = 1
    while True:
        found = pp.next_raw()
        if found.kind == "end":
            raise c_error(token.span, f"the parenthesis of {token.text} is never closed")
        depth += (found.kind == "(") - (found.kind == ")")
        if not depth:
            return tokens
        tokens.append(found)


def _has_include(pp: Preprocessor, token: Token) -> Token:
    name, quoted = header_name(pp, _operand(pp, token), whole_line(token, []))
    return _truth(token, pp.includes.find(name, pp.file.directory if quoted else None) is not None)


def _has_builtin(pp: Preprocessor, token: Token) -> Token:
    return _truth(token, any(t.text in BUILTINS for t in _operand(pp, token)))


def _has_attribute(pp: Preprocessor, token: Token) -> Token:
    return _truth(token, any(t.text.strip("_") in ATTRIBUTES for t in _operand(pp, token)))


def _has_nothing(pp: Preprocessor, token: Token) -> Token:
    _operand(pp, token)
    return _truth(token, False)


_BUILTINS = """
memcpy memset memmove memcmp bswap16 bswap32 bswap64 constant_p expect offsetof types_compatible_p choose_expr unreachable
preserve_access_index preserve_field_info preserve_type_info preserve_enum_value btf_type_id trap clz clzl clzll ctz ctzl ctzll
popcount popcountl popcountll ffs ffsl ffsll add_overflow sub_overflow mul_overflow object_size abs labs llabs parity
"""
_ATTRIBUTES = """
always_inline noinline section packed aligned unused used preserve_access_index btf_type_tag btf_decl_tag weak visibility
fallthrough noreturn const pure cold hot deprecated cleanup may_alias malloc nonnull warn_unused_result
"""
BUILTINS = frozenset("__builtin_" + name for name in _BUILTINS.split())
ATTRIBUTES = frozenset(_ATTRIBUTES.split())
OPERATORS: dict[str, Special] = {
    "defined": _defined,
    "__has_include": _has_include,
    "__has_include_next": _has_include,
    "__has_builtin": _has_builtin,
    "__has_attribute": _has_attribute,
    "__has_c_attribute": _has_nothing,
    "__has_feature": _has_nothing,
    "__has_extension": _has_nothing,
    "__has_warning": _has_nothing,
    "__has_declspec_attribute": _has_nothing,
}
