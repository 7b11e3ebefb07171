"""The front end's door: C text to programs.

Compiling has two steps. `compile_c` preprocesses, parses and analyses a text and lays out its maps; `Text.compile_program` then makes one function
into a program, as often and for as many kinds of entry as the caller likes. Nothing here touches the live machine.
"""

from __future__ import annotations

from .bcc_maps import map_spec
from .globals import GlobalData
from .options import Compiled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...debuginfo.ctype import CType
    from ...errors import Diagnostic
    from ...spec.object import MapSpec
    from ...spec.target import Target
    from ..source import Source
    from .analysis import Analysis, FunctionSymbol, Table
    from .options import Entry, Options
    from .walk import Flow

    Trace = Callable[[str, str], None]


def compile_c(source: Source, target: Target, options: Options, *, trace: Trace | None = None) -> Text:
    """Preprocess, parse and analyse a text, and lay out its maps. Raises CompileError with all errors that were found.

    `trace(stage, text)` gets the syntax tree as C text, and what tables, variables and programs there are.
    """
    from .environment import Environment
    from .parser import parse
    from .preprocessor import preprocess
    from .types_unit import analyse

    warnings: list[Diagnostic] = []
    tokens = preprocess(source, options, target, warnings)
    environment = Environment(target)
    unit = parse(tokens, environment.is_type_name)
    if trace is not None:
        from .explain import show_tree

        trace("syntax tree", show_tree(unit, source))
    analysis = analyse(unit, environment, dialect=options.dialect, main=source, linkable=options.linkable)
    if trace is not None:
        from .explain import show_names

        trace("types", show_names(analysis))
    return Text(analysis, target, options, tuple(warnings))


class Text:
    """A text that makes sense, ready to be made into programs (see `options.Unit`)."""

    def __init__(
        self, analysis: Analysis, target: Target, options: Options, warnings: tuple[Diagnostic, ...] = ()
    ) -> None:
        self.analysis = analysis
        self.warnings = (*warnings, *analysis.warnings)  # of preprocessor and analysis
        self.target = target
        self.options = options
        self.globals = GlobalData(analysis)
        self.map_specs = {name: map_spec(table, analysis.tables, target) for name, table in analysis.tables.items()}
        self.flows: dict[FunctionSymbol, Flow] = {}
        self._events: dict[str, CType | None] | None = None

    @property
    def programs(self) -> tuple[str, ...]:
        """The functions that may become programs, in order of definition."""
        return tuple(name for name, info in self.analysis.functions.items() if info.symbol.is_program)

    @property
    def tables(self) -> Mapping[str, Table]:
        """The tables by name, in order of declaration."""
        return self.analysis.tables

    @property
    def maps(self) -> tuple[MapSpec, ...]:
        """The maps that all programs share: tables and global data."""
        return (*self.map_specs.values(), *self.globals.maps)

    @property
    def events(self) -> Mapping[str, CType]:
        """The C type of what programs submit, by the name of the buffer; those with several types are left out."""
        if self._events is None:
            from .events import find_events

            self._events = find_events(self.analysis)
        return {name: ctype for name, ctype in self._events.items() if ctype is not None}

    def compile_program(
        self, name: str, entry: Entry, *, trace: Trace | None = None, optimised: bool = True
    ) -> Compiled:
        """Make the function `name` into a program. Raises CompileError, FeatureError. Same input, same bytes."""
        from ...compiler.pipeline import compile_module
        from .limits import check_memory, show_calls
        from .lower import lower_program

        module = lower_program(self, self.analysis.functions[name].symbol, entry)
        if trace is not None:
            from ...compiler.text import format_module

            trace(f"IR of {name}", format_module(module))
        show_calls(module)
        compiled = compile_module(module, self.target, trace=trace, optimised=optimised)
        check_memory(self.analysis.functions[name].symbol, module, compiled)
        shared = {spec.name for spec in self.maps}
        program = next(p for p in compiled.programs if p.name == name)
        return Compiled(program, tuple(spec for spec in compiled.maps if spec.name not in shared))
