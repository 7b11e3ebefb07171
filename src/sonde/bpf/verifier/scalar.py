"""What is known of a number in a register: known bits, unsigned and signed range, of all 64 bits and of the lower 32.

Every operation is sound: the result covers what the instruction gives for any covered operands. Where more is known in one of
the five views, `refined` brings it into the others. A Scalar never changes.
"""

from __future__ import annotations

from . import tnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .tnum import Tnum

M, W = (1 << 64) - 1, (1 << 32) - 1
TOP, TOP32 = 1 << 63, 1 << 31
S64_MIN, S64_MAX, S32_MIN, S32_MAX = -TOP, TOP - 1, -TOP32, TOP32 - 1


def to_signed(number: int, bits: int = 64) -> int:
    """The signed reading of an unsigned number of `bits` bits."""
    top = 1 << bits - 1
    return (number & (1 << bits) - 1 ^ top) - top


class Scalar:
    """A number: `bits` (known bits), umin..umax, smin..smax, and the same of its lower half, u32min..u32max, s32min..s32max."""

    __slots__ = ("bits", "s32max", "s32min", "smax", "smin", "u32max", "u32min", "umax", "umin")

    def __init__(
        self,
        bits: Tnum = tnum.UNKNOWN,
        umin: int = 0,
        umax: int = M,
        smin: int = S64_MIN,
        smax: int = S64_MAX,
        u32min: int = 0,
        u32max: int = W,
        s32min: int = S32_MIN,
        s32max: int = S32_MAX,
    ) -> None:
        self.bits = bits
        self.umin, self.umax = umin, umax
        self.smin, self.smax = smin, smax
        self.u32min, self.u32max = u32min, u32max
        self.s32min, self.s32max = s32min, s32max

    @property
    def const(self) -> int | None:
        """The number, unsigned, when there is only one."""
        return self.bits[0] if not self.bits[1] else None

    def key(self) -> tuple[object, ...]:
        """All that is known, for comparison."""
        return (
            self.bits,
            self.umin,
            self.umax,
            self.smin,
            self.smax,
            self.u32min,
            self.u32max,
            self.s32min,
            self.s32max,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scalar) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def covers(self, number: int) -> bool:
        """Tell whether an unsigned number is one of these."""
        low = number & W
        return (
            tnum.covers(self.bits, number)
            and self.umin <= number <= self.umax
            and self.smin <= to_signed(number) <= self.smax
            and self.u32min <= low <= self.u32max
            and self.s32min <= to_signed(low, 32) <= self.s32max
        )

    def contains(self, other: Scalar) -> bool:
        """Tell whether all numbers of `other` are among these (True is certain, False may err)."""
        return (
            self.umin <= other.umin
            and other.umax <= self.umax
            and self.smin <= other.smin
            and other.smax <= self.smax
            and self.u32min <= other.u32min
            and other.u32max <= self.u32max
            and self.s32min <= other.s32min
            and other.s32max <= self.s32max
            and tnum.contains(self.bits, other.bits)
        )

    @property
    def empty(self) -> bool:
        """Whether there is no such number: the branch that assumes it is never taken."""
        return (
            self.umin > self.umax
            or self.smin > self.smax
            or self.u32min > self.u32max
            or self.s32min > self.s32max
            or bool(self.bits[0] & self.bits[1])
        )

    def __str__(self) -> str:
        number = self.const
        if number is not None:
            return str(to_signed(number)) if number >= TOP else str(number)
        parts = []
        if self.smin >= 0 or self.umax <= S64_MAX:
            parts.append(f"{self.umin}..{self.umax}" if (self.umin, self.umax) != (0, M) else "")
        elif (self.smin, self.smax) != (S64_MIN, S64_MAX):
            parts.append(f"{self.smin}..{self.smax}")
        if self.u32max != W and self.umax > W:
            parts.append(f"low half {self.u32min}..{self.u32max}")
        return "a number" + (" " + ", ".join(p for p in parts if p) if any(parts) else "")


