"""The BTF reader: every kind of type, lookups by name and by number, split BTF, and corrupt bytes."""

from __future__ import annotations

import contextlib

import pytest
from btf_builder import BtfBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from sonde.debuginfo.btf import KINDS, Btf
from sonde.debuginfo.btfdump import definition
from sonde.debuginfo.ctype import (
    VOID,
    Array,
    CType,
    Enum,
    Float,
    Forward,
    FuncProto,
    Int,
    Pointer,
    Qualified,
    Struct,
    Typedef,
    declare,
    sizeof,
    strip,
)
from sonde.errors import FeatureError, FormatError, SondeError


def sample() -> BtfBuilder:
    """Every kind of type once or more."""
    b = BtfBuilder()
    int_ = b.int("int", 4, signed=True)
    char = b.int("char", 1, signed=True)
    ulong = b.int("long unsigned int", 8)
    bool_ = b.int("_Bool", 1, bool_=True)
    b.typedef("bool", bool_)
    b.float("double", 8)
    comm = b.array(char, 16)
    flexible = b.array(ulong, 0)
    task = 12
    ptr = b.ptr(task)
    inner = b.struct("", 8, [("utime", ulong, 0), ("stime", ulong, 0)], union=True)
    const = b.qualified("const", char)
    assert b.struct(
        "task_struct",
        48,
        [("pid", int_, 0, 0), ("on_cpu", int_, 33, 1), ("prio", int_, 34, 7), ("comm", comm, 64, 0), ("", inner, 192, 0),
         ("parent", ptr, 256, 0), ("tail", flexible, 384, 0)],
        flag=True,
    ) == task  # fmt: skip
    user = b.type_tag("user", const)
    user_ptr = b.ptr(user)
    b.typedef("ubuf_t", user_ptr)
    b.enum("pid_type", {"PIDTYPE_PID": 0, "PIDTYPE_TGID": 1})
    b.enum("", {"MINUS_ONE": -1, "PLUS_ONE": 1}, signed=True)
    b.enum64("wide", {"WIDE_TOP": 1 << 63, "WIDE_ONE": 1})
    b.enum64("wide_signed", {"WIDE_MINUS": -5}, signed=True)
    b.fwd("hidden")
    b.fwd("hidden_union", union=True)
    proto = b.func_proto(ulong, [("buf", user_ptr), ("count", ulong)])
    b.func("vfs_read", proto)
    printk = b.func_proto(int_, [("fmt", user_ptr)], variadic=True)
    func = b.func("_printk", printk, linkage=0)
    b.decl_tag("bpf_kfunc", func)
    nothing = b.func_proto(0, [])
    b.ptr(nothing)
    var = b.var("runqueues", task)
    b.datasec(".data..percpu", 48, [(var, 0, 48)])
    b.qualified("volatile", int_)
    b.qualified("restrict", ptr)
    return b


@pytest.fixture
def btf() -> Btf:
    return Btf.from_bytes(sample().build())


def test_struct_members_are_found_with_their_places_and_types(btf: Btf) -> None:
    task = btf.get_struct("struct task_struct")
    assert task is not None
    assert (task.kind, task.name, task.size) == ("struct", "task_struct", 48)
    comm = task.get_member("comm")
    assert comm is not None and comm.offset == 8 and declare(comm.member.ctype, "comm") == "char comm[16]"
    stime = task.get_member("stime")
    assert stime is not None and stime.offset == 24 and [m.name for m in stime.path] == ["", "stime"]
    assert list(task.iter_names()) == ["pid", "on_cpu", "prio", "comm", "utime", "stime", "parent", "tail"]
    assert task.get_member("nosuch") is None


def test_bit_fields_have_their_width_in_the_member(btf: Btf) -> None:
    task = btf.get_struct("task_struct")
    assert task is not None
    prio = task.get_member("prio")
    assert prio is not None
    assert (prio.member.offset_bits, prio.member.width_bits) == (34, 7)
    assert [m.width_bits for m in task.members] == [0, 1, 7, 0, 0, 0, 0]


def test_old_bit_fields_have_their_width_in_the_integer() -> None:
    b = BtfBuilder()
    three = b.int("unsigned int", 4, bits=3, shift=2)
    whole = b.int("unsigned int", 4)
    b.struct("old", 4, [("a", three, 8), ("b", whole, 0)])
    old = Btf.from_bytes(b.build()).get_struct("old")
    assert old is not None
    assert [(m.name, m.offset_bits, m.width_bits) for m in old.members] == [("a", 10, 3), ("b", 0, 0)]


