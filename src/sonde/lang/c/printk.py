"""Lines of bpf_printk: a program of our own on the kernel's tracepoint bpf_trace:bpf_trace_printk sends them on as rows.

Reading trace_pipe would take the lines away from whoever else reads it, and an instance of tracefs would outlive a killed process. A
program hangs on descriptors. It sees the lines of all programs of the machine, as trace_pipe does. Needs Linux 5.9 or newer.
"""

from __future__ import annotations

from ...errors import ProbeError
from ...record import replace
from ...spec.layout import Layout, LayoutField
from ...spec.object import EventSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...spec.object import ObjectSpec
    from ...spec.target import Target

HELPERS = frozenset(("trace_printk", "trace_vprintk"))
LINE_BYTES = 1024  # what the kernel formats at most
_HEAD_BYTES = 8
_RING = "sonde_lines"
_LOST = "sonde_lost"
_TEXT = """
#include <bpf/bpf_helpers.h>
char license[] SEC("license") = "GPL";
struct line { unsigned int event, reserved; char text[1024]; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 20); } sonde_lines SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, long); } sonde_lost SEC(".maps");

SEC("raw_tp/bpf_trace_printk")
int sonde_line(unsigned long *ctx)
{
    struct line *line = bpf_ringbuf_reserve(&sonde_lines, sizeof(*line), 0);
    long size, *lost;
    int first = 0;

    if (!line) {
        lost = bpf_map_lookup_elem(&sonde_lost, &first);
        if (lost)
            __sync_fetch_and_add(lost, 1);
        return 0;
    }
    line->event = line->reserved = 0;
    size = bpf_probe_read_kernel_str(line->text, sizeof(line->text), (void *)ctx[0]);
    if (size >= 2 && size <= sizeof(line->text) && line->text[size - 2] == '\\n')
        line->text[size - 2] = 0; // a row ends by itself
    bpf_ringbuf_submit(line, 0);
    return 0;
}
"""


def with_lines(spec: ObjectSpec, target: Target) -> ObjectSpec:
    """Return the object, with a program that shows the lines of bpf_printk where its programs write such. Raises nothing for old kernels:
    there the lines are in trace_pipe only."""
    from ..source import Source
    from .options import Options
    from .sections import compile_object

    if not any(HELPERS & set(program.helpers) for program in spec.programs):
        return spec
    try:
        ours = compile_object(Source("sonde_lines.bpf.c", _TEXT), target, Options(), shown=False)
    except ProbeError:
        return spec
    line = LayoutField("text", _HEAD_BYTES, Layout("string", LINE_BYTES))
    return replace(
        spec,
        programs=(*spec.programs, *ours.programs),
        maps=(*spec.maps, *ours.maps),
        probes=(*(replace(probe, own=True) for probe in ours.probes), *spec.probes),
        events=(EventSpec(0, "print", _HEAD_BYTES + LINE_BYTES, (line,)),),
        ringbuf=_RING,
        lost=_LOST,
    )
