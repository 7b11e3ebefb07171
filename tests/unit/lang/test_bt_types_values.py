"""Values: fields, elements, pointers, casts, tuples, strings; and in which memory they lie."""

from __future__ import annotations

import pytest
from bt_typing import diagnostics, errors, find_type, typed, variable_types, variables, warnings

from sonde.debuginfo.ctype import Pointer
from sonde.lang.bpftrace import ast
from sonde.lang.bpftrace.stype import type_name
from sonde.lang.bpftrace.typing_dump import describe

EXEC = "tracepoint:sched:sched_process_exec"
SWITCH = "tracepoint:sched:sched_switch"
OPENAT = "tracepoint:syscalls:sys_enter_openat"


@pytest.mark.parametrize(
    ("expression", "name", "space"),
    [
        ("curtask->pid", "int32", "kernel"),
        ("curtask.pid", "int32", "kernel"),
        ("curtask->comm", "string[16]", ""),
        ("curtask->mm->owner->comm", "string[16]", ""),
        ("curtask->parent", "struct task_struct *", "kernel"),
        ("curtask->args", "int8 *", "user"),
        ("curtask->mac", "uint8[6]", ""),
        ("curtask->numbers[2]", "int32", "kernel"),
        ("curtask->comm[0]", "int8", ""),
        ("curtask->kind", "enum pid_type", "kernel"),
        ("*curtask", "struct task_struct", ""),
        ("(*curtask).mm->owner", "struct task_struct *", "kernel"),
        ("curtask + 1", "struct task_struct *", "kernel"),
        ("curtask == 0", "bool", ""),
        ("&@x", "int8 *", "own"),
        ("(uint64)curtask", "uint64", "kernel"),
        ("(int32*)nsecs", "int32 *", "any"),
        ("uptr((int32*)5)", "int32 *", "user"),
        ("*(int32*)kaddr(\"jiffies\")", "int32", "kernel"),
        ("*kaddr(\"jiffies\")", "uint64", "kernel"),
        ("(struct mm_struct *)5", "struct mm_struct *", "any"),
        ("PIDTYPE_TGID", "enum pid_type", ""),
        ("(enum pid_type)1", "enum pid_type", ""),
        ("(uint8[8])nsecs", "uint8[8]", ""),
        ("(int16[])nsecs", "int16[4]", ""),
        ("(uint64)(uint8[8])nsecs", "uint64", ""),
        ("(1, \"a\", pid).1", "string[2]", ""),
        ("(1, 2)[0]", "int8", ""),
        ("(x=1, y=\"ab\").y", "string[3]", ""),
        ("sizeof(struct task_struct)", "int8", ""),
        ("offsetof(struct task_struct, mm)", "int8", ""),
        ("(typeof(nsecs))5", "uint64", ""),
        ("(bool)5", "bool", ""),
        ("config.max_strlen", "int16", ""),
    ],
)  # fmt: skip
def test_types_and_address_spaces(expression: str, name: str, space: str) -> None:
    found = variable_types(f"@x = 1; $x = {expression};")["$x"]
    assert (type_name(found.ctype), found.space) == (name, space)


@pytest.mark.parametrize(
    ("probe", "expression", "name", "space"),
    [
        (OPENAT, "args.filename", "int8 *", "user"),
        (OPENAT, "args->filename", "int8 *", "user"),
        (OPENAT, "(*args).dfd", "uint64", "user"),
        (OPENAT, "args.__syscall_nr", "int32", "user"),
        (SWITCH, "args.prev_comm", "string[16]", ""),
        (SWITCH, "args.skaddr", "void *", "kernel"),
        (SWITCH, "((struct task_struct *)args.skaddr)->mm", "struct mm_struct *", "kernel"),
        (EXEC, "args.filename", "int64", "kernel"),
        ("fentry:vfs_read", "args.count", "uint64", ""),
        ("fentry:vfs_read", "args.buf", "int8 *", "user"),
        ("fentry:vfs_read", "args.file->task->pid", "int32", ""),
        ("fentry:vfs_read", "args.file->name", "int8 *", "kernel"),
        ("fexit:vfs_read", "retval", "uint64", "kernel"),
        ("kprobe:vfs_read", "arg0", "uint64", "kernel"),
        ("kprobe:vfs_read", "((struct file *)arg0)->task", "struct task_struct *", "kernel"),
        ("kprobe:vfs_read", 'reg("di")', "uint64", "kernel"),
        ("kretprobe:vfs_read", "retval", "uint64", "kernel"),
        ("profile:hz:99", 'reg("ip")', "uint64", "any"),
        ("interval:s:1", "kstack", "kstack_bpftrace_127", ""),
    ],
)
def test_arguments_of_probes(probe: str, expression: str, name: str, space: str) -> None:
    found = variable_types(f"{probe} {{ $x = {expression}; }}")["$x"]
    assert (type_name(found.ctype), found.space) == (name, space)