def test_recursive_types_resolve_to_the_same_object(btf: Btf) -> None:
    task = btf.get_struct("task_struct")
    assert task is not None
    parent = task.get_member("parent")
    assert parent is not None
    pointer = parent.member.ctype
    assert isinstance(pointer, Pointer) and pointer.target is task and task is btf.type_by_id(12)


def test_flexible_array_takes_no_room(btf: Btf) -> None:
    task = btf.get_struct("task_struct")
    assert task is not None
    tail = task.get_member("tail")
    assert tail is not None
    assert isinstance(tail.member.ctype, Array) and tail.member.ctype.count == 0 and sizeof(tail.member.ctype) == 0


def test_type_tags_become_the_tag_of_the_pointer(btf: Btf) -> None:
    ubuf = strip(btf.get_typedef("ubuf_t") or VOID)
    assert isinstance(ubuf, Pointer) and ubuf.tag == "user"
    assert declare(ubuf, "p") == "const char *p"
    task = btf.get_struct("task_struct")
    assert task is not None
    parent = task.get_member("parent")
    assert parent is not None and isinstance(parent.member.ctype, Pointer) and parent.member.ctype.tag == ""


def test_type_tag_outside_of_a_pointer_is_a_qualifier(btf: Btf) -> None:
    tag = btf.type_by_id(13)
    assert isinstance(tag, Qualified) and tag.name == "user"


def test_functions_have_prototypes_and_ids(btf: Btf) -> None:
    read = btf.get_func("vfs_read")
    assert isinstance(read, FuncProto)
    assert declare(read, "vfs_read") == "long unsigned int vfs_read(const char *buf, long unsigned int count)"
    ident = btf.get_func_id("vfs_read")
    assert btf.type_by_id(ident) is read
    assert ident == btf.get_type_id("vfs_read", "func") > 0
    printk = btf.get_func("_printk")
    assert printk is not None and printk.variadic
    assert declare(printk, "_printk") == "int _printk(const char *fmt, ...)"
    assert btf.get_func("nosuch") is None and btf.get_func_id("nosuch") == 0
    assert btf.get_func("task_struct") is None
    assert list(btf.iter_func_names()) == ["vfs_read", "_printk"]


def test_enumerators_are_found_in_any_enumeration(btf: Btf) -> None:
    found = {n: btf.get_enumerator(n) for n in ("PIDTYPE_TGID", "MINUS_ONE", "WIDE_TOP", "WIDE_MINUS")}
    assert {n: f[0] for n, f in found.items() if f} == {
        "PIDTYPE_TGID": 1, "MINUS_ONE": -1, "WIDE_TOP": 1 << 63, "WIDE_MINUS": -5}  # fmt: skip
    tgid = found["PIDTYPE_TGID"]
    assert tgid is not None and tgid[1] is btf.get_type("enum pid_type")
    assert (
        btf.get_enumerator("comm") is None and btf.get_enumerator("nosuch") is None and btf.get_enumerator("") is None
    )


def test_types_by_c_spelling(btf: Btf) -> None:
    for spelling, kind in (("struct task_struct", Struct), ("enum pid_type", Enum), ("enum wide", Enum), ("ubuf_t", Typedef),
                           ("int", Int), ("signed int", Int), ("unsigned long", Int), ("long unsigned int", Int),
                           ("double", Float), ("bool", Typedef), ("char", Int), ("_Bool", Int)):  # fmt: skip
        assert isinstance(btf.get_type(spelling), kind), spelling
    assert btf.get_type("void") is VOID
    for absent in ("task_struct", "struct nosuch", "union task_struct", "enum task_struct", "pid", "", "struct", "a b c",
                   "unsigned short", "struct hidden"):  # fmt: skip
        assert btf.get_type(absent) is None, absent


def test_other_kinds(btf: Btf) -> None:
    by_kind = dict(btf.iter_names(KINDS))
    assert by_kind["datasec"] == ".data..percpu" and by_kind["decl_tag"] == "bpf_kfunc"
    hidden = btf.type_by_id(btf.get_type_id("hidden_union", "fwd"))
    assert isinstance(hidden, Forward) and hidden.kind == "union"
    section = btf.type_by_id(btf.get_type_id(".data..percpu", "datasec"))
    assert (
        isinstance(section, Struct) and section.kind == "datasec" and [m.name for m in section.members] == ["runqueues"]
    )
    assert btf.get_var("runqueues") is btf.get_struct("task_struct") and btf.get_var("nosuch") is None
    tag = btf.type_by_id(btf.get_type_id("bpf_kfunc", "decl_tag"))
    assert tag is btf.get_func("_printk")
    assert btf.get_type_id("pid_type", "enum") > 0 and btf.get_type_id("wide", "enum") > 0
    assert btf.type_by_id(0) is VOID


