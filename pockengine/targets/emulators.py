"""Commands that several targets' programs run under: QEMU's boards, with text by semihosting."""

from __future__ import annotations


def _board(name: str) -> tuple[str, ...]:
    console = (
        "-display none -chardev stdio,id=c -semihosting-config enable=on,target=native,chardev=c"
    )
    return ("qemu-system-arm", "-M", name, *console.split(), "-kernel")


MPS2_AN500 = _board("mps2-an500")  # a Cortex-M7
MPS2_AN386 = _board("mps2-an386")  # a Cortex-M4F
