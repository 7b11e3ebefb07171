"""The Target of the running machine: every fact is asked for when it is first needed, and kept."""

from __future__ import annotations

import os

from ..errors import FormatError
from ..spec.target import Target
from .cpus import possible_cpus
from .features import FeatureTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..debuginfo.kallsyms import Kallsyms
    from ..debuginfo.tracefs import TracepointFormat
    from ..spec.target import BpfProgram

_KCONFIG_BYTES = 1 << 24  # more than this is no kernel configuration


def live_target(features: FeatureTable | None = None) -> Target:
    """Describe the running machine. `features` replaces the table of features (to leave some out)."""
    from mmap import PAGESIZE

    from .btf import kernel_btf, kernel_id

    facts = _Facts()
    machine = os.uname()
    return Target(
        arch=machine.machine,
        release=machine.release,
        page_bytes=PAGESIZE,
        possible_cpus=possible_cpus(),
        features=features or FeatureTable(),
        btf=kernel_btf,
        tracepoint=facts.tracepoint,
        ksym=facts.ksym,
        kconfig=facts.kconfig,
        bpf_programs=facts.bpf_programs,
        kernel_id=kernel_id(),
        version=source_version(machine.version, _read_signature()),
    )


def source_version(version: str, signature: str) -> str:
    """Return the version of the kernel's source ("6.1.192") where a distribution's release does not tell it, else "".

    Debian says it in the version that uname gives, Ubuntu in a file of its own.
    """
    words = version.split()
    if "Debian" in words[:-1]:
        return words[words.index("Debian") + 1].split("-")[0]
    return signature.split()[-1] if signature.startswith("Ubuntu ") else ""


def _read_signature() -> str:
    try:
        with open("/proc/version_signature") as file:
            return file.read(200)
    except OSError:
        return ""


class _Facts:
    """What was asked of the machine already."""

    def __init__(self) -> None:
        self._root = ""
        self._formats: dict[tuple[str, str], TracepointFormat] = {}
        self._kallsyms: Kallsyms | None = None
        self._kconfig: dict[str, str] | None = None
        self._programs: list[BpfProgram] | None = None

    def tracepoint(self, category: str, event: str) -> TracepointFormat:
        """Return the format of a tracepoint. Raises ProbeError when there is no such event."""
        from ..debuginfo.tracefs import find_root, read_format
        from .btf import kernel_btf

        key = category, event
        if key not in self._formats:
            self._root = self._root or find_root()
            self._formats[key] = read_format(category, event, self._root, btf=kernel_btf)
        return self._formats[key]

    def ksym(self, name: str) -> int:
        """Return the address of a kernel symbol, or 0."""
        if self._kallsyms is None:
            from ..debuginfo.kallsyms import Kallsyms

            self._kallsyms = Kallsyms()
        return self._kallsyms.address(name)

    def kconfig(self, name: str) -> str:
        """Return a value of the kernel's configuration ("y", "m", a number, a string), or ""."""
        if self._kconfig is None:
            self._kconfig = parse_kconfig(_read_kconfig())
        return self._kconfig.get(name, "")

    def bpf_programs(self) -> list[BpfProgram]:
        """Return the BPF programs that were loaded when this was first asked."""
        if self._programs is None:
            from .bpfprograms import loaded_programs

            self._programs = loaded_programs()
        return self._programs


def _read_kconfig() -> bytes:
    """Return the kernel's configuration from the first place that has it; nothing where none does."""
    for path in ("/proc/config.gz", f"/boot/config-{os.uname().release}", f"/lib/modules/{os.uname().release}/config"):
        try:
            with open(path, "rb") as file:
                data = file.read(_KCONFIG_BYTES)
        except OSError:
            continue
        return _unzip(data, path) if path.endswith(".gz") else data
    return b""


def _unzip(data: bytes, path: str) -> bytes:
    import zlib

    try:
        return zlib.decompressobj(wbits=31).decompress(data, _KCONFIG_BYTES)
    except zlib.error as error:
        raise FormatError(f"is not gzip data: {error}", path=path) from None


def parse_kconfig(text: bytes) -> dict[str, str]:
    """Turn the text of a .config file into values by name; strings lose their quotes."""
    values: dict[str, str] = {}
    for line in text.decode(errors="replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.startswith("CONFIG_"):
            values[name] = value.strip().strip('"')
    return values
