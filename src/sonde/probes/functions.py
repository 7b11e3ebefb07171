"""Kernel functions by pattern: what kprobe and fentry have in common."""

from __future__ import annotations

from .wildcard import has_wildcard, make_matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..debuginfo.btf import Btf
    from ..debuginfo.ctype import FuncProto
    from .scope import Scope

KERNEL = "vmlinux"  # the "module" of functions that are in the kernel itself


def list_functions(scope: Scope) -> list[tuple[str, str]]:
    """Return (function, module) of all that may be traced: from the kernel's list, else from BTF."""
    found = scope.machine.functions()
    if not found and not scope.machine.traceable:
        btf = scope.btf()
        return [(name, KERNEL) for name in btf.iter_func_names()] if btf else []
    return [(name, module or KERNEL) for name, module in found]


def match_functions(module: str, symbol: str, scope: Scope) -> list[tuple[str, str]]:
    """Return (module, function) of all that match, sorted; `module` may be "" for any."""
    wanted, in_module = make_matcher(symbol), make_matcher(module or "*")
    # The compiler splits cold parts off functions; they have no entry to attach to.
    return sorted({(m, f) for f, m in list_functions(scope) if wanted(f) and ".part." not in f and in_module(m)})


def have_function(module: str, symbol: str, scope: Scope) -> bool:
    """Tell whether a function exists, by the cheapest source that knows. Without any source the answer is yes."""
    if module in ("", KERNEL) and not scope.machine.traceable:
        btf = scope.btf()
        if btf is not None and btf.get_func(symbol) is not None:
            return True
        if module == "" and scope.target is not None and scope.target.ksym(symbol):
            return True
        if btf is None and scope.target is None:
            return True
    known = scope.machine.functions()
    return any(f == symbol and (not module or (m or KERNEL) == module) for f, m in known)


def iter_btfs(module: str, scope: Scope) -> Iterator[tuple[str, Btf]]:
    """Yield (module, BTF): the kernel's first, then those of the modules that match."""
    base = scope.btf()
    if base is None:
        return
    wanted = make_matcher(module or "*")
    if wanted(KERNEL):
        yield KERNEL, base
    for name in scope.machine.module_names():
        if wanted(name):
            try:
                yield name, scope.machine.module_btf(name, base)
            except OSError:
                continue  # the module went away


def get_proto(module: str, symbol: str, scope: Scope) -> FuncProto | None:
    """Return the prototype of a function, or None."""
    if has_wildcard(module):
        module = ""
    for _, btf in iter_btfs(module, scope):
        proto = btf.get_func(symbol)
        if proto is not None:
            return proto
    return None


def close_functions(kind: str, symbol: str, scope: Scope) -> list[str]:
    """Return full probe names that sound like `symbol`."""
    from .close import close_names

    return [f"{kind}:{name}" for name in close_names(symbol, (f for f, _ in list_functions(scope)))]
