"""From an errno to the error: missing capabilities, namespaces, lockdown, limits."""

from __future__ import annotations

import errno

import pytest

from sonde.errors import AttachError, FeatureError, KernelError, PrivilegeError
from sonde.kernel import refusal


class Machine:
    """Replaces the files that `refusal` looks into."""

    def __init__(self, **files: str) -> None:
        self.files = {
            "/proc/self/status": "Name:\tx\nCapEff:\t0000000000000000\n",
            "/proc/self/uid_map": "         0          0 4294967295\n",
            "/proc/sys/kernel/cap_last_cap": "40\n",
        }
        self.files.update({path.replace("__", "/"): text for path, text in files.items()})

    def read(self, path: str) -> str:
        return self.files.get(path, "")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    fake = Machine()
    monkeypatch.setattr(refusal, "_read", fake.read)
    return fake


def hold(machine: Machine, *names: str) -> None:
    mask = sum(1 << refusal.CAP_NUMBERS[n] for n in names)
    machine.files["/proc/self/status"] = f"CapEff:\t{mask:016x}\n"


def test_names_the_first_missing_capability(machine: Machine) -> None:
    assert refusal.missing_capability("CAP_BPF", "CAP_PERFMON") == "CAP_BPF"
    hold(machine, "CAP_BPF")
    assert refusal.missing_capability("CAP_BPF", "CAP_PERFMON") == "CAP_PERFMON"
    hold(machine, "CAP_BPF", "CAP_PERFMON")
    assert refusal.missing_capability("CAP_BPF", "CAP_PERFMON") == ""
    hold(machine, "CAP_SYS_ADMIN")
    assert refusal.missing_capability("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN") == ""


def test_old_kernels_have_only_sys_admin(machine: Machine) -> None:
    machine.files["/proc/sys/kernel/cap_last_cap"] = "37\n"
    assert refusal.missing_capability("CAP_BPF") == "CAP_SYS_ADMIN"


def test_eperm_names_the_capability(machine: Machine) -> None:
    error = refusal.refusal("create the hash map m", errno.EPERM)
    assert isinstance(error, PrivilegeError)
    assert error.capability == "CAP_BPF"
    assert "create the hash map m needs CAP_BPF" in str(error)
    assert "CAP_BPF and CAP_PERFMON" in error.hint


def test_eperm_in_a_user_namespace(machine: Machine) -> None:
    hold(machine, "CAP_SYS_ADMIN")
    machine.files["/proc/self/uid_map"] = "0 1000 1\n"
    error = refusal.refusal("load program p", errno.EPERM)
    assert isinstance(error, PrivilegeError)
    assert "user namespace" in str(error)


def test_eperm_with_all_capabilities_tells_of_lockdown(machine: Machine) -> None:
    hold(machine, "CAP_SYS_ADMIN")
    machine.files["/sys/kernel/security/lockdown"] = "none integrity [confidentiality]\n"
    error = refusal.refusal("load program p", errno.EPERM)
    assert isinstance(error, PrivilegeError)
    assert "'confidentiality'" in str(error)


def test_other_refusals(machine: Machine) -> None:
    assert isinstance(refusal.refusal("x", errno.ENOSYS), FeatureError)
    full = refusal.refusal("x", errno.EMFILE)
    assert isinstance(full, KernelError)
    assert "ulimit" in full.hint
    unsupported = refusal.attach_refusal("kprobe:f", 524)
    assert isinstance(unsupported, AttachError)
    assert unsupported.errno == errno.EOPNOTSUPP
    assert "kprobe:f" in str(unsupported)


def test_reasons() -> None:
    assert refusal.reason(errno.EINVAL) == "EINVAL (Invalid argument)"
    assert refusal.reason(524) == "ENOTSUPP (Operation not supported)"
