"""What the compute tables run: one program a library, its tasks, and what each task is given."""

from __future__ import annotations

from dataclasses import dataclass

# The libraries whose sources the examples compile too are described there once.
_OPENJP2 = "lib/openjpeg/src/lib/openjp2"


@dataclass(frozen=True)
class Task:
    """One row: ``name`` in the program's C, the file it reads, its number, and a small number for tests."""

    name: str
    subject: str
    input: str  # of inputs.INPUTS
    size: int
    table: str = "codecs"
    tiny: int | None = None  # the number for tests, where the usual one takes long


@dataclass(frozen=True)
class Program:
    """``c/NAME.c`` with upstream's sources; paths with a ``*`` are patterns inside the unpacked package."""

    name: str
    tasks: tuple[Task, ...]
    package: str = ""  # of sources.txt here or of examples/codecs/sources.txt; none: all the C is ours
    part: str = ""  # the one directory of the package that is unpacked
    sources: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    wasm_flags: tuple[str, ...] = ()


def _kernel(name: str, subject: str, size: int, tiny: int) -> Task:
    return Task(name, subject, "nothing", size, "kernels", tiny)


def _hash(name: str, subject: str) -> Task:
    return Task(name, subject, "text", 0, "hashes")


KERNELS = Program("kernels", (
    _kernel("fib", "recursive fib", 34, 12),
    _kernel("indirect", "indirect calls", 8_000_000, 1000),
    _kernel("quicksort", "quicksort with callback", 100_000, 1000),
    _kernel("bytecode", "bytecode interpreter", 1_000_000, 1000),
    _kernel("chase", "pointer chasing", 6_000_000, 1000),
    _kernel("stream", "streaming loads", 80_000, 2),
    _kernel("wide", "64-bit arithmetic", 6_000_000, 1000),
    _kernel("matrix", "matrix of doubles", 80, 1),
    _kernel("strings", "string functions", 3_000, 10),
    _kernel("memory", "memory functions", 200_000, 100),
))

PROGRAMS = (
    KERNELS,
    Program("lua", (Task("script", "Lua script", "script", 100, "interpreter", 1),), "lupa", "third-party/lua54", ("l*.c",),
            ("lua.c", "linit.c", "liolib.c", "loslib.c", "loadlib.c", "ldblib.c", "ltests.c"), (".",),
            # Nothing depends on addresses or the time; no task raises an error, and
            # WebAssembly has no setjmp without its exceptions.
            ("-Dluai_makeseed(L)=1u", "-Dl_randomizePivot()=0u", "-Dluai_jmpbuf=int", "-DLUAI_THROW(L,c)=abort()",
             "-DLUAI_TRY(L,c,a)={a}"),
            ("-D__wasm_exception_handling__", "-D_WASI_EMULATED_SIGNAL", "-lwasi-emulated-signal")),
    Program("zstd", (
        Task("compress", "zstd compress", "text", 3), Task("decompress", "zstd decompress", "long text", 3),
    ), "zstandard", "zstd", ("zstd.c",), includes=(".",)),
    Program("zlib", (
        Task("compress", "zlib compress", "text", 6), Task("decompress", "zlib decompress", "long text", 6),
        Task("crc32", "crc32 (zlib)", "text", 40, "hashes", 1), Task("adler32", "adler32 (zlib)", "text", 40, "hashes", 1),
    ), "dlib", "dlib/external/zlib", ("*.c",), ("gz*.c",), (".",)),
    Program("bzip2", (
        Task("compress", "bzip2 compress", "some text", 9), Task("decompress", "bzip2 decompress", "text", 9),
    ), "hdf5plugin", "lib/bzip2", tuple(f"{name}.c" for name in (
        "blocksort", "bzlib", "compress", "crctable", "decompress", "huffman", "randtable")),
        includes=(".",), flags=("-DBZ_NO_STDIO",)),
    Program("brotli", (
        Task("compress", "brotli compress", "text", 5), Task("decompress", "brotli decompress", "long text", 5),
    ), "brotli", "c", ("common/*.c", "dec/*.c", "enc/*.c"), includes=("include",)),
    Program("lz4", (
        Task("compress", "lz4 compress", "text", 4), Task("compress_hc", "lz4 compress, HC", "text", 6),
        Task("decompress", "lz4 decompress", "text", 12),
        Task("xxh32", "xxHash32", "text", 60, "hashes", 1), Task("xxh64", "xxHash64", "text", 40, "hashes", 1),
    ), "lz4", "lz4libs", ("lz4.c", "lz4hc.c", "xxhash.c"), includes=(".",)),
    Program("zopfli", (Task("compress", "zopfli compress", "little text", 1),), "zopfli", "zopfli/src/zopfli",
            ("*.c",), includes=(".",)),
    Program("flac", (
        Task("encode", "FLAC encode", "sound", 5), Task("decode", "FLAC decode", "sound", 5),
    ), "plibflac", "flac", ("src/libFLAC/*.c",),
        ("src/libFLAC/ogg_*.c", "src/libFLAC/*_intrin_*.c", "src/libFLAC/metadata_iterators.c"),
        ("include", "src/libFLAC/include"),
        ("-DHAVE_STDINT_H", "-DHAVE_INTTYPES_H", "-DHAVE_LROUND", "-DHAVE_FSEEKO", "-DFLAC__NO_DLL", "-DFLAC__HAS_OGG=0",
         "-DFLAC__NO_ASM", "-DENABLE_64_BIT_WORDS=0", "-DCPU_IS_BIG_ENDIAN=0", "-DWORDS_BIGENDIAN=0", '-DPACKAGE_VERSION="x"')),
    Program("vorbis", (Task("decode", "Vorbis decode", "vorbis", 0),), "miniaudio", "miniaudio", includes=(".",)),
    Program("jpeg", (
        Task("encode", "JPEG encode", "picture", 85), Task("decode", "JPEG decode", "picture", 85),
    ), "dlib", "dlib/external/libjpeg", ("j*.c",), ("jpegtran.c", "jmemansi.c", "jmemname.c"), (".",)),
    Program("openjpeg", (
        Task("encode", "JPEG 2000 encode", "small picture", 0), Task("decode", "JPEG 2000 decode", "small picture", 0),
    ), "pylibjpeg-openjpeg", _OPENJP2, ("*.c",),
        ("bench_*.c", "test_*.c", "t1_generate_luts.c", "t1_ht_generate_luts.c", "*ix_manager.c", "*idx_manager.c"), (".",),
        wasm_flags=("-D_WASI_EMULATED_PROCESS_CLOCKS", "-lwasi-emulated-process-clocks")),
    Program("hashes", (
        _hash("MD5", "MD5"), _hash("SHA1", "SHA-1"), _hash("SHA256", "SHA-256"), _hash("SHA512", "SHA-512"),
        _hash("SHA3", "SHA3-256"), _hash("blake2s", "BLAKE2s"), _hash("blake2b", "BLAKE2b"),
    ), "pycryptodome", "src", tuple(f"{name}.c" for name in ("MD5", "SHA1", "SHA256", "SHA512", "blake2s", "blake2b", "keccak")),
        includes=(".",), flags=("-DHAVE_STDINT_H", "-DHAVE_POSIX_MEMALIGN", "-DNO_CPYTHON_MODULE")),
)
