"""Whatever decoders make of whatever bytes, both printers print it, and the JSON is JSON."""

from __future__ import annotations

import json as standard_json

from hypothesis import given
from hypothesis import strategies as st
from unit.output.printers import (
    BOOL,
    BUF,
    ENUM,
    POINTER,
    S8,
    S64,
    STR,
    U32,
    json,
    printed,
    snapshot,
    text,
    tuple_of,
    view,
)

from sonde.runtime.decode import Surroundings, layout_decoder
from sonde.runtime.reduce import reducer
from sonde.spec.layout import Layout

LEAVES = [
    *(S8, U32, S64, BOOL, POINTER, STR, BUF, ENUM),
    Layout("inet", 20),
    Layout("mac", 6),
    Layout("kstack", 8),
    Layout("ustack", 16),
    Layout("ksym", 8),
    Layout("usym", 16),
    Layout("username", 4),
    Layout("timestamp", 8, params=(("format", "%H:%M:%S.%f"),)),
    Layout("strerror", 4),
    Layout("signal_name", 4),
    Layout("syscall_name", 8),
    Layout("probe", 4),
    Layout("raw", 3),
    Layout("avg", 16, True),
    Layout("stats", 16),
]
LAYOUTS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from(
            [
                tuple_of(*parts),
                tuple_of(*parts, names=[f"f{i}" for i in range(len(parts))], kind="record"),
                Layout("array", 2 * parts[0].size, element=parts[0], count=2),
            ]
        )
    ),
    max_leaves=5,
)


@given(LAYOUTS, st.data())
def test_values(layout: Layout, data: st.DataObject) -> None:
    raw = data.draw(st.binary(min_size=layout.size, max_size=layout.size))
    value = layout_decoder(layout, Surroundings())(raw)
    if value is not None:
        as_text, as_json = printed(value, layout)
        assert isinstance(as_text, str)
        assert standard_json.loads(as_json)["type"] == "value"


@given(LAYOUTS, LAYOUTS, st.data(), st.integers(-1, 3), st.integers(-1, 3))
def test_maps(key: Layout, value: Layout, data: st.DataObject, top: int, div: int) -> None:
    decode_key = layout_decoder(key, Surroundings())
    aggregate = value.kind in ("avg", "stats")
    decode_value = (lambda raw: reducer(value)([raw])) if aggregate else layout_decoder(value, Surroundings())
    entries = {}
    for _ in range(data.draw(st.integers(0, 4))):
        raw_key = data.draw(st.binary(min_size=key.size, max_size=key.size))
        raw_value = data.draw(st.binary(min_size=value.size, max_size=value.size))
        shown = decode_value(raw_value)
        if shown is not None:
            entries[decode_key(raw_key)] = shown
    shot = snapshot(view("@m", key, value), entries, top=top, div=div)
    out = json(lambda p: p.snapshot(shot))[0]
    if out:
        standard_json.loads(out)
    assert text(lambda p: p.snapshot(shot))[0].count("@m[") >= (1 if entries else 0)
