"""/proc/kallsyms: kernel addresses to symbols, and back.

The file is 5 MB that the kernel formats anew for each reader (50 ms), so it is read once, when first asked, and no
further than the answer needs. The kernel's own symbols stand there sorted by address: they are searched in the bytes, and
no table is made of them. Only those of modules, which follow in any order, are sorted here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from ..errors import FeatureError, FormatError, PrivilegeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/proc/kallsyms"

_READ_BYTES = 1 << 16
_REACH_BYTES = 1 << 20  # an address further than this behind a symbol does not belong to it
_HIDDEN_SAMPLE_LINES = 64  # real symbols at address 0 (per-CPU ones of old kernels) are fewer than this


class Kallsyms:
    """The kernel's symbol table. Reading starts on first use; each method may raise what reading raises:

    PrivilegeError when the kernel hides the addresses, FeatureError without /proc/kallsyms, FormatError on garbage.
    """

    def __init__(self, path: str = PATH) -> None:
        self.path = path
        self._fd = -1
        self._complete = False
        self._data = bytearray()
        self._core_end = 0  # where the lines of modules start
        self._modules: list[tuple[int, int]] | None = None  # (address, place of the line), sorted

    @classmethod
    def from_bytes(cls, data: bytes) -> Kallsyms:
        """Use `data`, the text of a kallsyms file, for the symbols of another machine."""
        self = cls("")
        self._data += data
        self._complete = True
        self._check_addresses()
        return self

    def close(self) -> None:
        """Close the file, in case that not all of it was read. What was read stays usable."""
        if self._fd >= 0:
            import os

            os.close(self._fd)
            self._fd = -1
        self._complete = True

    # reading --------------------------------------------------------------------------------------------------

    def _read_more(self) -> bool:
        """Read the next piece; False when there is none."""
        import os

        if self._complete:
            return False
        try:
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            first = not self._data
            piece = os.read(self._fd, _READ_BYTES)
        except FileNotFoundError:
            raise FeatureError(
                f"{self.path} does not exist", feature="kallsyms", hint="the kernel needs CONFIG_KALLSYMS=y"
            ) from None
        except OSError as error:
            raise PrivilegeError(f"{self.path} cannot be read: {error.strerror}", capability="CAP_SYSLOG") from None
        self._data += piece
        if not piece:
            self.close()
        if first:
            self._check_addresses()
        return bool(piece)

    def _check_addresses(self) -> None:
        lines = bytes(self._data[:8192]).split(b"\n")[:_HIDDEN_SAMPLE_LINES]
        addresses = [line.partition(b" ")[0] for line in lines if line]
        if addresses and not any(a.strip(b"0") for a in addresses):
            raise PrivilegeError(
                f"the kernel hides the addresses in {self.path or 'kallsyms'}",
                capability="CAP_SYSLOG",
                hint="run with CAP_SYSLOG, or as root: sysctl kernel.kptr_restrict=0 kernel.perf_event_paranoid=1",
            )

    def _read_all(self) -> None:
        while self._read_more():
            pass
        if self._core_end == 0:
            bracket = self._data.find(b"\t[")
            self._core_end = self._data.rfind(b"\n", 0, bracket) + 1 if bracket >= 0 else len(self._data)

    # questions ------------------------------------------------------------------------------------------------

    def address(self, name: str) -> int:
        """Return the address of the first symbol `name`; 0 when there is none. Reads up to its line."""
        needle = b" " + name.encode("utf-8", "replace")
        if not name or "\n" in name or "\t" in name or " " in name:
            return 0
        start = 0
        while True:
            at = self._data.find(needle, start)
            if at < 0 or at + len(needle) >= len(self._data):
                start = max(start, len(self._data) - len(needle)) if at < 0 else at
                if not self._read_more():
                    return self._parse(self._line_start(at))[0] if at >= 0 else 0
            elif self._data[at + len(needle)] in b"\n\t":
                return self._parse(self._line_start(at))[0]
            else:
                start = at + 1

    def resolve(self, address: int) -> tuple[str, int, str] | None:
        """Return (name, offset from its start, module or "") of the symbol that `address` lies in, or None.

        Of several symbols at one address the first one listed is returned, as the kernel does itself.
        """
        self._read_all()
        best: tuple[int, str, str] | None = None
        for place in (self._find_core(address), self._find_module(address)):
            if place >= 0:
                start, _, name, module = self._parse(place)
                if start <= address and (best is None or start > best[0]):
                    best = (start, name, module)
        if best is None or address - best[0] > _REACH_BYTES:
            return None
        return best[1], address - best[0], best[2]

    def iter_symbols(self) -> Iterator[tuple[int, str, str, str]]:
        """Yield (address, type letter, name, module or "") of every symbol, in the order of the file."""
        self._read_all()
        place, end = 0, len(self._data)
        while place < end:
            yield self._parse(place)
            place = self._next_line(place)

    # lines ----------------------------------------------------------------------------------------------------

    def _line_start(self, place: int) -> int:
        return self._data.rfind(b"\n", 0, place) + 1

    def _next_line(self, place: int) -> int:
        newline = self._data.find(b"\n", place)
        return newline + 1 if newline >= 0 else len(self._data)

    def _parse(self, place: int) -> tuple[int, str, str, str]:
        """Parse the line at `place`: "ADDRESS T name" or "ADDRESS T name\t[module]"."""
        line = bytes(self._data[place : min(self._next_line(place), place + 4096)])
        words = line.decode("utf-8", "replace").split()
        if len(words) not in (3, 4) or len(words[1]) != 1:
            raise FormatError(f"a line that is no symbol: {line[:80]!r}", path=self.path, offset=place)
        return self._address_at(place), words[1], words[2], words[3].strip("[]") if len(words) == 4 else ""

    def _address_at(self, place: int) -> int:
        digits = bytes(self._data[place : place + 17]).partition(b" ")[0]
        if not digits.isalnum() or len(digits) > 16:
            raise FormatError(f"an address that is no number: {digits!r}", path=self.path, offset=place)
        try:
            return int(digits, 16)
        except ValueError:
            raise FormatError(f"an address that is no number: {digits!r}", path=self.path, offset=place) from None

    def _find_core(self, address: int) -> int:
        """Return the place of the first of the lines with the highest address up to `address`; -1 when there is none."""
        below = self._bisect(address + 1)
        if below == 0:
            return -1
        return self._bisect(self._address_at(self._line_start(below - 1)))

    def _bisect(self, address: int) -> int:
        """Return the place of the first line of the kernel proper whose address is not less than `address`."""
        low, high = 0, self._core_end
        while low < high:
            middle = self._line_start((low + high) // 2)
            if self._address_at(middle) < address:
                low = self._next_line(middle)
            else:
                high = middle
        return low

    def _find_module(self, address: int) -> int:
        if self._modules is None:
            places = []
            place = self._core_end
            while place < len(self._data):
                places.append((self._address_at(place), place))
                place = self._next_line(place)
            self._modules = sorted(places)
        index = bisect_right(self._modules, (address, 1 << 62)) - 1
        if index < 0:
            return -1
        return self._modules[bisect_left(self._modules, (self._modules[index][0], 0))][1]
