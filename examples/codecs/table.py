"""What each codec is made of: one row a codec."""

from __future__ import annotations

from dataclasses import dataclass

# Dead code of the libraries goes; floats are IEEE in every build, so that outputs can be compared.
COMMON_FLAGS = ("-O2", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections",
                "-Wl,--gc-sections")


@dataclass(frozen=True)
class Codec:
    """Paths with a ``*`` are shell patterns; all are relative to the unpacked package."""

    name: str
    package: str  # as in sources.txt
    sources: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # taken out of what the patterns match
    includes: tuple[str, ...] = ()


_OPENJP2 = "lib/openjpeg/src/lib/openjp2"

CODECS = {
    codec.name: codec
    for codec in (
        Codec("zstd", "zstandard", ("zstd/zstd.c",), includes=("zstd",)),
        Codec("brotli", "brotli", ("c/common/*.c", "c/dec/*.c", "c/enc/*.c"),
              includes=("c/include",)),
        Codec("lz4", "lz4",
              ("lz4libs/lz4.c", "lz4libs/lz4hc.c", "lz4libs/lz4frame.c", "lz4libs/xxhash.c"),
              includes=("lz4libs",)),
        Codec("flac", "miniaudio", includes=("miniaudio",)),
        Codec("zopfli", "zopfli", ("zopfli/src/zopfli/*.c",),
              includes=("zopfli/src/zopfli",)),
        Codec("openjpeg", "pylibjpeg-openjpeg", (f"{_OPENJP2}/*.c",),
              # Programs of their own, tests, and the indexes of the interactive protocol.
              without=(f"{_OPENJP2}/bench_*.c", f"{_OPENJP2}/test_*.c",
                       f"{_OPENJP2}/t1_generate_luts.c", f"{_OPENJP2}/t1_ht_generate_luts.c",
                       f"{_OPENJP2}/*ix_manager.c", f"{_OPENJP2}/*idx_manager.c"),
              includes=(_OPENJP2,)),
    )
}
