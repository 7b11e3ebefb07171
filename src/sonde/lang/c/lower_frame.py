"""Frame: the state while one instance of a function is lowered, and the diagnostics that lowering makes."""

from __future__ import annotations

from ...errors import CompileError
from ..source import diagnose
from .lower_memory import MemoryAccess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.builder import Builder
    from ...compiler.ir import Block, Value
    from ...debuginfo.ctype import CType
    from ...errors import Span
    from . import ast
    from .analysis import FunctionSymbol, Variable
    from .lower import Program
    from .spaces import Spaces
    from .values import Operand, Place


def failure(span: Span, message: str, hint: str = "") -> CompileError:
    """Make the error of one place in the text."""
    return CompileError([diagnose(span, message, hint=hint)])


class Frame(MemoryAccess):
    """Lowers one instance of a function into the function that `builder` builds.

    `finish` takes what a return statement gives (None: nothing), already evaluated.
    """

    __slots__ = (
        "cases",
        "cleanups",
        "ctx",
        "finish",
        "known",
        "labels",
        "leave",
        "moved",
        "spaces",
        "symbol",
        "variables",
        "walked",
    )  # fmt: skip

    def __init__(self, program: Program, builder: Builder, symbol: FunctionSymbol, spaces: Spaces) -> None:
        super().__init__(program, builder)
        self.symbol = symbol
        self.spaces = spaces
        self.variables: dict[Variable, Place] = {}
        self.moved: dict[Variable, Value] = {}  # distances of parameters that walk
        self.walked: dict[Variable, Variable] | None = None
        self.known: dict[ast.Node, Operand] = {}  # expressions that were evaluated already
        self.labels: dict[str, Block] = {}
        self.cases: dict[ast.Case, Block] = {}
        # Of the loops and switches around: where `continue` and `break` go, and how many clean-ups there were outside.
        self.leave: list[tuple[Block | None, Block, int]] = []
        self.cleanups: list[tuple[ast.Node, ast.Call]] = []  # of the scopes around, with their nodes
        self.finish: Callable[[Operand | None], None] = _no_return
        self.ctx: Value | None = None  # the program's context, where a parameter of this function has it

    @property
    def walkers(self) -> dict[Variable, Variable]:
        """The walking pointers of the function, each with its root (see `walkers`)."""
        if self.walked is None:
            from .walkers import find_walkers

            self.walked = {}
            self.walked = find_walkers(self)
        return self.walked

    def type(self, node: ast.Node) -> CType:
        """Return the type of an expression, before arrays decay and integers are promoted."""
        return self.program.analysis.types[node]

    def enter(self, again: Block | None, done: Block) -> None:
        """Note where `continue` and `break` go from here on, until `leave.pop()`."""
        self.leave.append((again, done, len(self.cleanups)))

    def clean_up(self, depth: int) -> None:
        """Call what has to be called when control leaves all scopes but those of the first `depth` clean-ups."""
        from .lower_expressions import run

        for _, call in reversed(self.cleanups[depth:]):
            run(self, call)

    def end_scope(self, depth: int) -> None:
        """Leave a scope at its end."""
        if len(self.cleanups) > depth:
            if not self.b.closed:
                self.clean_up(depth)
            del self.cleanups[depth:]

    def label(self, name: str) -> Block:
        """Return the block that a label begins."""
        if name not in self.labels:
            self.labels[name] = self.b.new_block(name)
        return self.labels[name]


def _no_return(operand: Operand | None) -> None:
    raise AssertionError("a frame without a way out")