UNKNOWN = Scalar()
_small: dict[int, Scalar] = {}


def const(number: int) -> Scalar:
    """A known number, given signed or unsigned."""
    number &= M
    found = _small.get(number)
    if found is None:
        signed, low = to_signed(number), number & W
        low_signed = to_signed(low, 32)
        found = Scalar((number, 0), number, number, signed, signed, low, low, low_signed, low_signed)
        if len(_small) < 4096:
            _small[number] = found
    return found


def of_range(umin: int, umax: int) -> Scalar:
    """A number from umin to umax, unsigned."""
    return refined(tnum.of_range(umin, umax), umin, umax, S64_MIN, S64_MAX, 0, W, S32_MIN, S32_MAX)


def of_signed_range(smin: int, smax: int) -> Scalar:
    """A number from smin to smax, signed."""
    return refined(tnum.UNKNOWN, 0, M, smin, smax, 0, W, S32_MIN, S32_MAX)


def of_size(size_bytes: int, *, signed: bool = False) -> Scalar:
    """What a load of so many bytes gives."""
    if size_bytes >= 8:
        return UNKNOWN
    if signed:
        return of_signed_range(-(1 << 8 * size_bytes - 1), (1 << 8 * size_bytes - 1) - 1)
    return of_range(0, (1 << 8 * size_bytes) - 1)


def refined(
    bits: Tnum, umin: int, umax: int, smin: int, smax: int, u32min: int, u32max: int, s32min: int, s32max: int
) -> Scalar:
    """Make a Scalar in which each view knows what the others do. May be empty."""
    for _ in range(2):
        # Known bits bound the ranges.
        value, mask = bits
        umin, umax = max(umin, value), min(umax, value | mask)
        low_value, low_mask = value & W, mask & W
        u32min, u32max = max(u32min, low_value), min(u32max, low_value | low_mask)
        smin = max(smin, to_signed(value | (mask & TOP)))
        smax = min(smax, to_signed(value | (mask & ~TOP)))
        s32min = max(s32min, to_signed(low_value | (low_mask & TOP32), 32))
        s32max = min(s32max, to_signed(low_value | (low_mask & ~TOP32), 32))
        # The lower half from the whole, when the upper half is one number.
        if umin >> 32 == umax >> 32:
            u32min, u32max = max(u32min, umin & W), min(u32max, umax & W)
        if smin >> 32 == smax >> 32:
            u32min, u32max = max(u32min, smin & W), min(u32max, smax & W)
        if smin >= S32_MIN and smax <= S32_MAX:
            s32min, s32max = max(s32min, smin), min(s32max, smax)
        # Signed from unsigned and back, where the range does not cross the sign.
        if to_signed(umin) <= to_signed(umax):
            smin, smax = max(smin, to_signed(umin)), min(smax, to_signed(umax))
        if smin >= 0 or smax < 0:
            umin, umax = max(umin, smin & M), min(umax, smax & M)
        if to_signed(u32min, 32) <= to_signed(u32max, 32):
            s32min, s32max = max(s32min, to_signed(u32min, 32)), min(s32max, to_signed(u32max, 32))
        if s32min >= 0 or s32max < 0:
            u32min, u32max = max(u32min, s32min & W), min(u32max, s32max & W)
        if umin > umax or smin > smax or u32min > u32max or s32min > s32max:
            break  # empty
        # The whole from the lower half, when the upper half is one number.
        if umin >> 32 == umax >> 32:
            high = umin & ~W
            umin, umax = max(umin, high | u32min), min(umax, high | u32max)
        # Ranges bound the known bits.
        ranged = tnum.of_range(umin, umax)
        ranged32 = tnum.of_range(u32min, u32max)
        ranged32 = (ranged32[0], ranged32[1] | M & ~W)
        if _disjoint(bits, ranged) or _disjoint(bits, ranged32):
            umin, umax = 1, 0
            break
        narrower = tnum.intersect(tnum.intersect(bits, ranged), ranged32)
        if narrower == bits:
            break
        bits = narrower
    return Scalar(bits, umin, umax, smin, smax, u32min, u32max, s32min, s32max)