def test_iter_names_by_kind(btf: Btf) -> None:
    assert list(btf.iter_names(("struct", "typedef"))) == [
        ("typedef", "bool"), ("struct", "task_struct"), ("typedef", "ubuf_t")]  # fmt: skip
    assert [n for _, n in btf.iter_names(("enum",))] == ["pid_type", "wide", "wide_signed"]


def test_lookup_order_does_not_matter() -> None:
    data = sample().build()
    count = Btf.from_bytes(data).count_types()
    expected = [repr(Btf.from_bytes(data).type_by_id(i)) for i in range(count + 1)]
    fresh = Btf.from_bytes(data)
    assert [repr(fresh.type_by_id(i)) for i in reversed(range(count + 1))] == expected[::-1]


def test_big_endian_gives_the_same_types(btf: Btf) -> None:
    other = Btf.from_bytes(sample().build(">"))
    assert other.count_types() == btf.count_types()
    for ident in range(btf.count_types() + 1):
        assert repr(other.type_by_id(ident)) == repr(btf.type_by_id(ident))


def test_split_btf_continues_its_base(btf: Btf) -> None:
    base_strings = len(sample()._strings)
    b = BtfBuilder(btf.count_types() + 1, base_strings)
    b.typedef("first_typedef", 1)
    own = b.struct("module_state", 16, [("task", 9, 0), ("count", 3, 64)])
    proto = b.func_proto(0, [("state", b.ptr(own))])
    func = b.func("module_probe", proto)
    module = Btf.from_bytes(b.build(), base=btf)
    state = module.get_struct("module_state")
    assert state is not None
    task = state.get_member("task")
    assert task is not None and isinstance(task.member.ctype, Pointer)
    assert task.member.ctype.target is btf.get_struct("task_struct")
    assert module.get_func_id("module_probe") == func
    assert module.get_struct("task_struct") is btf.get_struct("task_struct")
    assert module.get_typedef("first_typedef") is not None
    assert list(module.iter_func_names()) == ["module_probe"]
    assert module.count_types() == func
    enumerator = module.get_enumerator("PIDTYPE_TGID")
    assert enumerator is not None and enumerator[0] == 1
    assert btf.get_struct("module_state") is None


def test_string_of_a_base_may_name_a_type_of_the_split(btf: Btf) -> None:
    b = BtfBuilder(btf.count_types() + 1, len(sample()._strings))
    own = sample()
    offset = own.string("pid")  # a string that the base has, as the name of a struct of the module
    b._offsets["pid"] = offset
    ident = b.struct("pid", 4, [])
    module = Btf.from_bytes(b.build(), base=btf)
    assert module.get_type_id("pid", "struct") == ident
    assert btf.get_struct("pid") is None


def test_open_without_the_file() -> None:
    with pytest.raises(FeatureError, match="no BTF"):
        Btf.open("/nonexistent/btf")


def test_open_maps_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "btf"
    path.write_bytes(sample().build())
    with Btf.open(str(path)) as opened:
        assert opened.get_struct("task_struct") is not None
    opened.close()
    path.write_bytes(b"")
    with pytest.raises(FormatError):
        Btf.open(str(path))


# Corrupt bytes ----------------------------------------------------------------------------------------------------


def touch(btf: Btf) -> None:
    """Ask everything that can be asked."""
    for name in ("task_struct", "pid", "vfs_read", "runqueues", "x", "WIDE_TOP"):
        for question in (btf.get_struct, btf.get_type, btf.get_typedef, btf.get_func, btf.get_var, btf.get_enumerator):
            with contextlib.suppress(FormatError):
                question(name)
    with contextlib.suppress(FormatError):
        list(btf.iter_names(KINDS))
    for ident in range(40):
        with contextlib.suppress(FormatError):
            touch_type(btf.type_by_id(ident))


def touch_type(ctype: CType) -> None:
    for question in (declare, sizeof, strip, definition):
        with contextlib.suppress(FormatError):
            question(ctype)
    with contextlib.suppress(FormatError):
        assert ctype.align >= 0
    if isinstance(ctype, Struct):
        with contextlib.suppress(FormatError):
            ctype.get_member("nosuch")
        with contextlib.suppress(FormatError):
            list(ctype.iter_names())
    if isinstance(ctype, Pointer):
        with contextlib.suppress(FormatError):
            assert isinstance(ctype.tag, str)


def use_corrupt(data: bytes) -> None:
    try:
        btf = Btf.from_bytes(data)
    except FormatError:
        return
    touch(btf)


