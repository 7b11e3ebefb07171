"""The front end's door: the text of a bpftrace script to an ObjectSpec.

parse -> imports -> macros -> parameters -> configuration -> types -> IR -> programs. Nothing here touches the live machine:
the same text, target and options give the same object.
"""

from __future__ import annotations

from ...record import replace
from ...spec.object import ObjectSpec, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...errors import Diagnostic
    from ...spec.target import Target
    from ..source import Source
    from .ast import Program
    from .config import Config
    from .lower import Lowered
    from .options import Options

    Trace = Callable[[str, str], None]


def compile_script(
    source: Source,
    target: Target,
    options: Options,
    *,
    environ: Mapping[str, str] | None = None,
    trace: Trace | None = None,
    warn: Callable[[str], None] | None = None,
) -> ObjectSpec:
    """Compile a script for `target`.

    `environ` may set BPFTRACE_* variables. `trace(stage, text)` gets the syntax tree, the types, the IR, the bytecode and the
    attach plan; `warn(text)` each warning. Raises CompileError, ProbeError, FeatureError, UsageError.
    """
    from ...compiler.pipeline import compile_module
    from .lower import lower
    from .types import analyse

    program, config = front(source, options, environ or {})
    _warn_all((*program.warnings, *config.warnings), warn)
    if trace is not None:
        from .dump import dump

        trace("syntax tree", dump(program))
    analysis = analyse(program, source, target, config, options)
    _warn_all(analysis.warnings, warn)
    if trace is not None:
        from .explain import show_types

        trace("types", show_types(analysis))
    lowered = lower(analysis, target, config, options)
    if trace is not None:
        from .explain import show_module

        trace("IR", show_module(lowered.module))
    compiled = compile_module(lowered.module, target, trace=trace)
    programs = [
        replace(each, uses=lowered.uses.get(each.name, ()), events=lowered.sent.get(each.name, ()))
        for each in compiled.programs
    ]
    spec = ObjectSpec(
        tuple(programs),
        compiled.maps,
        lowered.probes,
        lowered.events,
        lowered.views,
        lowered.strings,
        lowered.ringbuf,
        lowered.lost,
        failures=lowered.failures,
        settings=_settings(config, lowered),
        warnings=(*program.warnings, *config.warnings, *analysis.warnings),
        kernel_id=target.kernel_id,
        assumed=lowered.assumed,
        fixed=lowered.fixed,
        stamped=options.stamped,
    )
    if trace is not None:
        from .explain import show_plan, show_programs

        trace("bytecode", show_programs(spec))
        trace("attach plan", show_plan(spec))
    return spec


def front(source: Source, options: Options, environ: Mapping[str, str]) -> tuple[Program, Config]:
    """Parse a script and put in what is not its own: imports, macros, parameters; and read its configuration."""
    from .config import load_config
    from .params import resolve_params
    from .parser import parse
    from .stdlib import MACROS

    program = parse(source)
    config = load_config(program, environ)
    if program.imports or "import" in program.words:
        from .imports import resolve_imports

        program = resolve_imports(program, local_imports=config.unstable_import_statement == "enable")
    if program.macros or program.words & MACROS.keys():
        from .macros import expand_macros

        program = expand_macros(program)
    program = resolve_params(program, options.params, dict(options.named))
    return program, config


def _warn_all(warnings: tuple[Diagnostic, ...], warn: Callable[[str], None] | None) -> None:
    if warn is not None:
        for warning in warnings:
            warn(warning.render())


def _settings(config: Config, lowered: Lowered) -> Settings:
    return Settings(
        print_maps_on_exit=config.print_maps_on_exit,
        max_strlen=config.max_strlen,
        str_trunc_trailer=config.str_trunc_trailer,
        max_cat_bytes=config.max_cat_bytes,
        cpp_demangle=config.cpp_demangle,
        lazy_symbolication=config.lazy_symbolication,
        cache_user_symbols=config.cache_user_symbols,
        ringbuf_pages=config.perf_rb_pages,
        log_size=config.log_size,
        on_stack_limit=config.on_stack_limit,
        show_debug_info=config.show_debug_info,
        start_offset=lowered.start_offset,
    )
