"""Loads and runs mutants [first, first + count) of a plugin; the seed is the mutant's number.

Exit status 1 and a traceback at the first mutant that ends in another way than it may.
"""

from __future__ import annotations

import random
import sys

import vxplug

# What a guest may ask for by name: these are the plugin's own, not ours.
GUEST_ERRORS = (ValueError, RuntimeError)
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFF000, 0xFFFFFFFF)


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 4, 32))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def header_word(data: bytearray, rng: random.Random) -> None:
    """ELF and program headers."""
    at = rng.randrange(0, min(52 + 32 * 8, len(data) - 4))
    data[at : at + 4] = rng.choice(INTERESTING).to_bytes(4, "little")


def section_word(data: bytearray, rng: random.Random) -> None:
    start = int.from_bytes(data[32:36], "little")
    at = rng.randrange(start, len(data) - 4) if start < len(data) - 4 else 40
    data[at : at + 4] = rng.choice(INTERESTING).to_bytes(4, "little")


def note_text(data: bytearray, rng: random.Random) -> None:
    start = data.find(b'{"abi"')
    at = start + rng.randrange(0, 600)
    if 0 <= start and at < len(data):
        data[at] = rng.choice(b'"{}[],:0129-\\\xff\x00')


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def code(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) // 2)
    data[at : at + 8] = rng.randbytes(8)


def mutant(original: bytes, number: int) -> bytes:
    rng = random.Random(number)
    data = bytearray(original)
    for _ in range(rng.choice((1, 1, 3))):
        if len(data) > 400:
            rng.choice((flip, header_word, section_word, note_text, cut, code, code))(data, rng)
    return bytes(data)


ARGUMENTS = {"add": (1, 2), "twice": (b"abc",), "name": ()}


def run(plugin: vxplug.Plugin) -> None:
    with plugin.sandbox(memory=16 << 20, stack=1 << 20, timeout=0.02, init_timeout=0.02, stdout=lambda d: None,
                        stderr=lambda d: None) as box:
        for name, arguments in ARGUMENTS.items():
            if name in plugin.exports and len(plugin.exports[name].params) == len(arguments):
                try:
                    box[name](*arguments)
                except (vxplug.Error, TypeError, *GUEST_ERRORS):
                    continue


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        original = file.read()
    first, count = int(sys.argv[2]), int(sys.argv[3])
    counts = {"refused": 0, "ran": 0, "ended": 0}
    for number in range(first, first + count):
        if number % 16 == 0:
            print("mutant", number, flush=True)
        try:
            plugin = vxplug.open(mutant(original, number))
        except vxplug.PluginFormatError:
            counts["refused"] += 1
            continue
        try:
            run(plugin)
            counts["ran"] += 1
        except vxplug.Error:
            counts["ended"] += 1
    print("done", *(f"{key}={value}" for key, value in counts.items()), flush=True)


if __name__ == "__main__":
    main()
