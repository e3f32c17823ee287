"""A 64-bit Arm kernel in an emulated processor that counts the instructions it executes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import unicorn  # type: ignore[import-not-found]
from torch.fx import Graph
from unicorn import arm64_const  # type: ignore[import-not-found]

from pockengine.ir.graph import outputs_of, placeholders, type_of
from pockengine.lower.blob import LOAD_OFFSET
from pockengine.lower.elementwise import STORED

PAGE = 1 << 12
CODE, STACK, DATA = 1 << 20, 1 << 26, 1 << 28
STACK_BYTES = 1 << 23
RETURN = CODE - PAGE
REGISTERS = 8  # for arguments; the others lie on the stack (AAPCS64, 6.8.2)
FLOATING_POINT_ON = 3 << 20  # CPACR_EL1.FPEN


class Emulated:
    """The machine code of a kernel with operands of its own; ``begin .. end`` at a time."""

    def __init__(self, blob: bytes, graph: Graph) -> None:
        """Operands of normal random numbers, or zeros where they are not float32."""
        self._machine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self._blocks: Counter[tuple[int, int]] = Counter()
        self._map(RETURN, PAGE)
        self._map(CODE, LOAD_OFFSET + len(blob))
        self._map(STACK, STACK_BYTES)
        self._machine.mem_write(CODE + LOAD_OFFSET, blob)
        self._machine.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, FLOATING_POINT_ON)
        self._machine.hook_add(unicorn.UC_HOOK_BLOCK, self._block)
        self._operands, place = [], DATA
        random = np.random.default_rng(0)
        for node in [*placeholders(graph), *outputs_of(graph).outputs]:
            size, dtype = max(1, type_of(node).size), np.dtype(STORED[type_of(node).dtype])
            values = np.zeros(size, dtype)
            if dtype == np.float32:
                values = random.standard_normal(size, np.float32)
            self._map(place, values.nbytes)
            self._machine.mem_write(place, values.tobytes())
            self._operands.append(place)
            place += -(-values.nbytes // PAGE) * PAGE + PAGE

    def run(self, begin: int, end: int) -> None:
        """Call the kernel; it must return 0."""
        arguments = [*self._operands, begin, end]
        stack = STACK + STACK_BYTES - PAGE
        for number, value in enumerate(arguments):
            if number < REGISTERS:
                self._machine.reg_write(arm64_const.UC_ARM64_REG_X0 + number, value)
            else:
                place = stack + 8 * (number - REGISTERS)
                self._machine.mem_write(place, value.to_bytes(8, "little"))
        self._machine.reg_write(arm64_const.UC_ARM64_REG_SP, stack)
        self._machine.reg_write(arm64_const.UC_ARM64_REG_X30, RETURN)
        self._machine.emu_start(CODE + LOAD_OFFSET, RETURN)
        assert self._machine.reg_read(arm64_const.UC_ARM64_REG_W0) == 0

    def counts(self) -> Counter[int]:
        """How often each instruction was executed, by its place in the code."""
        found: Counter[int] = Counter()
        for (address, size), times in self._blocks.items():
            for place in range(address, address + size, 4):
                found[place - CODE - LOAD_OFFSET] += times
        return found

    def _block(self, _: Any, address: int, size: int, __: Any) -> None:
        self._blocks[address, size] += 1

    def _map(self, address: int, size: int) -> None:
        self._machine.mem_map(address, -(-size // PAGE) * PAGE)
