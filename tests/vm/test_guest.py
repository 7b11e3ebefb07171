"""The VM itself: it boots, runs, reports, and survives what its commands do."""

from __future__ import annotations

from vm.guest import Guest


def test_runs_a_command(guest: Guest) -> None:
    result = guest.run(["uname", "-r"])
    assert (result.status, result.out.strip()) == (0, guest.kernel.release)
    assert guest.kernel.release.startswith(guest.kernel.series + ".")


def test_reports_status_and_errors(guest: Guest) -> None:
    result = guest.run(["sh", "-c", "echo no >&2; exit 7"])
    assert (result.status, result.out, result.err) == (7, "", "no\n")
    assert guest.run(["/nowhere/to/be/found"]).status == 127


def test_runs_python_without_a_new_interpreter(guest: Guest) -> None:
    assert guest.python("import os, sys; print(sys.argv[1]); sys.exit(3)", args=["x"]) == type(guest.run(["true"]))(
        3, "x\n", ""
    )


def test_time_limit(guest: Guest) -> None:
    result = guest.run(["sleep", "60"], timeout_s=1)
    assert result.timed_out


def test_guest_has_the_files_that_tracing_needs(guest: Guest) -> None:
    for path in ("/sys/kernel/tracing/available_events", "/sys/kernel/btf/vmlinux", "/sys/fs/bpf", "/proc/kallsyms"):
        assert guest.run(["test", "-e", path]).status == 0, path


def test_btf_file_is_the_guests_own(guest: Guest) -> None:
    import hashlib

    result = guest.run(["sha256sum", "/sys/kernel/btf/vmlinux"])
    assert result.out.split()[0] == hashlib.sha256(guest.kernel.btf.read_bytes()).hexdigest()


def test_long_output_arrives_whole(guest: Guest) -> None:
    """The port takes 32 KiB at a time; what follows must not be cut, nor end up in the next reply."""
    for size in (100_000, 3):
        result = guest.python(f"print('x' * {size}, end='')")
        assert (result.status, len(result.out)) == (0, size)
