"""verify(): what sonde's own verifier says of the programs of a script, without a kernel and without privileges."""

from __future__ import annotations

from functools import partial

from ..errors import Diagnostic, FeatureError, SondeError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..bpf.isa import Insn
    from ..bpf.verifier import MapInfo, Verdict
    from ..bpf.verifier.state import State
    from ..debuginfo.ctype import CType, FuncProto
    from ..spec.object import MapSpec, ObjectSpec, ProgramSpec, Reloc
    from ..spec.relocation import Fill
    from ..spec.target import Target


class Verified(Record):
    """One program's verdict. `text` is the refusal as a person reads it: source line, instruction, what was known, what to do; "" when it is safe.

    `stack` is what the program keeps on its stack, as "name: bytes" (by offset from r10 where no names are known); a function's name is before those of
    functions that it calls. `note` is what not every kernel accepts of a safe program: reading its stack before it wrote there, which Linux allows since 6.3.
    """

    program: str
    verdict: Verdict
    text: str = ""
    note: str = ""
    stack: tuple[str, ...] = ()


def verify(
    spec: ObjectSpec, target: Target | None = None, *, trace: Callable[[str, int, State], object] | None = None
) -> tuple[Verified, ...]:
    """Verify all programs of an object for `target` (the running machine when None).

    `trace(program, pc, state)` is called before each instruction that is followed. Raises FormatError for an object that is damaged.
    """
    if target is None:
        from .trace import live_target

        target = live_target()
    return tuple(_verify(spec, program, target, trace) for program in spec.programs)


def _verify(
    spec: ObjectSpec, program: ProgramSpec, target: Target, trace: Callable[[str, int, State], object] | None
) -> Verified:
    from ..bpf.isa import decode
    from ..bpf.verifier import verify as verify_code
    from ..bpf.verifier.contexts import have_context
    from ..kernel.coreload import CoreLoader
    from ..kernel.engine import is_from_here
    from ..spec.relocation import relocate

    symbols: dict[int, CType | None] = {}
    fill = partial(_fill_symbol, symbols, target)
    fills: dict[str, Fill] = {"ksym": fill, "ksym_btf": fill}
    if any(reloc.kind == "core" for reloc in program.relocs) and not is_from_here(spec):
        fills["core"] = CoreLoader(target.btf()).fill
    insns = decode(bytes(relocate(program, {m.name: number for number, m in enumerate(spec.maps, 1)}, fills)))
    maps = {number: _describe(m) for number, m in enumerate(spec.maps, 1)}
    traced = None if trace is None else lambda pc, state: trace(program.name, pc, state)
    kind = program.type
    if kind == "struct_ops" and _returns_nothing(program, target):
        kind = "struct_ops_void"
    if not have_context(kind, target.arch):
        raise FeatureError(
            f"sonde's verifier does not know programs of type {program.type}, as {program.name} is one",
            feature=f"verify:{program.type}",
            hint="the kernel verifies them when they are loaded: sonde load --no-attach",
        )
    judge = partial(
        verify_code,
        insns,
        kind,
        maps,
        arch=target.arch,
        types=tuple(_types(program, target)),
        find_struct=lambda name: _btf_struct(target, name),
        kfuncs={reloc.pc: reloc.symbol for reloc in program.relocs if reloc.kind == "kfunc"},
        symbols=symbols,
        attach_type=program.attach_type,
        sleepable=program.sleepable or kind == "syscall",
        trace=traced,
    )
    verdict = judge()
    if verdict.safe:
        return Verified(program.name, verdict, stack=tuple(_stack_uses(program, verdict)))
    strict, verdict = verdict, judge(uninitialised_stack=True)
    if not verdict.safe:
        return Verified(program.name, verdict, _explain(program, insns, verdict))
    return Verified(
        program.name,
        verdict,
        "",
        _explain(program, insns, strict, "WARNING", "is refused by Linux before 6.3"),
        tuple(_stack_uses(program, verdict)),
    )


