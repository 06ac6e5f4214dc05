"""Runs the corpus in this process and prints one JSON line a case: a crash of the process is then
seen as the line that never came.  Arguments: the plugin, and the first case to run."""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
import zlib
from typing import Any

import vxplug

from .corpus import CASES

LIMITS = {"memory": 64 << 20, "stack": 8 << 20, "init_timeout": 5.0, "output": None}
QUICK, PATIENT = 0.3, 60.0  # seconds; patient, so that a slow machine does not turn another end into a timeout
MESSAGE = b"the process still decodes" * 40


# MXCSR flags that Python itself raises: invalid, overflow, underflow, inexact.  Not: denormal, division by zero.
OWN_FLAGS = 0x39


class HostState:
    """What a guest could leave behind in the processor: direction, alignment and ID flags, x87 control word,
    MXCSR."""

    READ_FLAGS = b"\x9c\x58\xc3"  # pushfq; pop rax; ret

    def __init__(self) -> None:
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code.write(self.READ_FLAGS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._flags = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
        self._environment = (ctypes.c_uint32 * 8)()  # fenv_t: the x87 environment, then MXCSR
        self._store = ctypes.CDLL("libm.so.6").fegetenv
        self._before = self._read()

    def _read(self) -> tuple[int, int, int]:
        self._store(self._environment)
        return self._flags() & 0x240500, self._environment[0] & 0xFFFF, self._environment[7] & ~OWN_FLAGS

    def changed(self) -> str:
        now = self._read()
        return "" if now == self._before else f"; host state {self._before} became {now}"


def outcome(box: vxplug.Sandbox, export: str, arguments: tuple, expected: Any) -> str:
    """Empty when the attack ended as it must, else what happened instead."""
    try:
        result = box[export](*arguments)
    except vxplug.GuestFault as fault:
        return "" if fault.kind == expected else f"GuestFault {fault.kind}: {fault}"
    except Exception as error:
        wanted = isinstance(expected, type) and type(error) is expected
        return "" if wanted else f"{type(error).__name__}: {error}"
    return "" if callable(expected) and not isinstance(expected, type) and expected(result) else f"returned {result!r}"


def main() -> None:
    plugin = vxplug.open(sys.argv[1])
    impatient = plugin.sandbox(stdout=lambda data: None, timeout=QUICK, **LIMITS)
    patient = plugin.sandbox(stdout=lambda data: None, timeout=PATIENT, **LIMITS)
    healthy = plugin.sandbox(timeout=PATIENT, **LIMITS)
    host = HostState()
    for number in range(int(sys.argv[2]), len(CASES)):
        export, arguments, _, expected = CASES[number]
        print(json.dumps({"start": number}), flush=True)
        attacked = impatient if expected is vxplug.GuestTimeout else patient
        problem = outcome(attacked, export, arguments, expected) + host.changed()
        for box in (healthy, attacked):
            if box.checksum(MESSAGE) != zlib.crc32(MESSAGE):
                problem += "; a sandbox decodes wrongly afterwards"
        if 0.1 + 0.2 != 0.30000000000000004 or 1e308 * 10 != float("inf"):
            problem += "; host arithmetic changed"
        print(json.dumps({"done": number, "problem": problem}), flush=True)


if __name__ == "__main__":
    main()
