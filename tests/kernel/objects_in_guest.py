"""Objects on other kernels: runs in guests. Loads those of tests/objects, as their sources say, and uses a congestion control.

Prints a line for each thing that was shown, and for what this kernel lacks; a wrong result is an exception.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from sonde.api.linking import cut_types, open_types
from sonde.api.objects import bind, load_object, open_object, read_object
from sonde.bpf.objfile.combine import combine_objects
from sonde.bpf.objfile.read import read_object as read
from sonde.debuginfo.ctype import Struct
from sonde.errors import FeatureError, SondeError
from sonde.kernel.btf import kernel_btf

OBJECTS = Path(__file__).parents[1] / "objects"


def linked() -> None:
    """Two objects linked, with lines and functions told to the kernel."""
    names = ("linked_one.o", "linked_two.o")
    found = read(combine_objects([(name, (OBJECTS / name).read_bytes()) for name in names]))
    with load_object(bind(found)).object as live:
        assert live.run("first") == 41
        seen = live.maps["seen"].lookup(struct.pack("<i", 1))
        assert seen is not None and struct.unpack("<ii", seen[0][:8]) == (os.getpid(), os.getppid())


def attached() -> None:
    """A tracepoint by its section; questions about types, from the kernel's BTF and from the part of it that the object needs."""
    path = str(OBJECTS / "attached.o")
    small = Path("/tmp/small.btf")
    small.write_bytes(cut_types(kernel_btf(), [path]))
    for types in (None, open_types(str(small))):
        spec = read_object(path)
        loaded = load_object(spec, types=types)
        with loaded.object as live:
            os.getppid()
            assert live.maps["calls"].lookup(struct.pack("<I", os.getpid())) == [struct.pack("<q", 1)]
            assert live.run("questions") == 0


def sets_of_programs() -> None:
    """A congestion control of TCP: registered by a link where the kernel has those, by the map's entry otherwise."""
    from kernel.test_struct_ops import KNOWN, NAME, talk

    os.system("ip link set lo up 2>/dev/null || ifconfig lo up")
    found = open_object(str(OBJECTS / "congestion.o"))
    loaded = load_object(bind(found))
    with loaded.object:
        print("struct_ops:", *(link.method for link in loaded.links))
        assert talk() == NAME.encode()
    assert NAME not in KNOWN.read_text()


def typed_externs() -> None:
    """Variables of the kernel by their types, of each CPU; one that it lacks."""
    with load_object(read_object(str(OBJECTS / "typed_externs.o"))).object as live:
        assert live.run("run") == 0
        data = live.maps[".data"].lookup(bytes(4))
        ctype = live.maps[".data"].spec.value_type
        assert data is not None and isinstance(ctype, Struct)
        got = {m.name: struct.unpack_from("<q", data[0], m.offset)[0] for m in ctype.members}
        assert got["active"] >= 0 and (got["here"], got["first"], got["none"]) == (0, 0, 0), got


WAYS: tuple[Callable[[], None], ...] = (linked, attached, sets_of_programs, typed_externs)


def main() -> int:
    """Run all of it."""
    for way in WAYS:
        try:
            way()
        except FeatureError as error:
            print(f"{way.__name__}: lacking: {error.message}")
        except SondeError as error:
            print(error.render())
            return 1
        else:
            print(f"{way.__name__}: done")
    return 0