def test_trusted_pointers_stay_so_within_an_expression() -> None:
    probe = typed("fentry:vfs_read { print(args.file->task->pid); }").probes[0]
    spaces = {n.name: t.space for n, t in probe.type_of.items() if isinstance(n, ast.FieldAccess)}
    assert spaces == {"file": "btf", "task": "btf", "pid": ""}


def test_a_field_says_where_it_is() -> None:
    probe = typed(f"{OPENAT} {{ print(args.filename); }}").probes[0]
    node = next(n for n in probe.fields if isinstance(n, ast.FieldAccess))
    info = probe.fields[node]
    assert info.struct is probe.context.args
    assert info.field is not None and info.field.offset == 24
    assert info.tracepoint is not None and not info.tracepoint.dynamic


def test_dynamic_fields_keep_their_description() -> None:
    probe = typed(f"{EXEC} {{ print(str(args.filename)); }}").probes[0]
    info = next(iter(probe.fields.values()))
    assert info.tracepoint is not None and info.tracepoint.dynamic == "data_loc"


def test_a_pointer_in_a_tuple_leads_where_it_did() -> None:
    assert variable_types("$x = (1, curtask); $y = $x.1; $z = $y->mm;")["$z"].space == "kernel"
    assert variable_types(f"{OPENAT} {{ $x = (args.filename, 1); $y = $x.0; }}")["$y"].space == "user"


def test_addresses_of_our_own_memory() -> None:
    found = variable_types("$y = (uint16)5; $x = &$y; $z = *$x;")
    assert (found["$x"].space, type_name(found["$z"].ctype)) == ("own", "uint16")


def test_structs_of_the_script() -> None:
    text = """
    struct point { int x; struct point *next; char name[8]; unsigned int low:4; }
    uprobe:/bin/sh:main { $p = (struct point *)arg0; $x = $p->next->x; $n = $p->next->name; $l = $p->low; }
    """
    text = text.replace("uprobe:/bin/sh:main", "kprobe:vfs_read")
    names = variables(text)
    assert names["$p"] == "struct point *"
    assert (names["$x"], names["$n"], names["$l"]) == ("int32", "string[8]", "uint32")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("curtask->nosuch", "Struct/union of type 'struct task_struct' does not contain a field named 'nosuch'"),
        ("(1 + pid).c", "Can not access field 'c' on expression of type 'uint64'"),
        ("(a=1).b", "Record does not contain a field named 'b'"),
        ("(1, 2).2", "Invalid tuple index: 2. Found 2 elements in tuple."),
        ("nsecs.1", "Can not access index '1' on expression of type 'uint64'"),
        ("nsecs[1]", "The array index operator [] can only be used on arrays, pointers, and tuples, found uint64."),
        ("curtask->numbers[4]", "the index 4 is out of bounds for array of size 4"),
        ("*kstack", "The * operator can not be used on expressions of type 'kstack_bpftrace_127'"),
        ("(struct nosuch *)5", 'Cannot resolve unknown type "struct nosuch"'),
        ("(enum nosuch)5", "Unknown enum: nosuch"),
        ("(enum pid_type)7", "Enum: pid_type doesn't contain a variant value of 7"),
        ('(uint8)"a"', 'Cannot cast from "string[2]" to "uint8"'),
        ("(string)5", 'Cannot cast from "int8" to "string"'),
        ("(uint64)*curtask", 'Cannot cast from struct type "struct task_struct"'),
        ("offsetof(struct task_struct, nosuch)", "'struct task_struct' has no field named 'nosuch'"),
        ("curtask * 2", "The * operator can not be used on expressions of types struct task_struct *, int8"),
        ('-"a"', "The - operator can not be used on expressions of type 'string[2]'"),
        ("comm < \"a\"", "The < operator can not be used on expressions of types string[16], string[2]"),
        ("comm == 1", "Type mismatch for '==': comparing string[16] with int8"),
        ("curtask->mac < curtask->mac", "The < operator cannot be used on arrays."),
        ("nosuch", "Unknown identifier: 'nosuch'"),
        ('pid ? 1 : "a"', "Branches must return the same type or compatible types: have 'int8' and 'string[2]'"),
        ("kstack ? 1 : 2", "Invalid condition: kstack"),
    ],
)  # fmt: skip
def test_errors(expression: str, message: str) -> None:
    assert errors(f"$x = {expression};") == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{SWITCH} {{ $x = args.nosuch; }}",
         f"Struct/union of type 'struct {SWITCH}_args' does not contain a field named 'nosuch'"),
        (f"{SWITCH} {{ $x = args.common_pid; }}", "BPF does not support accessing common tracepoint fields"),
        (f"{SWITCH} {{ $x = ctx; }}", "Use args instead of ctx in tracepoint"),
        (f"{SWITCH} {{ $x = arg0; }}",
         "The arg0 builtin can only be used with 'kprobes', 'uprobes' and 'usdt' probes"),
        ("fentry:vfs_read { $x = args.nosuch; }", "Can't find function parameter nosuch"),
        ("kprobe:vfs_read { $x = arg9; }", "x86_64 doesn't support arg9"),
        ("begin { $x = args; }",
         "The args builtin can only be used with tracepoint, rawtracepoint, fentry/fexit, and uprobe probes "
         "(special used here)"),
        ("begin { $x = ctx; }", "The ctx builtin can not be used with 'begin' probes"),
        ("begin { $x = func; }", "The func builtin can not be used with 'begin' probes"),
        ("i:s:1 { $x = ctx; $y = func; }", "The func builtin can not be used with 'i' probes"),
        (f"{SWITCH} {{ $x = retval; }}",
         "The retval builtin can only be used with 'kretprobe' and 'uretprobe' and 'fentry' probes "
         "(try to use args.ret instead)"),
    ],
)  # fmt: skip
def test_builtins_that_a_probe_has_not(text: str, message: str) -> None:
    assert errors(text) == [message]