def _disjoint(a: Tnum, b: Tnum) -> bool:
    """Whether a bit that both know differs."""
    return bool((a[0] ^ b[0]) & ~(a[1] | b[1]) & M)


# 64-bit operations ------------------------------------------------------------------------------------------------


def add(a: Scalar, b: Scalar) -> Scalar:
    """a + b."""
    umin, umax = _unsigned(a.umin + b.umin, a.umax + b.umax, M)
    smin, smax = _signed(a.smin + b.smin, a.smax + b.smax, S64_MIN, S64_MAX)
    return refined(tnum.add(a.bits, b.bits), umin, umax, smin, smax, *_add32(a, b))


def _add32(a: Scalar, b: Scalar) -> tuple[int, int, int, int]:
    return (
        *_unsigned(a.u32min + b.u32min, a.u32max + b.u32max, W),
        *_signed(a.s32min + b.s32min, a.s32max + b.s32max, S32_MIN, S32_MAX),
    )


def sub(a: Scalar, b: Scalar) -> Scalar:
    """a - b."""
    umin, umax = _unsigned(a.umin - b.umax, a.umax - b.umin, M)
    smin, smax = _signed(a.smin - b.smax, a.smax - b.smin, S64_MIN, S64_MAX)
    return refined(tnum.sub(a.bits, b.bits), umin, umax, smin, smax, *_sub32(a, b))


def _sub32(a: Scalar, b: Scalar) -> tuple[int, int, int, int]:
    return (
        *_unsigned(a.u32min - b.u32max, a.u32max - b.u32min, W),
        *_signed(a.s32min - b.s32max, a.s32max - b.s32min, S32_MIN, S32_MAX),
    )


def _unsigned(low: int, high: int, top: int) -> tuple[int, int]:
    """A range after arithmetic: itself, shifted by one turn when all of it wrapped, or anything when only a part did."""
    if low >= 0 and high <= top:
        return low, high
    if low > top and high <= 2 * top + 1:
        return low - top - 1, high - top - 1
    if low < 0 and high < 0 and low >= -top - 1:
        return low + top + 1, high + top + 1
    return 0, top


def _signed(low: int, high: int, bottom: int, top: int) -> tuple[int, int]:
    return (low, high) if bottom <= low and high <= top else (bottom, top)


def mul(a: Scalar, b: Scalar) -> Scalar:
    """a * b."""
    umin, umax = (a.umin * b.umin, a.umax * b.umax) if a.umax * b.umax <= M else (0, M)
    corners = [x * y for x in (a.smin, a.smax) for y in (b.smin, b.smax)]
    smin, smax = _signed(min(corners), max(corners), S64_MIN, S64_MAX)
    u32 = (a.u32min * b.u32min, a.u32max * b.u32max) if a.u32max * b.u32max <= W else (0, W)
    corners = [x * y for x in (a.s32min, a.s32max) for y in (b.s32min, b.s32max)]
    s32 = _signed(min(corners), max(corners), S32_MIN, S32_MAX)
    return refined(tnum.mul(a.bits, b.bits), umin, umax, smin, smax, *u32, *s32)


def and_(a: Scalar, b: Scalar) -> Scalar:
    """a & b: at most the smaller."""
    bits = tnum.and_(a.bits, b.bits)
    return refined(bits, 0, min(a.umax, b.umax), S64_MIN, S64_MAX, 0, min(a.u32max, b.u32max), S32_MIN, S32_MAX)


def or_(a: Scalar, b: Scalar) -> Scalar:
    """a | b: at least the larger."""
    bits = tnum.or_(a.bits, b.bits)
    low, low32 = max(a.umin, b.umin), max(a.u32min, b.u32min)
    return refined(bits, low, M, S64_MIN, S64_MAX, low32, W, S32_MIN, S32_MAX)


