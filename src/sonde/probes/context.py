"""Contexts that several probe types share: saved registers, and arrays of arguments that BTF types."""

from __future__ import annotations

from ..debuginfo.ctype import Member, Struct, Void, sizeof, strip
from ..debuginfo.ptregs import get_ptregs
from ..errors import FeatureError
from .model import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..debuginfo.ctype import CType, Param
    from ..debuginfo.usdt import UsdtArg


def regs_context(arch: str, kind: str = "regs", usdt_args: tuple[UsdtArg, ...] = ()) -> Context:
    """Describe a context that begins with struct pt_regs. Raises FeatureError for an architecture without a table."""
    regs = get_ptregs(arch)
    if regs is None:
        raise FeatureError(f"the registers of {arch} are not known", feature="arch:" + arch)
    return Context(
        kind,
        arg_offsets=tuple(regs.get_offset(name) for name in regs.args),
        retval_offset=regs.get_offset(regs.result),
        ip_offset=regs.get_offset(regs.ip),
        sp_offset=regs.get_offset(regs.sp),
        fp_offset=regs.get_offset(regs.fp),
        registers=(
            *((name, regs.get_offset(name)) for name in regs.names),
            *((alias, regs.get_offset(alias)) for alias, _ in regs.aliases),
        ),
        usdt_args=usdt_args,
    )


def args_context(name: str, params: Sequence[Param], retval: CType | None = None, *, foreign: bool = False) -> Context:
    """Describe the context of a tracing program: one 8-byte slot for each argument, then one for the result.

    A struct passed by value takes as many slots as it needs. `foreign`: see Context.
    """
    members = []
    offset = 0
    for number, param in enumerate(params):
        members.append(Member(param.name or f"arg{number}", param.ctype, offset * 8))
        offset += max(-(-sizeof(param.ctype) // 8), 1) * 8
    has_result = retval is not None and not isinstance(strip(retval), Void)
    return Context(
        "tracing",
        args=Struct("struct", f"args {name}", offset, tuple(members)),
        retval=retval if has_result else None,
        arg_offsets=tuple(m.offset for m in members),
        retval_offset=offset if has_result else -1,
        foreign=foreign,
    )


def describe(ctype: CType, name: str) -> str:
    """Return a declaration as listings show it: the whole type, a blank, the name (`struct file * file`)."""
    from ..debuginfo.ctype import declare

    return f"{declare(ctype)} {name}"


def describe_result(ctype: CType) -> list[str]:
    """Return the line for what a function returns; none for void."""
    return [] if isinstance(strip(ctype), Void) else [describe(ctype, "retval")]
