"""Known bits of a 64-bit number ("tristate number", Vishwanathan et al., CGO 2022; the kernel's tnum.c has the same operations).

A tnum is (value, mask): a bit set in `mask` is unknown, else it is the bit of `value`; value & mask is 0. Each operation is sound: the
result covers what the operation gives for any pair of covered numbers.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Tnum = tuple[int, int]

M = (1 << 64) - 1
UNKNOWN: Tnum = (0, M)


def covers(t: Tnum, number: int) -> bool:
    """Tell whether `number` is one of the numbers that `t` stands for."""
    return number & ~t[1] & M == t[0]


def add(a: Tnum, b: Tnum) -> Tnum:
    """a + b."""
    masks = a[1] + b[1]
    values = a[0] + b[0]
    changed = (masks + values ^ values) | a[1] | b[1]
    changed &= M
    return values & ~changed & M, changed


def sub(a: Tnum, b: Tnum) -> Tnum:
    """a - b."""
    difference = a[0] - b[0]
    changed = ((difference + a[1] ^ difference - b[1]) | a[1] | b[1]) & M
    return difference & ~changed & M, changed


def and_(a: Tnum, b: Tnum) -> Tnum:
    """a & b."""
    alpha, beta = a[0] | a[1], b[0] | b[1]
    value = a[0] & b[0]
    return value, alpha & beta & ~value


def or_(a: Tnum, b: Tnum) -> Tnum:
    """a | b."""
    value = a[0] | b[0]
    return value, (a[1] | b[1]) & ~value


def xor(a: Tnum, b: Tnum) -> Tnum:
    """a ^ b."""
    mask = a[1] | b[1]
    return (a[0] ^ b[0]) & ~mask, mask


def mul(a: Tnum, b: Tnum) -> Tnum:
    """a * b, by long multiplication: a known 1 of a adds b, an unknown bit may add it."""
    product = a[0] * b[0] & M
    unknown: Tnum = (0, 0)
    while a[0] or a[1]:
        if a[0] & 1:
            unknown = add(unknown, (0, b[1]))
        elif a[1] & 1:
            unknown = add(unknown, (0, b[0] | b[1]))
        a = (a[0] >> 1, a[1] >> 1)
        b = (b[0] << 1 & M, b[1] << 1 & M)
    return add((product, 0), unknown)


def lsh(a: Tnum, by: int) -> Tnum:
    """a << by, by a known number."""
    return a[0] << by & M, a[1] << by & M


def rsh(a: Tnum, by: int) -> Tnum:
    """a >> by, unsigned."""
    return a[0] >> by, a[1] >> by


def arsh(a: Tnum, by: int, bits: int = 64) -> Tnum:
    """a >> by with the sign of a number of `bits` bits."""
    return _signed_shift(a[0], by, bits), _signed_shift(a[1], by, bits)


def _signed_shift(number: int, by: int, bits: int) -> int:
    top = 1 << bits - 1
    number &= (1 << bits) - 1
    return ((number ^ top) - top >> by) & (1 << bits) - 1


def low32(a: Tnum) -> Tnum:
    """The lower half, zero-extended."""
    return a[0] & 0xFFFFFFFF, a[1] & 0xFFFFFFFF


def intersect(a: Tnum, b: Tnum) -> Tnum:
    """What both know. The two must have a number in common."""
    mask = a[1] & b[1]
    return (a[0] | b[0]) & ~mask, mask


def of_range(low: int, high: int) -> Tnum:
    """The smallest tnum that covers low to high (unsigned)."""
    differing = low ^ high
    bits = differing.bit_length()
    if bits > 63:
        return UNKNOWN
    mask = (1 << bits) - 1
    return low & ~mask, mask


def contains(outer: Tnum, inner: Tnum) -> bool:
    """Tell whether every number of `inner` is one of `outer`."""
    return not inner[1] & ~outer[1] and inner[0] & ~outer[1] == outer[0]