def _stack_uses(program: ProgramSpec, verdict: Verdict) -> Iterator[str]:
    for entry, offset, size in verdict.places:
        named = [
            slot
            for slot in program.slots
            if slot.pc == entry and slot.offset < offset + size and offset < slot.offset + slot.size_bytes
        ]
        for slot in named:
            yield f"{slot.function + '.' if entry else ''}{slot.name}: {slot.size_bytes}"
        if not named:
            yield f"{f'pc {entry}, ' if entry else ''}r10{offset:+d}: {size}"


_PSEUDO_BTF_ID = 3


def _fill_symbol(
    symbols: dict[int, CType | None], target: Target, program: ProgramSpec, insns: bytearray, reloc: Reloc
) -> None:
    """The address of something in the kernel: of a variable with its type, where `target` has it; 0 of what is weak and not there."""
    at = reloc.pc * 8
    ctype = None
    called = any(other.kind == "kfunc" and other.symbol == reloc.symbol for other in program.relocs)
    if reloc.kind == "ksym_btf" or called:
        btf = target.btf()
        ctype = btf.get_var(reloc.symbol)
        if ctype is not None and reloc.symbol in {name for name, _ in btf.iter_section_vars(".data..percpu")}:
            ctype = None  # no address, but what bpf_per_cpu_ptr makes one of
        elif ctype is None and btf.get_func(reloc.symbol) is None and reloc.weak:
            insns[at + 1] &= 0x0F
            return
    symbols[reloc.pc] = ctype
    insns[at + 1] = insns[at + 1] & 0x0F | _PSEUDO_BTF_ID << 4


def _describe(spec: MapSpec) -> MapInfo:
    from ..bpf.verifier import MapInfo

    inner = _describe(spec.inner) if spec.inner is not None else None
    return MapInfo(
        spec.name,
        spec.type,
        spec.key_size,
        spec.value_size,
        spec.max_entries,
        spec.frozen,
        special=tuple(_special_fields(spec.value_type)),
        initial=spec.initial,
        inner=inner,
    )


_OPAQUE = {
    "bpf_spin_lock": "spin_lock", "bpf_res_spin_lock": "resilient_lock", "bpf_timer": "timer", "bpf_wq": "work_queue",
    "bpf_list_head": "list", "bpf_list_node": "list_node", "bpf_rb_root": "tree", "bpf_rb_node": "tree_node", "bpf_refcount": "refcount",
    "bpf_task_work": "task_work",
}  # fmt: skip


def _special_fields(ctype: CType | None, at: int = 0) -> Iterator[tuple[int, int, str]]:
    """What only helpers may touch in a value of this type: (start, end, what), as MapInfo has it."""
    from ..debuginfo.ctype import Array, Pointer, Struct, sizeof, strip

    if ctype is None:
        return
    inner = strip(ctype)
    if isinstance(inner, Struct) and inner.name in _OPAQUE:
        yield at, at + inner.size, _OPAQUE[inner.name]
    elif isinstance(inner, Struct):
        for member in inner.members:
            yield from _special_fields(member.ctype, at + member.offset)
    elif isinstance(inner, Array) and inner.count:
        size = sizeof(inner.element)
        for number in range(min(inner.count, 64) if list(_special_fields(inner.element)) else 0):
            yield from _special_fields(inner.element, at + number * size)
    elif isinstance(inner, Pointer) and inner.tag in ("kptr", "kptr_untrusted", "percpu_kptr", "uptr"):
        target = strip(inner.target)
        yield at, at + 8, f"{inner.tag}:{target.name if isinstance(target, Struct) else ''}"


def _btf_struct(target: Target, name: str):  # type: ignore[no-untyped-def]
    try:
        return target.btf().get_struct(name)
    except SondeError:
        return None


