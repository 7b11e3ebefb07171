"""What a tracing program attaches to, by name: what is said where the kernel has not got it."""

from __future__ import annotations

import pytest

from sonde.errors import ProbeError
from sonde.kernel import btf


class Nothing:
    """The BTF of a kernel in which every function was inlined."""

    def get_func_id(self, name: str) -> int:
        return 0

    def get_type_id(self, name: str, kind: str) -> int:
        return 0


@pytest.mark.parametrize(
    ("kind", "said", "look_at"),
    [
        ("trace_fentry", "the BTF of the kernel has no function gone", "'fentry:*'"),
        ("trace_raw_tp", "the BTF of the kernel has no raw tracepoint gone", "'rawtracepoint:*'"),
        ("trace_iter", "the BTF of the kernel has no iterator gone", "'iter:*'"),
        ("lsm_mac", "the BTF of the kernel has no LSM hook gone", "struct security_hook_heads"),
    ],
)
def test_what_is_not_there_is_said_with_how_to_see_what_is(
    monkeypatch: pytest.MonkeyPatch, kind: str, said: str, look_at: str
) -> None:
    monkeypatch.setattr(btf, "kernel_btf", Nothing)
    with pytest.raises(ProbeError, match=said) as caught:
        btf.attach_target(kind, "gone")
    assert look_at in caught.value.hint
