"""Frame: the state while one function is being lowered: the tables of its probe, its variables, loops and facts."""

from __future__ import annotations

from ...debuginfo.ctype import strip
from .lower_facts import Facts
from .lower_memory import MemoryAccess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...compiler.builder import Builder
    from ...compiler.ir import Block, Value
    from ...debuginfo.ctype import CType
    from .analysis import AnalysedProbe, Type, VariableInfo
    from .ast import Node
    from .lower_unit import Unit
    from .lower_values import Memory, Operand


class Frame(MemoryAccess):
    """Lowers into one function. The tables of the probe are at hand as attributes."""

    __slots__ = (
        "calls", "constants", "ctx", "facts", "fields", "finish", "loops", "operands", "overrides", "pairs", "probe", "type_of",
        "variables",
    )  # fmt: skip

    def __init__(self, unit: Unit, probe: AnalysedProbe, builder: Builder, ctx: Value) -> None:
        super().__init__(unit, builder)
        self.probe = probe
        self.ctx = ctx
        self.type_of = probe.type_of
        self.constants = probe.constants
        self.calls = probe.calls
        self.fields = probe.fields
        self.operands = probe.operands
        self.variables: dict[VariableInfo, Memory] = {}
        self.overrides: dict[Node, Operand] = {}  # expressions that were evaluated already
        self.pairs: dict[VariableInfo, tuple[Memory, Memory]] = {}  # loop variables over maps: key and value
        self.loops: list[Loop] = []
        self.facts = Facts()
        self.finish: Callable[[Value | int], None] = builder.ret  # leaves the program with a result

    # Types ------------------------------------------------------------------------------------------------------

    def type(self, node: Node) -> Type:
        """Return the type that the analysis found for an expression."""
        return self.type_of[node]

    def ctype(self, node: Node) -> CType:
        """Return the C type of an expression, without typedefs."""
        found = self.type_of.get(node)
        if found is not None:
            return strip(found.ctype)
        from .typing_operators import constant_type

        return strip(constant_type(self.constants[node]).ctype)

    def space(self, node: Node) -> str:
        """Return where the value of an expression leads, as far as the analysis knows."""
        found = self.type_of.get(node)
        return found.space if found is not None else ""

    def checked(self, helper: str, code: Value) -> Value:
        """The result of a helper call, whose failure is reported where the user wants to see each."""
        if self.unit.options.helper_errors and self.b.span is not None:
            from .lower_events import emit_helper_error

            emit_helper_error(self, helper, code, self.b.span)
        return code

    # Flow -------------------------------------------------------------------------------------------------------

    def diamond(self, condition: Value, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
        """Run `then` where the condition holds, else `otherwise`; go on behind both."""
        b = self.b
        yes, done = b.new_block("then"), b.new_block("done")
        no = b.new_block("else") if otherwise is not None else done
        b.branch(condition, yes, no)
        self.branch_to(yes)
        then()
        b.jump(done)
        self.leave_branch()
        if otherwise is not None:
            self.branch_to(no)
            otherwise()
            b.jump(done)
            self.leave_branch()
        b.at(done)

    def branch_to(self, block: Block) -> None:
        """Continue in a block that only the current code leads to; `leave_branch` ends it."""
        self.b.at(block)
        self.facts.enter(block)

    def leave_branch(self) -> None:
        """End what `branch_to` began: facts found there hold no longer."""
        self.facts.leave()


class Loop:
    """Where `break` and `continue` go in the loop around the current code."""

    __slots__ = ("leave", "next")

    def __init__(self, leave: Callable[[], None], next_: Callable[[], None]) -> None:
        self.leave = leave
        self.next = next_