def test_a_similar_field_is_named() -> None:
    (diagnostic,) = diagnostics("$x = curtask->paren;")
    assert diagnostic.hint == "did you mean parent?"


def test_diagnostics_of_a_cast_underline_the_type() -> None:
    (diagnostic,) = diagnostics("$x = (string)5;")
    assert diagnostic.render().splitlines()[-1] == " " * 13 + "~" * 8


def test_unnecessary_casts_are_told() -> None:
    assert warnings("$x = (uint64)nsecs;") == ["Unnecessary cast: expression is already of type uint64"]


def test_only_the_branch_taken_is_typed() -> None:
    probe = typed('$x = is_str(comm) ? 5 : "a";').probes[0]
    assert type_name(find_type(probe, ast.Ternary).ctype) == "int8"


def test_comptime_branches_may_be_wrong_elsewhere() -> None:
    text = 'macro size(e) { if comptime is_str(e) { sizeof(e) } else { fail("no %s", "string") } }'
    assert variables(f"{text} begin {{ $x = size(comm); }}")["$x"] == "int8"
    assert errors(f"{text} begin {{ $x = size(5); }}") == ["no string"]


def test_a_probe_is_its_own_name() -> None:
    analysis = typed("tracepoint:sched:sched_switch,tracepoint:sched:sched_process_exec { @[probe] = count(); }")
    assert [len(p.probes) for p in analysis.probes] == [1, 1]
    values = [v for p in analysis.probes for v in p.constants.values()]
    assert values == ["tracepoint:sched:sched_switch", "tracepoint:sched:sched_process_exec"]


def test_probes_share_a_program_where_nothing_differs() -> None:
    analysis = typed("tracepoint:sched:sched_switch,tracepoint:sched:sched_process_exec { @[comm] = count(); }")
    assert [len(p.probes) for p in analysis.probes] == [2]
    analysis = typed("kprobe:vfs_read,kretprobe:vfs_read { @[comm] = count(); }")
    assert [len(p.probes) for p in analysis.probes] == [1, 1]


def test_each_program_has_types_of_its_own() -> None:
    text = "tracepoint:sched:sched_switch,tracepoint:sched:sched_process_exec { @ = args.prev_pid; }"
    (message,) = errors(text)
    assert "does not contain a field named 'prev_pid'" in message


def test_kernel_pointers_without_btf_types_are_left_alone() -> None:
    assert isinstance(variable_types("$x = curtask;")["$x"].ctype, Pointer)


def test_a_typed_program_as_text() -> None:
    text = describe(typed("kprobe:vfs_read { $f = (struct file *)arg0; @[kstack(3), comm] = count(); }"))
    assert text == (
        "program 1: kprobe:vfs_read\n"
        "  $f: struct file * (kernel)\n"
        "  arg0(): index=0\n"
        "  kstack(): mode='bpftrace', limit=3\n"
        "maps\n"
        "  @[(kstack_bpftrace_3,string[16])]: count_t, 4096 entries"
    )
