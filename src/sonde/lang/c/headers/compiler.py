"""Macros that are defined before the text begins: those of clang, of the machine, and of the kernel's release."""

from __future__ import annotations

from . import parse_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ....spec.target import Target
    from ..macros import Definition

# Programs ask for clang's version before they use builtins that only newer ones have.
_COMMON = """
#define __STDC__ 1
#define __STDC_VERSION__ 201112L
#define __STDC_HOSTED__ 0
#define __GNUC__ 4
#define __GNUC_MINOR__ 2
#define __GNUC_PATCHLEVEL__ 1
#define __clang__ 1
#define __clang_major__ 18
#define __clang_minor__ 1
#define __clang_patchlevel__ 0
#define __sonde__ 1
#define __ELF__ 1
#define __OPTIMIZE__ 1
#define __BPF__ 1
#define __bpf__ 1
#define __linux__ 1
#define __BYTE_ORDER__ 1234
#define __ORDER_LITTLE_ENDIAN__ 1234
#define __ORDER_BIG_ENDIAN__ 4321
#define __ORDER_PDP_ENDIAN__ 3412
#define __LITTLE_ENDIAN__ 1
#define __CHAR_BIT__ 8
#define __ATOMIC_RELAXED 0
#define __ATOMIC_CONSUME 1
#define __ATOMIC_ACQUIRE 2
#define __ATOMIC_RELEASE 3
#define __ATOMIC_ACQ_REL 4
#define __ATOMIC_SEQ_CST 5
#define __LP64__ 1
#define _LP64 1
#define __SIZEOF_SHORT__ 2
#define __SIZEOF_INT__ 4
#define __SIZEOF_LONG__ 8
#define __SIZEOF_LONG_LONG__ 8
#define __SIZEOF_INT128__ 16
#define __SIZEOF_POINTER__ 8
#define __SIZEOF_SIZE_T__ 8
#define __SIZEOF_PTRDIFF_T__ 8
#define __BIGGEST_ALIGNMENT__ 8
#define __SCHAR_MAX__ 127
#define __SHRT_MAX__ 32767
#define __INT_MAX__ 2147483647
#define __LONG_MAX__ 9223372036854775807L
#define __LONG_LONG_MAX__ 9223372036854775807LL
#define __INTMAX_MAX__ 9223372036854775807L
#define __UINTMAX_MAX__ 18446744073709551615UL
#define __SIZE_MAX__ 18446744073709551615UL
#define __SIZE_TYPE__ unsigned long
#define __PTRDIFF_TYPE__ long
#define __INTMAX_TYPE__ long
#define __UINTMAX_TYPE__ unsigned long
#define __INTPTR_TYPE__ long
#define __UINTPTR_TYPE__ unsigned long
#define __INT8_TYPE__ signed char
#define __INT16_TYPE__ short
#define __INT32_TYPE__ int
#define __INT64_TYPE__ long
#define __UINT8_TYPE__ unsigned char
#define __UINT16_TYPE__ unsigned short
#define __UINT32_TYPE__ unsigned int
#define __UINT64_TYPE__ unsigned long
#define __WCHAR_TYPE__ int
#define __USER_LABEL_PREFIX__
"""
_ARCH = {
    "x86_64": (("__x86_64__", "__x86_64", "__amd64__"), "__TARGET_ARCH_x86"),
    "aarch64": (("__aarch64__", "__ARM_64BIT_STATE"), "__TARGET_ARCH_arm64"),
}


def compiler_macros(dialect: str) -> dict[str, Definition]:
    """Return the compiler's own macros; BCC adds those of a kernel module."""
    table: dict[str, Definition] = dict(parse_table(_COMMON))
    if dialect == "bcc":
        table.update(__KERNEL__=1, __BPF_TRACING__=1, KBUILD_MODNAME=' "bcc"')
    return table


def arch_macros(dialect: str, target: Target) -> dict[str, Definition]:
    """Return the macros of the machine: the compiler's of the host in BCC's dialect, `__TARGET_ARCH_x86` in both; registers."""
    from .bcc import REGISTERS
    from .libbpf import registers

    names, traced = _ARCH.get(target.arch, ((), ""))
    table: dict[str, Definition] = dict.fromkeys(names, 1) if dialect == "bcc" else {}
    if traced:
        table[traced] = 1
    text = REGISTERS.get(target.arch, "") if dialect == "bcc" else registers(target.arch)
    table.update(parse_table(text))
    if target.arch == "aarch64":
        table["__arch"] = "(x86, arm64) arm64"
    return table


def version_macros(target: Target) -> dict[str, Definition]:
    """Return LINUX_VERSION_CODE and the page's size."""
    shift = target.page_bytes.bit_length() - 1
    return {
        "LINUX_VERSION_CODE": target.version_code,
        "UTS_RELEASE": f' "{target.release}"',
        "PAGE_SHIFT": shift,
        "PAGE_SIZE": f" (1UL << {shift})",
        "PAGE_MASK": f" (~((1UL << {shift}) - 1))",
    }
