"""Machine code under construction: bytes, places with names, and jumps to them."""

from __future__ import annotations

from ...bpf.jit.x86_encoding import imm
from ..labels import Labelled

EQUAL, NOT_EQUAL, BELOW, LESS, ALWAYS = 4, 5, 2, 12, -1  # conditions of x86-64 jumps


class Code(Labelled):
    """x86-64 code with labels. Jumps are of the long form: what they skip is rare, or far."""

    def jump(self, name: str, condition: int = ALWAYS) -> None:
        """Jump to a name, which may come later."""
        self.bytes += b"\xe9" if condition < 0 else bytes([0x0F, 0x80 | condition])
        self._jumps.append((len(self.bytes), name))
        self.bytes += bytes(4)

    def load_address(self, register: int, name: str) -> None:
        """Load the address of a name into one of the first eight registers."""
        self.bytes += bytes([0x48, 0x8D, register << 3 | 5])
        self._jumps.append((len(self.bytes), name))
        self.bytes += bytes(4)

    def finish(self) -> bytes:
        """Fill in the jumps; return the code. Raises KeyError for a name that nothing has."""
        for at, name in self._jumps:
            self.bytes[at : at + 4] = imm(self._places[name] - at - 4)
        return bytes(self.bytes)


def jump_to(source: int, target: int, opcode: bytes = b"\xe9") -> bytes:
    """A jump (or call: e8) that stands at `source`; both are addresses within 2 GiB of each other. Raises OverflowError."""
    distance = target - (source + len(opcode) + 4)
    return opcode + distance.to_bytes(4, "little", signed=True)
