"""From a MapSpec to a live map: creation, single elements, iteration in batches, shared memory.

Keys and values are raw bytes. A per-CPU map's value travels as one value for each possible CPU, each padded to 8 bytes.
"""

from __future__ import annotations

from errno import E2BIG, EINTR, EINVAL, ENOENT, ENOMEM, ENOSPC, EOPNOTSUPP, EPERM

from ..errors import KernelError
from . import abi, syscall
from .abi import ENOTSUPP, MAP_BATCH, MAP_CREATE, MAP_ELEMENT
from .cpus import possible_cpus
from .descriptor import Descriptor, bpf_new, close_fd
from .refusal import refusal
from .syscall import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from mmap import mmap

    from ..spec.object import MapSpec

PER_CPU_TYPES = ("percpu_hash", "percpu_array", "lru_percpu_hash", "percpu_cgroup_storage")
ARRAY_TYPES = ("array", "percpu_array")
_KEYLESS_TYPES = ("ringbuf", "user_ringbuf")
_MAP_IN_MAP_TYPES = ("array_of_maps", "hash_of_maps")
_BATCH_BYTES = 1 << 18  # aimed at for keys and values of one batch


def create_map(spec: MapSpec, inner_fd: int = -1) -> KernelMap:
    """Create the map of `spec`, write and freeze its initial contents. The caller closes it.

    `inner_fd` is a map that serves as template of a map-in-map; without it one is made from `spec.inner`, and closed
    again. Raises PrivilegeError, FeatureError or KernelError. `spec.pinning` is for the loader of objects, not for us.
    """
    template = None
    if spec.type in _MAP_IN_MAP_TYPES and inner_fd < 0 and spec.inner is not None:
        template = create_map(spec.inner)
        inner_fd = template.fd
    try:
        fd = _create(spec, inner_fd)
    finally:
        if template is not None:
            template.close()
    live = KernelMap(fd, spec)
    try:
        if spec.initial:
            live.update(bytes(spec.key_size), spec.initial.ljust(spec.value_size, b"\0"))
        for key, value in spec.entries:
            live.update(key, value)
        if spec.frozen:
            live.freeze()
    except BaseException:
        live.close()
        raise
    return live


def _create(spec: MapSpec, inner_fd: int) -> int:
    kind = abi.map_type(spec.type)
    flags = spec.flags | (abi.BPF_F_RDONLY_PROG if spec.frozen else 0)
    entries = entries_of(spec)
    name = abi.object_name(spec.name)
    btf_fd, btf_types = _load_types(spec)

    def pack() -> bytearray:
        inner = max(inner_fd, 0)
        sizes = (spec.key_size, spec.value_size, entries)
        return bytearray(
            MAP_CREATE.pack(kind, *sizes, flags, inner, 0, name, 0, max(btf_fd, 0), *btf_types, 0, spec.extra)
        )

    try:
        fd = bpf_new(abi.BPF_MAP_CREATE, pack)
    finally:
        close_fd(btf_fd)
    if fd < 0:
        raise _create_refusal(spec, entries, -fd)
    return fd


def _load_types(spec: MapSpec) -> tuple[int, tuple[int, int]]:
    """Load the BTF of a map that cannot do without: its descriptor (-1: none), the types of key and value."""
    plain = spec.value is None or spec.value.kind not in ("struct", "array")
    if plain and spec.value_type is None and not spec.type.endswith("_storage"):
        return -1, (0, 0)
    from .mapbtf import make_map_btf, needs_btf

    if not needs_btf(spec):
        return -1, (0, 0)
    from .btf import load_btf

    made = make_map_btf(spec)
    return load_btf(made.blob), (made.key, made.value)


def entries_of(spec: MapSpec) -> int:
    """Return `max_entries` as the kernel wants it: a ring's bytes are a power of two of whole pages."""
    if spec.type in _KEYLESS_TYPES:
        from mmap import PAGESIZE

        return max(PAGESIZE, 1 << (max(spec.max_entries, 1) - 1).bit_length())
    if spec.type == "perf_event_array" and not spec.max_entries:
        return possible_cpus()
    return spec.max_entries


