"""System calls made by a stopped thread of another process: a list of them, for which each processor has a piece of code that needs nobody.

The code is written where nothing of the program lies (`slack`), the thread is sent there, and every call is a stop at which its result is read. It changes no memory, no
flag and no vector register, and its end puts every register back that it changed. So whenever the tracer dies, the thread runs the code to its
end and is back where it was: there is no moment at which the process depends on the tracer. With the tracer alive the end is never run: the thread is
stopped behind the last call and its registers are set.
"""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Argument = Union[int, bytes, "Result"]


class Result(Record):
    """The result of the call at `index` of the same list, as argument of a later one."""

    index: int


class Call(Record):
    """A system call by name or number. An argument is a number, the result of an earlier call, or bytes: the address of a copy of them."""

    number: int | str
    arguments: tuple[Argument, ...] = ()
