"""What all tests share: options, the machine's abilities as skips, and the guests."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Commands that tests start find the same sonde, installed or not.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).resolve().parents[1] / "src"), os.environ.get("PYTHONPATH")])
)

# Each test has its limit from pytest-timeout. Hypothesis's own, 0.2 s an example, is one that a busy machine breaks. The examples are the
# same in every run: what a new one finds is work for its finder, not for whoever runs the tests next. SONDE_FUZZ=1 looks for new ones.
hypothesis.settings.register_profile(
    "sonde",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
    derandomize=not os.environ.get("SONDE_FUZZ"),
)
hypothesis.settings.load_profile("sonde")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vm-kernels",
        default=os.environ.get("SONDE_VM_KERNELS", "6.1,5.10,6.12,7.2"),
        help="kernel series for the tests in the VM, comma separated; 'none' skips them, 'all' runs the full matrix",
    )
    parser.addoption(
        "--vm-share",
        choices=("first", "rest", "all"),
        default="all",
        help="run the VM tests of the first series only, or of the others: so that two runs can share the work",
    )


def vm_series(config: pytest.Config) -> list[str]:
    """Return the kernel series that the VM tests run on."""
    from vm.kernels import FULL_SERIES

    text = config.getoption("--vm-kernels")
    if text in ("none", ""):
        return []
    series = list(FULL_SERIES) if text == "all" else text.split(",")
    return {"first": series[:1], "rest": series[1:], "all": series}[config.getoption("--vm-share")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "guest" in metafunc.fixturenames:
        metafunc.parametrize("guest", vm_series(metafunc.config) or ["none"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def guest(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """A booted guest of the kernel series in `request.param`; a fresh one is booted after a panic."""
    from vm.guest import Guest, GuestDied, missing_tool
    from vm.kernels import KernelUnavailable, get_kernel

    if request.param == "none":
        pytest.skip("tests in the VM are switched off (--vm-kernels=none)")
    lacking = missing_tool()
    if lacking:
        pytest.skip(f"the test VM needs {lacking}")
    try:
        kernel = get_kernel(request.param)
        vm = Guest(kernel)
    except KernelUnavailable as error:
        pytest.skip(f"kernel {request.param}: {error}")
    except GuestDied as error:
        pytest.fail(str(error))
    with vm:
        yield vm


@pytest.fixture(scope="session")
def bpf_privileges() -> None:
    """Skip unless this process may load and attach BPF programs on the running kernel."""
    capabilities = 0
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("CapEff:"):
                capabilities = int(line.split()[1], 16)
    cap_sys_admin, cap_perfmon, cap_bpf = 21, 38, 39
    have = [bool(capabilities >> c & 1) for c in (cap_sys_admin, cap_perfmon, cap_bpf)]
    if not (have[0] or all(have[1:])):
        pytest.skip("needs CAP_BPF and CAP_PERFMON (or root)")
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        pytest.skip("needs a kernel with BTF")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("kernel"):
            item.fixturenames.insert(0, "bpf_privileges")  # type: ignore[attr-defined]
        if "guest" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(900))


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = [f"running kernel: {os.uname().release}, uid {os.geteuid()}"]
    if not config.option.collectonly:
        lines.append(f"kernels for the VM: {', '.join(vm_series(config)) or 'none'}")
    return lines