def xor(a: Scalar, b: Scalar) -> Scalar:
    """a ^ b."""
    return refined(tnum.xor(a.bits, b.bits), 0, M, S64_MIN, S64_MAX, 0, W, S32_MIN, S32_MAX)


def lsh(a: Scalar, b: Scalar) -> Scalar:
    """a << (b & 63)."""
    if b.umax > 63:
        return UNKNOWN
    by = b.const
    if by is None:
        return refined(
            tnum.UNKNOWN,
            *((a.umin << b.umin, a.umax << b.umax) if a.umax << b.umax <= M else (0, M)),
            S64_MIN,
            S64_MAX,
            0,
            W,
            S32_MIN,
            S32_MAX,
        )
    umin, umax = (a.umin << by, a.umax << by) if a.umax << by <= M else (0, M)
    smin, smax = _signed(a.smin << by, a.smax << by, S64_MIN, S64_MAX)
    return refined(tnum.lsh(a.bits, by), umin, umax, smin, smax, 0, W, S32_MIN, S32_MAX)


def rsh(a: Scalar, b: Scalar) -> Scalar:
    """a >> (b & 63), unsigned."""
    if b.umax > 63:
        return of_range(0, a.umax)
    by = b.const
    bits = tnum.UNKNOWN if by is None else tnum.rsh(a.bits, by)
    return refined(bits, a.umin >> b.umax, a.umax >> b.umin, S64_MIN, S64_MAX, 0, W, S32_MIN, S32_MAX)


def arsh(a: Scalar, b: Scalar) -> Scalar:
    """a >> (b & 63), signed."""
    if b.umax > 63:
        return (
            of_signed_range(min(a.smin, 0), max(a.smax, 0) if a.smax >= 0 else -1)
            if a.smin >= 0 or a.smax < 0
            else UNKNOWN
        )
    by = b.const
    corners = [s >> n for s in (a.smin, a.smax) for n in (b.umin, b.umax)]
    bits = tnum.UNKNOWN if by is None else tnum.arsh(a.bits, by)
    return refined(bits, 0, M, min(corners), max(corners), 0, W, S32_MIN, S32_MAX)


