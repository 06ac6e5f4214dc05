"""docs/opcodes.md, made from the decoder's table: ``python -m tests.insn.opcodes > docs/opcodes.md``."""

from __future__ import annotations

from .probe import REFUSALS, Row, table

MAPS = ("", "0f ", "0f 38 ", "0f 3a ", "VEX 0f ", "VEX 0f 38 ", "VEX 0f 3a ", "EVEX 0f ", "EVEX 0f 38 ",
        "EVEX 0f 3a ", "EVEX map 4 ", "EVEX map 5 ", "EVEX map 6 ")
W = {1: "W0", 2: "W1", 3: "", 4: "W by precision"}
LENGTHS = {1: "128", 2: "256", 4: "512"}
PREFIXES = ((2, "66"), (4, "f3"), (8, "f2"))
ACTIONS = {
    "copy": "copied, operands mapped", "vector": "copied, operands mapped", "copy_as": "copied under another opcode",
    "short_inc": "re-encoded: 64-bit mode took the opcode", "helper": "done in C on the saved state",
    "nop": "dropped: a hint", "string": "bracketed by host addresses", "bit_string": "address computed apart",
    "fnstenv": "copied, host pointers wiped", "int": "the two vectors of the ABI are calls, others trap",
    "int3": "traps", "refuse": "refused",
}
HEADER = """# Opcodes

Every row of the decoder's table (`csrc/core/opcodes.def`); this file is generated from it. What no row claims is
refused as an illegal instruction: among it XOP, FMA4, APX, AMX, and reserved encodings of the rest. Where
the host has no AVX or AVX-512 (`cpuid` says so), their rows are illegal instructions too. The form column has W and the
vector lengths of VEX and EVEX rows; 128 is also what scalar ones have.

| opcode | prefix | /ext | operand | form | instruction | what becomes of it |
|---|---|---|---|---|---|---|
"""


def _opcode(row: Row) -> str:
    last = "" if row.last == row.first else f"–{row.last:02x}"
    return f"{MAPS[row.map]}{row.first:02x}{last}"


def _prefixes(row: Row) -> str:
    return " ".join(name for bit, name in PREFIXES if row.prefixes & bit)


def _extension(row: Row) -> str:
    return "" if row.ext in (0, 0xFF) else " ".join(str(n) for n in range(8) if row.ext >> n & 1)


def _operand(row: Row) -> str:
    return "" if row.ext == 0 else ("", "register", "memory", "any")[row.rm]


def _form(row: Row) -> str:
    if row.map < 4:
        return ""
    lengths = "/".join(name for bit, name in LENGTHS.items() if row.l & bit)
    return f"{W[row.w]} {lengths}".strip()


def _action(row: Row) -> str:
    action = ACTIONS.get(row.rule, "rewritten")
    return f"refused: {REFUSALS[row.arg]}" if row.rule == "refuse" else action


def page() -> str:
    lines = (
        f"| `{_opcode(r)}` | {_prefixes(r)} | {_extension(r)} | {_operand(r)} | {_form(r)} | {r.name} | {_action(r)} |"
        for r in table()
    )
    return HEADER + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
