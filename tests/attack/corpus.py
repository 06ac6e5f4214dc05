"""The hostile corpus: every export of guests.c with how it must end.

A row is (export, arguments, threat line of the catalogue, expectation).  The expectation is a
GuestFault kind, an exception type, or, for attacks that must come to nothing, a check of the result.
"""

from __future__ import annotations

import vxplug

ILLEGAL, PRIVILEGED, MEMORY = "illegal-instruction", "privileged-instruction", "memory"
EXECUTE, PROTECTION, STACK = "execute", "protection", "stack-overflow"
TOP = 0xFFFFFFFF
# i386 Linux numbers a plugin would try first.
DENIED = {
    "fork": 2, "read": 3, "open": 5, "execve": 11, "ptrace": 26, "socketcall": 102, "clone": 120,
    "modify_ldt": 123, "personality": 136, "openat": 295, "getrandom": 355, "process_vm_writev": 348,
    "seccomp": 354, "memfd_create": 356, "no such call": 0x7FFFFFFF,
}


def _refused() -> list[tuple]:
    names = (
        "far_call far_jump far_return iret push_cs load_ds les hlt cli in_port outs_port sysenter "
        "syscall_insn rdmsr rdtsc rdtscp sgdt xsetbv wrpkru sldt lar mov_cr clflush xsave rdfsbase "
        "wrgsbase int1 mov_gs"
    )
    return [(name, (), 16, PRIVILEGED) for name in names.split()]