def _types(program: ProgramSpec, target: Target) -> Iterator[CType | None]:
    """The types of the arguments that the context of a tracing program holds."""
    if program.type not in ("tracing", "lsm", "struct_ops"):
        return
    from ..debuginfo.ctype import FuncProto, Pointer, strip

    btf = target.btf()
    if program.type == "struct_ops":
        member = _member_prototype(program, target)
        for param in member.params if member is not None else ():
            yield _promoted(param.ctype, target) if program.attach_btf.startswith("tcp_congestion_ops") else param.ctype
        return
    if program.attach_type == "trace_iter":
        struct = btf.get_struct(f"bpf_iter__{program.attach_btf}")
        yield from (_in_slot(member.ctype) for member in struct.members) if struct is not None else ()
        return
    if program.attach_type == "trace_raw_tp":
        typedef = btf.get_typedef(f"btf_trace_{program.attach_btf}")
        pointer = strip(typedef) if typedef is not None else None
        proto = strip(pointer.target) if isinstance(pointer, Pointer) else None
        yield from (p.ctype for p in proto.params[1:]) if isinstance(proto, FuncProto) else ()
        return
    prefix = "bpf_lsm_" if program.type == "lsm" else ""
    found = btf.get_func(prefix + program.attach_btf.removeprefix(prefix))
    if found is not None:
        yield from (p.ctype for p in found.params)
        yield found.result if program.attach_type == "trace_fexit" else None


def _promoted(ctype: CType, target: Target) -> CType:
    """A socket that congestion control is given is one of TCP, whatever the prototype says."""
    from ..debuginfo.ctype import Pointer, strip

    pointer = strip(ctype)
    whole = target.btf().get_struct("tcp_sock")
    if isinstance(pointer, Pointer) and strip(pointer.target).name == "sock" and whole is not None:
        return Pointer(whole)
    return ctype


def _member_prototype(program: ProgramSpec, target: Target) -> FuncProto | None:
    """The prototype of the kernel's function pointer that a struct_ops program stands for."""
    from ..debuginfo.ctype import FuncProto, Pointer, essential_name, strip

    name, _, label = program.attach_btf.partition(".")
    struct = target.btf().get_struct(essential_name(name))
    field = struct.get_member(label) if struct is not None else None
    pointer = strip(field.member.ctype) if field is not None else None
    proto = strip(pointer.target) if isinstance(pointer, Pointer) else None
    return proto if isinstance(proto, FuncProto) else None


def _returns_nothing(program: ProgramSpec, target: Target) -> bool:
    from ..debuginfo.ctype import Void, strip

    proto = _member_prototype(program, target)
    return proto is not None and isinstance(strip(proto.result), Void)


def _in_slot(ctype: CType) -> CType:
    """The pointer that a member of an iterator's context is: the kernel puts each into a union that makes it 64 bits wide."""
    from ..debuginfo.ctype import Struct, strip

    inner = strip(ctype)
    if isinstance(inner, Struct) and inner.kind == "union" and not inner.name and inner.members:
        return inner.members[0].ctype
    return ctype


def _explain(
    program: ProgramSpec, insns: list[Insn], verdict: Verdict, level: str = "ERROR", what: str = "is not safe"
) -> str:
    from ..bpf.disasm import format_insn
    from ..bpf.isa import iter_pcs
    from ..spec.object import find_span

    refusal = verdict.refusal
    assert refusal is not None
    span = find_span(program.lines, refusal.pc)
    message = f"program {program.name} {what}: {refusal.message}"
    lines = [Diagnostic(level, message, span, span.excerpt if span is not None else "").render()]
    insn = next(i for pc, i in iter_pcs(insns) if pc == refusal.pc)
    named = [reloc.symbol for reloc in program.relocs if reloc.pc == refusal.pc and reloc.kind == "kfunc"]
    lines.append(f"instruction {refusal.pc}: {format_insn(insn)}{f' ({named[0]})' if named else ''}")
    lines += [f"  {name}: {text}" for name, text in refusal.registers]
    if refusal.wants:
        lines.append(f"HINT: {refusal.wants}")
    return "\n".join(lines)
