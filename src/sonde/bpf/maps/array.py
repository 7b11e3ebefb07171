"""Arrays: entries of one size, by number, all there from the start. Per-CPU arrays have one whole array for each CPU, so that CPUs share no cache line.

value of entry i on CPU c: entries + c * value_stride + i * entry_stride
"""

from __future__ import annotations

from errno import E2BIG, EEXIST, EINVAL, ENOENT

from .base import BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST, HEADER_BYTES, Plan, SharedMap, check_sizes, round_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE = 64  # bytes of a cache line


class ArrayMap(SharedMap):
    """array, percpu_array."""

    def check(self) -> None:
        check_sizes(self, key=True)
        if self.key_size != 4:
            raise self.refusal("create", EINVAL, hint="the key of an array has 4 bytes")

    def plan(self) -> Plan:
        shape = self.shape
        copies = shape.cpus if shape.kind == "percpu_array" else 1
        step = round_up(shape.value_size)
        whole = (step * shape.max_entries + _LINE - 1) & -_LINE
        return Plan(HEADER_BYTES + whole * copies, copies, whole, step, 0, HEADER_BYTES)

    def index_of(self, key: bytes) -> int:
        """The number that a key is."""
        return int.from_bytes(key, "little")

    def find_at(self, key: bytes, cpu: int, *, mark: bool = True) -> int:
        index = self.index_of(key)
        if index >= self.max_entries:
            return 0
        return HEADER_BYTES + index * self.stride + (cpu * self.layout.value_stride if self.copies > 1 else 0)

    def update_at(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        if flags & ~BPF_F_LOCK > BPF_EXIST or (
            cpu < 0 and flags & BPF_F_LOCK
        ):  # the system call looks at the lock first
            return -EINVAL
        found = self.find_at(key, max(cpu, 0))
        if not found:
            return -E2BIG
        if flags & BPF_NOEXIST:
            return -EEXIST
        if flags & BPF_F_LOCK:
            return -EINVAL
        data, size = self.region.data, self.value_size
        if cpu >= 0 or self.copies == 1:
            data[found : found + size] = value[:size]
            return 0
        for number in range(self.copies):
            part = value[number * self.padded_size :][:size]
            at = found + number * self.layout.value_stride
            data[at : at + size] = part
        return 0

    def delete_at(self, key: bytes) -> int:
        return -EINVAL

    def keys(self) -> Iterator[bytes]:
        for index in range(self.max_entries):
            yield index.to_bytes(4, "little")


class TableMap(ArrayMap):
    """prog_array, perf_event_array, array_of_maps: the value is the number of a program, ring or map of the engine, and may be missing.

    In memory stands the number plus 1, so that zero is no number. `targets` says what the numbers stand for in this process.
    """

    targets: dict[int, object]

    def check(self) -> None:
        super().check()
        if self.value_size != 4:
            raise self.refusal("create", EINVAL, hint="the values of this type have 4 bytes")
        self.targets = {}

    def set(self, index: int, thing: object) -> None:
        """Put a thing of this process at an index. Raises MapError."""
        number = next((n for n, known in self.targets.items() if known is thing), len(self.targets))
        self.targets[number] = thing
        self.update(index.to_bytes(4, "little"), number.to_bytes(4, "little"))

    def get_target(self, key: bytes) -> object | None:
        """Return the thing at a key; None when there is none."""
        found = self.lookup(key)
        return self.targets.get(int.from_bytes(found[0], "little")) if found else None

    def get_program(self, index: int) -> object | None:
        """Return the program at an index, for tail calls."""
        return self.get_target(index.to_bytes(4, "little"))

    def find_at(self, key: bytes, cpu: int, *, mark: bool = True) -> int:
        return 0  # programs get no pointers to these values

    def lookup(self, key: bytes) -> list[bytes] | None:
        found = super().find_at(self._key(key), 0)
        number = self.region.words[found >> 3] if found else 0
        return [(number - 1).to_bytes(4, "little")] if number else None

    def update_at(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        if flags:
            return -EINVAL
        found = super().find_at(key, 0)
        if not found:
            return -E2BIG
        self.region.store(found, int.from_bytes(value[:4], "little") + 1)
        return 0

    def delete_at(self, key: bytes) -> int:
        found = super().find_at(key, 0)
        if not found:
            return -E2BIG
        old = self.region.load(found)
        self.region.store(found, 0)
        return 0 if old else -ENOENT