GOOD = sample().build()


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_only_raise_format_errors(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    use_corrupt(bytes(data))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_words_only_raise_format_errors(data: st.DataObject) -> None:
    """Type ids and counts that are wrong but plausible reach deeper than random bytes."""
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        word = data.draw(st.integers(6, len(GOOD) // 4 - 80))
        damaged[word * 4 : word * 4 + 4] = data.draw(st.integers(0, 40)).to_bytes(4, "little")
    use_corrupt(bytes(damaged))


@given(st.integers(0, len(GOOD)))
@settings(max_examples=100, deadline=None)
def test_truncation_only_raises_format_errors(size: int) -> None:
    use_corrupt(GOOD[:size])


@given(st.binary(max_size=200))
def test_random_bytes_only_raise_format_errors(data: bytes) -> None:
    use_corrupt(data)


def loop(kind: str) -> Btf:
    b = BtfBuilder()
    b.int("int", 4)
    if kind == "ptr":
        b.ptr(2)
    elif kind == "array":
        b.array(2, 3)
    elif kind == "func":
        b.func("f", 2)
    elif kind == "func_proto":
        b.func_proto(2, [("a", 2), ("b", 2)])
    elif kind == "struct":
        b.struct("s", 8, [("a", 2, 0), ("b", 2, 0)])
    elif kind == "anonymous":
        b.struct("s", 8, [("", 2, 0), ("", 2, 0)])
    elif kind == "var":
        b.var("v", 2)
    elif kind == "datasec":
        b.datasec("d", 8, [(2, 0, 8)])
    else:
        b.add(kind, "x", 2, *([0] if kind == "decl_tag" else []))
    return Btf.from_bytes(b.build())


@pytest.mark.parametrize(
    "kind",
    ["ptr", "array", "func", "func_proto", "struct", "anonymous", "var", "datasec", "typedef", "const", "volatile", "restrict",
     "type_tag", "decl_tag"],
)  # fmt: skip
def test_types_that_refer_to_themselves_end(kind: str) -> None:
    btf = loop(kind)
    with contextlib.suppress(FormatError):
        touch_type(btf.type_by_id(2))


@pytest.mark.parametrize("kind", ["typedef", "const", "type_tag", "array"])
def test_loops_are_reported(kind: str) -> None:
    with pytest.raises(FormatError, match="loop"):
        sizeof(loop(kind).type_by_id(2))


def test_pointer_loop_is_reported() -> None:
    with pytest.raises(FormatError, match="without end"):
        declare(loop("ptr").type_by_id(2))


def test_doubling_structs_do_not_explode() -> None:
    b = BtfBuilder()
    for _ in range(60):
        b.struct("s", 8, [("", b._next_id + 1, 0), ("", b._next_id + 1, 0)], union=True)
    b.int("int", 4)
    outer = Btf.from_bytes(b.build()).type_by_id(1)
    assert isinstance(outer, Struct)
    assert outer.get_member("nosuch") is None
    assert outer.align == 4
    assert list(outer.iter_names()) == []


@pytest.mark.parametrize("before", range(30, 36))
def test_a_cut_off_type_is_found_out_wherever_it_stands(before: int) -> None:
    b = BtfBuilder()
    for number in range(before):
        b.int(f"int{number}", 4)
    last = b.add("enum", "cut", 4, 0, 0, vlen=9)
    cut = Btf.from_bytes(b.build())
    for _ in range(2):
        with pytest.raises(FormatError, match="cut off"):
            cut.type_by_id(last)


def test_doubling_prototypes_do_not_explode() -> None:
    b = BtfBuilder()
    for _ in range(60):
        b.func_proto(0, [("a", b._next_id + 1), ("b", b._next_id + 1)])
    b.int("int", 4)
    with pytest.raises(FormatError, match="without end"):
        declare(Btf.from_bytes(b.build()).type_by_id(1))


def test_a_struct_with_a_hole_of_gigabytes_is_not_spelt_out() -> None:
    b = BtfBuilder()
    int_ = b.int("int", 4)
    b.struct("vast", 1 << 31, [("a", int_, 0)])
    vast = Btf.from_bytes(b.build()).get_struct("vast")
    assert vast is not None and vast.size == 1 << 31
    with pytest.raises(FormatError, match="gap"):
        definition(vast)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x9f\xeb", b"\x9f\xeb\x02" + bytes(40), b"\x7fELF" + bytes(60), GOOD[:24], GOOD[:-1], GOOD[:100]],
)
def test_headers_that_promise_too_much(data: bytes) -> None:
    with pytest.raises(FormatError):
        Btf.from_bytes(data)


def test_a_type_number_out_of_range_is_a_format_error(btf: Btf) -> None:
    for ident in (1000, -1, 1 << 40):
        with pytest.raises(SondeError):
            btf.type_by_id(ident)
