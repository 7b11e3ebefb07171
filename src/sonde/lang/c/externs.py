"""`extern` variables: values of the kernel's configuration (`__kconfig`), addresses of its symbols (`__ksym`)."""

from __future__ import annotations

from ...compiler.ir import Const
from ...debuginfo.ctype import Int, sizeof, strip
from ...spec.object import MapSpec
from .lower_frame import failure
from .options import EXTERN
from .values import Place, ir_type, is_aggregate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .analysis import Variable
    from .lower_frame import Frame

_TRISTATE = {"y": 1, "m": 2, "n": 0, "": 0}


def extern_place(f: Frame, variable: Variable) -> Place:
    """Where an extern variable lies: a constant on the stack, or an address of the kernel."""
    if variable.section == ".kconfig":
        return _configured(f, variable)
    if variable.section == ".ksyms":
        if sizeof(variable.ctype) and not variable.weak and f.program.target.btf().get_var(variable.name) is not None:
            return Place(f.b.ksym(variable.name), 0, variable.ctype, "btf")
        address = f.program.target.ksym(variable.name)
        if not address and not variable.weak:
            raise failure(
                variable.span, f"the kernel has no symbol {variable.name}", "declare it __weak, and test its address"
            )
        return Place(Const(address), 0, variable.ctype, "kernel")
    if f.program.text.options.linkable:
        return _elsewhere(f, variable)
    raise failure(
        variable.span,
        f"variable {variable.name} is declared, but defined nowhere",
        "say __kconfig or __ksym where the kernel defines it",
    )


def _elsewhere(f: Frame, variable: Variable) -> Place:
    """A variable that another object defines: the start of a map of its own, which becomes the variable when objects are linked."""
    name = EXTERN + variable.name
    size = max(sizeof(variable.ctype), 1)
    f.program.module.add_map(MapSpec(name, "array", 4, size, 1, value_type=variable.ctype))
    return Place(f.b.map_value(name), 0, variable.ctype, "map")


def _configured(f: Frame, variable: Variable) -> Place:
    ctype = strip(variable.ctype)
    place = f.local(ctype, variable.name)
    text = f.program.target.kconfig(variable.name)
    if variable.name == "LINUX_KERNEL_VERSION":
        number = f.program.target.version_code
    elif is_aggregate(ctype):
        f.clear(place, sizeof(ctype))
        f.put_bytes(place, (text.strip('"').encode() + b"\0")[: sizeof(ctype)])
        return place
    elif text in _TRISTATE:
        number = (
            _TRISTATE[text]
            if not (isinstance(ctype, Int) and ctype.encoding == "bool")
            else int(text in "ym" and bool(text))
        )
    else:
        number = int(text, 0)
    f.b.store(place.pointer, Const(number, ir_type(ctype)), 0)
    return place
