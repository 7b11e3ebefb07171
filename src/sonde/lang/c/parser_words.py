"""The words of C as the parser sees them: each spelling of a keyword and the kind of token that it stands for.

GNU's alternate spellings (`__inline__`, `__const` …) come out as the plain word, so that nobody behind this table meets them.
"""

from __future__ import annotations

_PLAIN = """
auto break case char const continue default do double else enum extern float for goto if inline int long register restrict
return short signed sizeof static struct switch typedef union unsigned void volatile while typeof typeof_unqual asm
_Alignas _Alignof _Atomic _Bool _Complex _Generic _Imaginary _Noreturn _Static_assert _Thread_local
__attribute__ __extension__ __auto_type __label__ __int128 __float128
_Float16 _Float32 _Float64 _Float128 _Float32x _Float64x
__builtin_offsetof __builtin_types_compatible_p __builtin_va_arg __bcc_table
"""
_ALTERNATE = {
    "__inline": "inline",
    "__inline__": "inline",
    "__const": "const",
    "__const__": "const",
    "__volatile": "volatile",
    "__volatile__": "volatile",
    "__restrict": "restrict",
    "__restrict__": "restrict",
    "__signed": "signed",
    "__signed__": "signed",
    "__asm": "asm",
    "__asm__": "asm",
    "__typeof": "typeof",
    "__typeof__": "typeof",
    "__typeof_unqual": "typeof_unqual",
    "__typeof_unqual__": "typeof_unqual",
    "__alignof": "_Alignof",
    "__alignof__": "_Alignof",
    "__attribute": "__attribute__",
    "__thread": "_Thread_local",
    "__complex__": "_Complex",
}
KEYWORDS = {word: word for word in _PLAIN.split()} | _ALTERNATE

STORAGE = frozenset(["typedef", "static", "extern", "register", "auto"])
QUALIFIERS = frozenset(["const", "volatile", "restrict", "_Atomic"])
_FLOATS = ["float", "double", "__float128", "_Float16", "_Float32", "_Float64", "_Float128", "_Float32x", "_Float64x"]
_PARTS = ["char", "short", "int", "long", "signed", "unsigned", "_Complex", "__int128"]
BASIC_WORDS = frozenset(["void", "_Bool", "__auto_type", *_FLOATS, *_PARTS])
TYPE_STARTS = BASIC_WORDS | QUALIFIERS | {"struct", "union", "enum", "typeof", "typeof_unqual"}
DECLARATION_STARTS = TYPE_STARTS | STORAGE | {"inline", "_Alignas", "_Noreturn", "_Thread_local", "__attribute__"}

_INTEGERS = ["char", "short", "short int", "int", "long", "long int", "long long", "long long int", "__int128"]
_TYPES = ["void", "_Bool", "__auto_type", "signed", "unsigned", *_FLOATS, "long double", *_INTEGERS]
_TYPES += [f"{sign} {name}" for sign in ("signed", "unsigned") for name in _INTEGERS]
_TYPES += [f"{name} _Complex" for name in ("float", "double", "long double")]
BASIC_TYPES = frozenset(
    tuple(sorted(name.split())) for name in _TYPES
)  # the words of every type, in order of the alphabet