def div(a: Scalar, b: Scalar) -> Scalar:
    """a / b, unsigned; by zero: 0."""
    low = a.umin // b.umax if b.umax and b.umin else 0
    return of_range(low, a.umax // max(b.umin, 1))


def mod(a: Scalar, b: Scalar) -> Scalar:
    """a % b, unsigned; by zero: a."""
    if b.umin and a.umax < b.umin:
        return a
    return of_range(0, min(a.umax, b.umax - 1) if b.umin else a.umax)


def sdiv(a: Scalar, b: Scalar) -> Scalar:
    """a / b, signed."""
    number = b.const
    if number is None or to_signed(number) in (0, -1):
        return const(0) if number == 0 else UNKNOWN
    by = to_signed(number)
    corners = [_truncated(s, by) for s in (a.smin, a.smax)]
    return of_signed_range(min(corners), max(corners))


def smod(a: Scalar, b: Scalar) -> Scalar:
    """a % b, signed; the sign of a."""
    number = b.const
    if number is None or number == 0:
        return a if number == 0 else UNKNOWN
    most = abs(to_signed(number)) - 1
    return of_signed_range(max(a.smin, -most) if a.smin < 0 else 0, min(a.smax, most) if a.smax > 0 else 0)


def _truncated(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


# 32-bit operations: on the lower halves, with a zero upper half ---------------------------------------------------


def low32(a: Scalar) -> Scalar:
    """The lower half, zero-extended."""
    return refined(tnum.low32(a.bits), a.u32min, a.u32max, S64_MIN, S64_MAX, a.u32min, a.u32max, a.s32min, a.s32max)


def _signed_low(a: Scalar) -> Scalar:
    """The lower half, sign-extended."""
    return sign_extend(a, 32)


def sign_extend(a: Scalar, bits: int) -> Scalar:
    """The low `bits` bits, sign-extended to 64."""
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    if low <= a.smin and a.smax <= high:
        return a
    if bits == 32:
        low, high = a.s32min, a.s32max
    value, mask = a.bits[0] & (1 << bits) - 1, a.bits[1] & (1 << bits) - 1
    top = 1 << bits - 1
    upper = M & ~((1 << bits) - 1)
    if mask & top:
        mask |= upper
    elif value & top:
        value |= upper
    return refined((value, mask), 0, M, low, high, 0, W, S32_MIN, S32_MAX)


def _halves(operation: Callable[[Scalar, Scalar], Scalar]) -> Callable[[Scalar, Scalar], Scalar]:
    """An operation whose low half depends on the low halves only."""
    return lambda a, b: low32(operation(a, b))


def _shifted32(
    operation: Callable[[Scalar, Scalar], Scalar], signed: bool = False
) -> Callable[[Scalar, Scalar], Scalar]:
    """A shift of a half, by a number taken modulo 32."""

    def shift(a: Scalar, b: Scalar) -> Scalar:
        half = _signed_low(a) if signed else low32(a)
        by = low32(b)
        if by.umax > 31:
            return of_range(0, W)
        return low32(operation(half, by))

    return shift


def _divided32(
    operation: Callable[[Scalar, Scalar], Scalar], signed: bool = False
) -> Callable[[Scalar, Scalar], Scalar]:
    def divide(a: Scalar, b: Scalar) -> Scalar:
        if signed:
            return low32(operation(_signed_low(a), _signed_low(b)))
        return low32(operation(low32(a), low32(b)))

    return divide


OPERATIONS: dict[str, Callable[[Scalar, Scalar], Scalar]] = {
    "add64": add, "sub64": sub, "mul64": mul, "and64": and_, "or64": or_, "xor64": xor, "lsh64": lsh, "rsh64": rsh,
    "arsh64": arsh, "div64": div, "mod64": mod, "sdiv64": sdiv, "smod64": smod, "mov64": lambda a, b: b,
    "add32": _halves(add), "sub32": _halves(sub), "mul32": _halves(mul), "and32": _halves(and_), "or32": _halves(or_),
    "xor32": _halves(xor), "lsh32": _shifted32(lsh), "rsh32": _shifted32(rsh), "arsh32": _shifted32(arsh, True),
    "div32": _divided32(div), "mod32": _divided32(mod), "sdiv32": _divided32(sdiv, True), "smod32": _divided32(smod, True),
    "mov32": lambda a, b: low32(b),
}  # fmt: skip


# Comparisons ------------------------------------------------------------------------------------------------------


def assume(op: str, wide: bool, a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """What a and b are when `a op b` holds; op is one of == != > >= < <= s> s>= s< s<= & !& . Either may be empty then."""
    if op in _TURNED:
        b, a = assume(_TURNED[op], wide, b, a)
        return a, b
    return _ASSUMPTIONS[op](a, b, wide)


_TURNED = {">": "<", ">=": "<=", "s>": "s<", "s>=": "s<="}
NEGATED = {"==": "!=", "!=": "==", ">": "<=", "<=": ">", ">=": "<", "<": ">=", "s>": "s<=", "s<=": "s>", "s>=": "s<", "s<": "s>=",
           "&": "!&", "!&": "&"}  # fmt: skip


def _parts(a: Scalar) -> list[int]:
    return [a.umin, a.umax, a.smin, a.smax, a.u32min, a.u32max, a.s32min, a.s32max]


def _with(a: Scalar, *, at: int, low: int, high: int) -> Scalar:
    """`a` with one of its ranges (0 u64, 2 s64, 4 u32, 6 s32) narrowed."""
    parts = _parts(a)
    parts[at], parts[at + 1] = max(parts[at], low), min(parts[at + 1], high)
    return refined(a.bits, *parts)


def _equal(a: Scalar, b: Scalar, wide: bool) -> tuple[Scalar, Scalar]:
    if not wide:
        first = _with(_with(a, at=4, low=b.u32min, high=b.u32max), at=6, low=b.s32min, high=b.s32max)
        second = _with(_with(b, at=4, low=a.u32min, high=a.u32max), at=6, low=a.s32min, high=a.s32max)
        return _know_low(first, b), _know_low(second, a)
    if _disjoint(a.bits, b.bits):
        return _EMPTY, _EMPTY
    both = refined(
        tnum.intersect(a.bits, b.bits), max(a.umin, b.umin), min(a.umax, b.umax), max(a.smin, b.smin), min(a.smax, b.smax),
        max(a.u32min, b.u32min), min(a.u32max, b.u32max), max(a.s32min, b.s32min), min(a.s32max, b.s32max),
    )  # fmt: skip
    return both, both


def _know_low(a: Scalar, b: Scalar) -> Scalar:
    """`a`, whose lower half is that of `b`."""
    low = (b.bits[0] & W, b.bits[1] & W | M & ~W)
    if _disjoint(a.bits, low):
        return _EMPTY
    return refined(tnum.intersect(a.bits, low), *_parts(a))


def _different(a: Scalar, b: Scalar, wide: bool) -> tuple[Scalar, Scalar]:
    """Only a known number at the end of a range says something."""
    return _without(a, b, wide), _without(b, a, wide)


def _without(a: Scalar, b: Scalar, wide: bool) -> Scalar:
    if wide:
        number = b.const
        if number is None:
            return a
        if a.const == number:
            return _EMPTY
        ranges = ((0, number), (2, to_signed(number)))
    else:
        if b.u32min != b.u32max:
            return a
        if a.u32min == a.u32max == b.u32min:
            return _EMPTY
        ranges = ((4, b.u32min), (6, to_signed(b.u32min, 32)))
    parts = _parts(a)
    for at, end in ranges:
        parts[at] += parts[at] == end
        parts[at + 1] -= parts[at + 1] == end
    return refined(a.bits, *parts)


def _less(at: int, strict: int) -> Callable[[Scalar, Scalar, bool], tuple[Scalar, Scalar]]:
    """a < b (strict 1) or a <= b (0), unsigned (at 0) or signed (2)."""

    def less(a: Scalar, b: Scalar, wide: bool) -> tuple[Scalar, Scalar]:
        place = at if wide else at + 4
        low, high = _parts(a)[place], _parts(b)[place + 1]
        return (
            _with(a, at=place, low=-(1 << 65), high=high - strict),
            _with(b, at=place, low=low + strict, high=1 << 65),
        )

    return less


def _some_bits(a: Scalar, b: Scalar, wide: bool) -> tuple[Scalar, Scalar]:
    """a & b is not 0: with one known bit in b, a has it."""
    number = b.const if wide else (b.u32min if b.u32min == b.u32max else None)
    if number is None:
        return a, b
    possible = number & (a.bits[0] | a.bits[1]) & (M if wide else W)
    if not possible:
        return _EMPTY, b
    if possible & possible - 1:
        return a, b
    return refined((a.bits[0] | possible, a.bits[1] & ~possible), *_parts(a)), b


def _no_bits(a: Scalar, b: Scalar, wide: bool) -> tuple[Scalar, Scalar]:
    """a & b is 0: a has none of the bits known in b."""
    certain = b.bits[0] & (M if wide else W)
    if a.bits[0] & certain:
        return _EMPTY, b
    return refined((a.bits[0], a.bits[1] & ~certain), *_parts(a)), b


_EMPTY = Scalar(tnum.UNKNOWN, 1, 0)
_ASSUMPTIONS: dict[str, Callable[[Scalar, Scalar, bool], tuple[Scalar, Scalar]]] = {
    "==": _equal,
    "!=": _different,
    "<": _less(0, 1),
    "<=": _less(0, 0),
    "s<": _less(2, 1),
    "s<=": _less(2, 0),
    "&": _some_bits,
    "!&": _no_bits,
}