CASES: list[tuple] = [
    # Decoding
    ("too_long", (), 2, ILLEGAL),
    ("both_reps", (), 2, ILLEGAL),
    ("lock_register", (), 3, ILLEGAL),
    ("lock_unlockable", (), 3, ILLEGAL),
    ("vex_lds", (), 5, PRIVILEGED),
    ("vex_map", (), 5, ILLEGAL),
    ("vex_amx", (), 5, ILLEGAL),
    ("vex_prefixed", (), 2, ILLEGAL),
    ("vex_wide", (), 5, ILLEGAL),
    ("evex_map", (), 5, ILLEGAL),
    ("evex_reserved", (), 5, ILLEGAL),
    ("xop", (), 5, ILLEGAL),
    ("ret16", (), 7, ILLEGAL),
    ("jmp16", (), 7, ILLEGAL),
    ("ud2", (), 17, ILLEGAL),
    ("ud0", (), 17, ILLEGAL),
    ("rex_bytes", (), 5, lambda result: result == 0),
    ("middle_of_instruction", (), 6, lambda result: result == 0x2A),
    ("rdrand", (), 22, ILLEGAL),
    # Addresses
    ("read_at", (0,), 9, MEMORY),
    ("read_at", (TOP,), 9, MEMORY),
    ("read_at", (0xFFFE0000,), 9, MEMORY),
    ("write_at", (0xFFFFF000,), 9, MEMORY),
    ("read_wide", (TOP - 3,), 10, MEMORY),
    ("read_indexed", (TOP, TOP), 9, MEMORY),
    *[(f"read_{name}", (register,), 9, MEMORY) for name in ("near_up", "far_up", "farthest_up") for register in (0xFFFFFF00, TOP)],
    *[(f"read_{name}", (register,), 9, MEMORY) for name in ("near_down", "far_down", "farthest_down") for register in (0, 0xFFFF)],
    ("bit_string", (0x80000000, 0x80000000), 11, MEMORY),
    ("bit_string", (0x10000, 0x7FFFFFFF), 11, MEMORY),
    ("copy_down", (0x20, 0x10, TOP), 12, MEMORY),
    ("fill_up", (0xFFFDF000, TOP), 12, MEMORY),
    ("scan", (0xFFFDFFFF, TOP), 12, MEMORY),
    ("strings_in_turn", (), 12, lambda result: result == 10),
    ("masked_move", (TOP - 7,), 13, MEMORY),
    ("translate_byte", (TOP,), 13, MEMORY),
    ("exchange8", (TOP - 3,), 13, MEMORY),
    ("fs_access", (), 16, PROTECTION),
    ("esp_null", (), 14, MEMORY),
    ("esp_top", (), 14, MEMORY),
    ("pusha_null", (), 14, MEMORY),
    ("enter_wild", (), 14, MEMORY),
    ("leave_wild", (), 14, MEMORY),
    ("move_into_guard", (0xFFFDFF00, 4096), 12, MEMORY),
    ("move_into_guard", (0xFFFFFF00, 4096), 12, MEMORY),
    ("compare_over_the_end", (0xFFFDFFF0, TOP), 12, MEMORY),
    ("store_down", (0x10010, TOP), 12, MEMORY),
    ("store_down", (4, TOP), 12, MEMORY),
    ("pop_esp", (), 14, MEMORY),
    ("push_word_null", (), 14, MEMORY),
    ("call_at_null", (), 14, MEMORY),
    ("enter_31_null", (), 14, MEMORY),
    ("leave_top", (), 14, MEMORY),
    ("esp_games", (), 14, lambda result: result == 0x70000),
    ("stack_untouched_by_signals", (60_000_000,), 30, lambda result: result == 0),
    # Privilege
    *_refused(),
    ("int3", (), 17, "breakpoint"),
    ("int_any", (), 17, "software-interrupt"),
    ("into_set", (), 17, "overflow"),
    ("hostcall_unknown", (99,), 17, "software-interrupt"),
    # State
    ("align_check", (), 18, lambda result: True),
    ("trap_flag", (), 18, lambda result: True),
    ("flags_after_popf", (), 18, lambda result: result & 0x47300 == 0x200),
    ("direction_left_set", (), 19, lambda result: True),
    ("id_left_set", (), 19, lambda result: True),
    ("id_seen", (), 21, lambda result: result & 0x200000 == 0),
    ("id_left_at_fault", (), 19, "illegal-instruction"),
    ("id_seen", (), 21, lambda result: result & 0x200000 == 0),
    ("id_left_at_timeout", (), 19, vxplug.GuestTimeout),
    ("id_seen", (), 21, lambda result: result & 0x200000 == 0),
    ("x87_left_full", (), 19, lambda result: True),
    ("mmx_left_on", (), 19, lambda result: True),
    ("control_words", (), 19, lambda result: True),
    ("unmasked_sse", (), 19, "floating-point"),
    ("unmasked_x87", (), 19, "floating-point"),
    ("environment", (), 20, lambda r: not any(r[8:24]) and not any(r[512 + 12 : 512 + 28])),
    ("stale_vectors", (), 21, lambda result: result == bytes(128)),
    ("pending_x87", (), 19, lambda result: True),
    ("processor_name", (), 22, lambda r: r == 0x6C707856 ^ 0x78566775 ^ 0x67756C70),
    ("prefetch_wild", (TOP,), 23, lambda result: True),
    ("prefetch_wild", (0xFFFE0000,), 23, lambda result: True),
    *((name, (), 23, PRIVILEGED) for name in "monitor mwait vmcall smsw verr str rdpmc xrstor invlpg".split()),
    ("xbegin", (), 23, ILLEGAL),
    ("rdpid", (), 22, ILLEGAL),
    # Code
    ("jump_to", (0,), 8, EXECUTE),
    ("jump_to", (0xFFFFFFF0,), 8, EXECUTE),
    ("jump_to", (0x80000000,), 8, EXECUTE),
    ("jump_to_data", (), 8, EXECUTE),
    ("write_code", (), 24, MEMORY),
    ("forged_return", (), 27, EXECUTE),
    ("calls_without_return", (2_000_000,), 27, lambda result: result == 2_000_000),
    ("returns_without_call", (2_000_000,), 27, lambda result: result == 2_000_000),
    *((name, (), 27, lambda result: result == 21) for name in (
        "elsewhere_all_flags", "elsewhere_carry", "elsewhere_no_flags")),
    ("longjmp_storm", (300_000,), 27, lambda result: result == 300_000),
    ("recursion", (100_000,), 49, lambda result: result == 100_001),
    ("recursion", (1 << 31,), 49, STACK),
    # Time and memory
    ("endless", (), 47, vxplug.GuestTimeout),
    ("endless_self", (), 47, vxplug.GuestTimeout),
    ("endless_indirect", (), 47, vxplug.GuestTimeout),
    ("endless_string", (), 47, vxplug.GuestTimeout),
    ("endless_output", (), 48, vxplug.GuestTimeout),
    ("memory_bomb", (), 48, lambda result: result < 64),
    # System calls
    *(("linux_call", (number, 0, 0, 0, 0, 0), 43, vxplug.PolicyError) for number in DENIED.values()),
    ("linux_call", (192, 0xFFFFF000, 4096, 3, 0x32, 0), 45, lambda r: r < 0),
    ("linux_call", (192, 0, 0xFFFFF000, 3, 0x22, 0), 45, lambda r: r < 0),
    ("linux_call", (192, 0, 4096, 7, 0x22, 0), 45, lambda r: r % 4096 == 0 and r != 0),
    ("linux_call", (91, 0xFFFFF000, 0x2000, 0, 0, 0), 45, lambda r: r < 0),
    ("linux_call", (91, 0x10000, 0xFFFF0000, 0, 0, 0), 45, lambda r: r < 0),
    ("linux_call", (125, 0x10000, 0x1000, 7, 0, 0), 45, lambda r: r == 0),
    ("linux_call", (125, 0x10000, 0xFFFF0000, 7, 0, 0), 45, lambda r: r < 0),
    ("linux_call", (4, 1, 0xFFFFFF00, 0x7FFFFFFF, 0, 0), 43, lambda r: r == -14),
    ("linux_call", (146, 1, TOP, 3, 0, 0), 43, lambda r: r == -14),
    ("linux_call", (45, 0xFFFFFFFF, 0, 0, 0, 0), 45, lambda r: True),
    ("vectors", (0xFFFFFFF0, 0x20, 4), 36, lambda r: r == -14),
    ("vectors", (0x10000, 0x7FFFFFFF, 4), 36, lambda r: 0 < r < 128 << 20),
    ("vectors", (0x10000, 0, 0xFFFFFFFF), 36, lambda r: r == -22),
    ("quit", (7,), 47, vxplug.GuestExit),
    ("give_up", (), 47, "abort"),
    # The boundary
    ("forged_bytes", (0, 16, 0), 36, MEMORY),
    ("forged_bytes", (TOP, TOP, 0), 36, MEMORY),
    ("forged_bytes", (0xFFFDF000, 0x80000000, 1), 36, MEMORY),
    ("forged_bytes", (0, 0, 0), 36, lambda r: r == b""),
    ("forged_text", (0x80000000,), 37, MEMORY),
    ("bad_utf8", (), 37, UnicodeDecodeError),
    ("no_text", (), 37, lambda r: r is None),
    ("forged_raise", (0, 4, 0, 4), 35, lambda r: r == -22),
    ("forged_raise", (0x80000000, TOP, 0, TOP), 36, lambda r: r == -22),
    ("long_name_raised", (), 36, lambda r: r == -22),
    ("raise_named", ("ValueError",), 42, ValueError),
    ("raise_named", ("SystemExit",), 42, RuntimeError),
    ("raise_named", ("__import__",), 42, RuntimeError),
]