def _create_refusal(spec: MapSpec, entries: int, errno: int) -> Exception:
    copies = possible_cpus() if spec.type in PER_CPU_TYPES else 1
    size = entries if spec.type in _KEYLESS_TYPES else entries * (spec.key_size + spec.value_size * copies)
    shape = f"{entries} entries of {spec.key_size} + {spec.value_size} bytes"
    if spec.type in _KEYLESS_TYPES:
        shape = f"{entries} bytes"
    hint = ""
    if errno in (ENOMEM, E2BIG, ENOSPC):
        times = f" on {copies} CPUs" if copies > 1 else ""
        hint = f"the map takes about {max(size >> 10, 1)} KiB{times}: give it fewer entries or smaller values"
    elif errno == EINVAL and not entries:
        hint = "it has no entries: say how many it is for (in C __uint(max_entries, N))"
    elif errno == EINVAL:
        hint = f"this kernel has no {spec.type} maps, or not with these sizes and flags {spec.flags:#x}"
    return refusal(f"create the {spec.type} map {spec.name} ({shape})", errno, hint=hint)


class KernelMap(Descriptor):
    """A live map (see spec.engine.Map). Errors of a closed map are those of a bad descriptor."""

    __slots__ = ("_attr", "_key", "_mapping", "_stride", "_value", "batched", "copies", "spec")

    def __init__(self, fd: int, spec: MapSpec) -> None:
        super().__init__(fd)
        self.spec = spec
        self.copies = possible_cpus() if spec.type in PER_CPU_TYPES else 1
        self.batched = True  # until the kernel says otherwise
        self._stride = (spec.value_size + 7) & ~7 if spec.type in PER_CPU_TYPES else spec.value_size
        self._key = bytearray(spec.key_size)
        self._value = bytearray(self._stride * self.copies)
        self._attr = bytearray(MAP_ELEMENT.size)
        self._mapping: mmap | None = None

    @property
    def name(self) -> str:
        """The name in the spec."""
        return self.spec.name

    @property
    def value_bytes(self) -> int:
        """How many bytes the value of one key takes on its way from and to the kernel, for all CPUs together."""
        return self._stride * self.copies

    def _call(self, command: int, key: bytes | None, value: int, flags: int = 0) -> int:
        where = 0
        if key is not None:
            if len(key) != len(self._key):
                raise KernelError(f"{len(key)} bytes as key of map {self.name}, which has {len(self._key)}", EINVAL)
            self._key[:] = key
            where = address(self._key)
        MAP_ELEMENT.pack_into(self._attr, 0, self._fd_field(), where, value, flags)
        result = syscall.bpf(command, self._attr)
        while result == -EINTR:
            result = syscall.bpf(command, self._attr)
        return result

    def split(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Cut one element's value into what each CPU has."""
        size, stride = self.spec.value_size, self._stride
        return [bytes(data[at : at + size]) for at in range(0, stride * self.copies, stride)]

    def lookup(self, key: bytes) -> list[bytes] | None:
        """Return the value at `key` (one item; per-CPU maps: one for each possible CPU), or None when absent."""
        result = self._call(abi.BPF_MAP_LOOKUP_ELEM, key, address(self._value))
        if result == -ENOENT:
            return None
        if result < 0:
            raise self._refusal("look up a key in", result)
        return self.split(self._value)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Store `value` at `key` (per-CPU maps: the same for each CPU). `flags`: BPF_NOEXIST 1, BPF_EXIST 2."""
        if len(value) != self.spec.value_size:
            size = self.spec.value_size
            raise KernelError(f"{len(value)} bytes as value of map {self.name}, which has {size}", EINVAL)
        self._store(key, value.ljust(self._stride, b"\0") * self.copies, flags)

    def update_each(self, key: bytes, values: Sequence[bytes]) -> None:
        """Store one value for each possible CPU, in CPU order (per-CPU maps only)."""
        if len(values) != self.copies:
            raise KernelError(f"{len(values)} values for map {self.name}, which has {self.copies} copies", EINVAL)
        self._store(key, b"".join(value.ljust(self._stride, b"\0") for value in values), 0)

    def _store(self, key: bytes, data: bytes, flags: int) -> None:
        result = self._call(abi.BPF_MAP_UPDATE_ELEM, key, address(data), flags)
        if result < 0:
            raise self._refusal("store a value in", result)

    def delete(self, key: bytes) -> bool:
        """Remove `key`; False when it was absent."""
        result = self._call(abi.BPF_MAP_DELETE_ELEM, key, 0)
        if result == -ENOENT:
            return False
        if result < 0:
            raise self._refusal("delete a key of", result)
        return True

    def _refusal(self, action: str, result: int) -> Exception:
        hint = ""
        if -result == E2BIG:
            hint = f"the map is full ({self.spec.max_entries} entries)"
        if -result == EPERM and self.spec.frozen:
            return KernelError(f"{action} map {self.name}", EPERM, hint="the map is frozen: it is read-only")
        return refusal(f"{action} map {self.name}", -result, hint=hint)

    def freeze(self) -> None:
        """Make the map read-only for user space, for good (Linux 5.2)."""
        result = syscall.bpf(abi.BPF_MAP_FREEZE, bytearray(self._fd_field().to_bytes(4, "little")))
        if result < 0:
            raise self._refusal("freeze", result)

    def items(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield all entries, in batches where the kernel can (Linux 5.6; per-CPU arrays 5.13).

        Entries that come or go meanwhile may be seen or missed. A walk by single keys starts anew when its last key was
        deleted under it, so it is bounded by twice the map's capacity.
        """
        if self.batched:
            yield from self._iter_batches()
        if not self.batched:
            yield from self._iter_keys()

    def _iter_batches(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Read in batches; when the kernel refuses the first one, clear `batched` and yield nothing."""
        key_size, step = self.spec.key_size, self.value_bytes
        count = max(64, min(self.spec.max_entries, _BATCH_BYTES // (key_size + step)))
        # Hash maps pass a bucket number (4 bytes) between calls, others the last key.
        cursor = bytearray(max(key_size, 4))
        position = 0
        result = 0
        while result != -ENOENT:
            keys, values = bytearray(key_size * count), bytearray(step * count)
            result, found = self._read_batch(position, cursor, keys, values, count)
            if result == -ENOSPC and count < 1 << 24:  # one bucket holds more than fits
                count *= 2
                continue
            if result < 0 and result != -ENOENT:
                if not position and -result in (EINVAL, ENOTSUPP, EOPNOTSUPP):
                    self.batched = False
                    return
                raise self._refusal("read", result)
            view = memoryview(values)
            for i in range(found):
                yield bytes(keys[i * key_size : (i + 1) * key_size]), self.split(view[i * step : (i + 1) * step])
            position = address(cursor)

    def _read_batch(
        self, position: int, cursor: bytearray, keys: bytearray, values: bytearray, count: int
    ) -> tuple[int, int]:
        """Read up to `count` entries from `position` on (0: the start); return the call's result and their number."""
        out = address(cursor)
        attr = bytearray(MAP_BATCH.pack(position, out, address(keys), address(values), count, self._fd_field(), 0, 0))
        result = -EINTR
        while result == -EINTR:
            result = syscall.bpf(abi.BPF_MAP_LOOKUP_BATCH, attr)
        return result, int.from_bytes(attr[abi.MAP_BATCH_COUNT_OFFSET : abi.MAP_BATCH_COUNT_OFFSET + 4], "little")

    def _fd_field(self) -> int:
        return self.fd & 0xFFFFFFFF  # a closed map's -1 is a bad descriptor to the kernel too

    def _iter_keys(self) -> Iterator[tuple[bytes, list[bytes]]]:
        for key in self.keys():
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def keys(self) -> Iterator[bytes]:
        """Yield the keys one by one; bounded by twice the map's capacity, see `items`."""
        key: bytes | None = None
        for _ in range(2 * self.spec.max_entries + 1):
            key = self.next_key(key)
            if key is None:
                return
            yield key

    def next_key(self, key: bytes | None) -> bytes | None:
        """Return the key that follows `key` (None: the first one), or None at the end. An absent key leads to the first one."""
        following = bytearray(self.spec.key_size)
        result = self._call(abi.BPF_MAP_GET_NEXT_KEY, key, address(following))
        if result == -ENOENT:
            return None
        if result < 0:
            raise self._refusal("walk", result)
        return bytes(following)

    def memory(self) -> mmap | None:
        """Return the map's values as shared memory, or None when it is not an array with BPF_F_MMAPABLE (Linux 5.5).

        Values lie 8-byte aligned one after the other. The memory is closed with the map.
        """
        if self._mapping is None and self.spec.type == "array" and self.spec.flags & abi.BPF_F_MMAPABLE:
            from mmap import PAGESIZE, mmap

            size = ((self.spec.value_size + 7) & ~7) * self.spec.max_entries
            try:
                self._mapping = mmap(self.fd, (size + PAGESIZE - 1) & -PAGESIZE)
            except OSError as error:
                raise refusal(f"map the memory of map {self.name}", error.errno or EINVAL) from None
        return self._mapping

    def close(self) -> None:
        """Drop this handle; the kernel frees the map when no program uses it either. Closing twice is harmless."""
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            try:
                mapping.close()
            except BufferError:  # somebody still holds a view of it: it goes with that
                pass
        super().close()
