/* The verifier's decoder of single instructions: rules V1, V2 and V5 of verify.c.  It shares no table and no
 * code with the decoder and the emitter, and reads bytes in the one order in which they are emitted. */
#include "limits.h"
#include "verify.h"

enum { RSP = 4 };

/* --- what may be emitted as a single instruction ------------------------------------------------ */

/* Mandatory prefixes: none, 66, f3, f2; X both of 66 and f2 or f3. */
enum { N = 1, P = 2, F3 = 4, F2 = 8, X = 16, INT = N | P, ALL = N | P | F3 | F2 };
/* Operand forms, and which ModRM fields are general registers (B: bytes of them). */
enum { R = 1, M = 2, RM = 3, PLAIN = 4, OPREG = 8, OPREGB = 16, LEA = 32 };
enum { G = 1, GB = 2, E = 4, EB = 8, LOCK = 16 };
/* and of VEX and EVEX: vvvv is a general register, the index is a vector, vvvv is a vector or mask.  W, the vector
 * length, masks, broadcasts and rounding choose lanes; but beside a general register W makes it 64 bits wide. */
enum { V = 32, VSIB = 64, VECTOR = 128 };
enum { EXT_ALL = 0xff };
enum { IMM_OPERAND = 0xf,   /* 2 or 4 bytes by operand size */
       IMM_REGISTER = 0xe }; /* one byte, whose high half names a vector register */
/* 0 to 3: one byte, 0f, 0f 38, 0f 3a. */
enum { VEX1 = 4, VEX2, VEX3, EVEX1, EVEX2, EVEX3, EVEX4 /* empty */, EVEX5, EVEX6, MAPS };

typedef struct accept {
    uint8_t map, first, last, prefixes, ext;
    unsigned forms, regs; /* words: see insn below */
    uint8_t imm;
} accept;

#define ALU(op, lock) \
    {0, op, op, INT, EXT_ALL, RM, GB | EB | lock, 0}, {0, op + 1, op + 1, INT, EXT_ALL, RM, G | E | lock, 0}, \
    {0, op + 2, op + 2, INT, EXT_ALL, RM, GB | EB, 0}, {0, op + 3, op + 3, INT, EXT_ALL, RM, G | E, 0}, \
    {0, op + 4, op + 4, INT, 0, PLAIN, 0, 1}, {0, op + 5, op + 5, INT, 0, PLAIN, 0, IMM_OPERAND}

static const accept accepts[] = {
    ALU(0x00, LOCK), ALU(0x08, LOCK), ALU(0x10, LOCK), ALU(0x18, LOCK), ALU(0x20, LOCK), ALU(0x28, LOCK),
    ALU(0x30, LOCK), ALU(0x38, 0),
    {0, 0x69, 0x69, INT, EXT_ALL, RM, G | E, IMM_OPERAND},
    {0, 0x6b, 0x6b, INT, EXT_ALL, RM, G | E, 1},
    {0, 0x80, 0x80, INT, 0x7f, RM, EB | LOCK, 1}, {0, 0x80, 0x80, INT, 0x80, RM, EB, 1},
    {0, 0x81, 0x81, INT, 0x7f, RM, E | LOCK, IMM_OPERAND}, {0, 0x81, 0x81, INT, 0x80, RM, E, IMM_OPERAND},
    {0, 0x83, 0x83, INT, 0x7f, RM, E | LOCK, 1}, {0, 0x83, 0x83, INT, 0x80, RM, E, 1},
    {0, 0x84, 0x84, INT, EXT_ALL, RM, GB | EB, 0}, {0, 0x85, 0x85, INT, EXT_ALL, RM, G | E, 0},
    {0, 0x86, 0x86, INT, EXT_ALL, RM, GB | EB | LOCK, 0}, {0, 0x87, 0x87, INT, EXT_ALL, RM, G | E | LOCK, 0},
    {0, 0x88, 0x88, INT, EXT_ALL, RM, GB | EB, 0}, {0, 0x89, 0x89, INT, EXT_ALL, RM, G | E, 0},
    {0, 0x8a, 0x8a, INT, EXT_ALL, RM, GB | EB, 0}, {0, 0x8b, 0x8b, INT, EXT_ALL, RM, G | E, 0},
    {0, 0x8d, 0x8d, INT, EXT_ALL, M | LEA, G, 0},
    {0, 0x90, 0x90, INT | F3, 0, PLAIN, 0, 0}, /* nop, pause */
    {0, 0x91, 0x97, INT, 0, OPREG, 0, 0},
    {0, 0x98, 0x99, INT, 0, PLAIN, 0, 0}, {0, 0x9b, 0x9b, N, 0, PLAIN, 0, 0},
    {0, 0x9e, 0x9f, INT, 0, PLAIN, 0, 0},
    {0, 0xa8, 0xa8, INT, 0, PLAIN, 0, 1}, {0, 0xa9, 0xa9, INT, 0, PLAIN, 0, IMM_OPERAND},
    {0, 0xb0, 0xb7, INT, 0, OPREGB, 0, 1}, {0, 0xb8, 0xbf, INT, 0, OPREG, 0, IMM_OPERAND},
    {0, 0xc0, 0xc0, INT, EXT_ALL, RM, EB, 1}, {0, 0xc1, 0xc1, INT, EXT_ALL, RM, E, 1},
    {0, 0xc6, 0xc6, INT, 1, RM, EB, 1}, {0, 0xc7, 0xc7, INT, 1, RM, E, IMM_OPERAND},
    {0, 0xd0, 0xd0, INT, EXT_ALL, RM, EB, 0}, {0, 0xd1, 0xd1, INT, EXT_ALL, RM, E, 0},
    {0, 0xd2, 0xd2, INT, EXT_ALL, RM, EB, 0}, {0, 0xd3, 0xd3, INT, EXT_ALL, RM, E, 0},
    /* x87; the stores of environments are a sequence */
    {0, 0xd8, 0xd8, N, EXT_ALL, RM, 0, 0},
    {0, 0xd9, 0xd9, N, EXT_ALL, R, 0, 0}, {0, 0xd9, 0xd9, N, 0xff & ~(1 << 1 | 1 << 6), M, 0, 0},
    {0, 0xda, 0xda, N, 0x2f, R, 0, 0}, {0, 0xda, 0xda, N, EXT_ALL, M, 0, 0},
    {0, 0xdb, 0xdb, N, 0x7f, R, 0, 0}, {0, 0xdb, 0xdb, N, 0xff & ~(1 << 4 | 1 << 6), M, 0, 0},
    {0, 0xdc, 0xdc, N, EXT_ALL, RM, 0, 0},
    {0, 0xdd, 0xdd, N, 0x3f, R, 0, 0}, {0, 0xdd, 0xdd, N, 0xff & ~(1 << 5 | 1 << 6), M, 0, 0},
    {0, 0xde, 0xde, N, EXT_ALL, RM, 0, 0},
    {0, 0xdf, 0xdf, N, 0x7f, R, 0, 0}, {0, 0xdf, 0xdf, N, EXT_ALL, M, 0, 0},
    {0, 0xf5, 0xf5, INT, 0, PLAIN, 0, 0}, {0, 0xf8, 0xf9, INT, 0, PLAIN, 0, 0},
    {0, 0xfc, 0xfd, INT, 0, PLAIN, 0, 0},
    {0, 0xf6, 0xf6, INT, 3, RM, EB, 1}, {0, 0xf6, 0xf6, INT, 0x0c, RM, EB | LOCK, 0},
    {0, 0xf6, 0xf6, INT, 0xf0, RM, EB, 0},
    {0, 0xf7, 0xf7, INT, 3, RM, E, IMM_OPERAND}, {0, 0xf7, 0xf7, INT, 0x0c, RM, E | LOCK, 0},
    {0, 0xf7, 0xf7, INT, 0xf0, RM, E, 0},
    {0, 0xfe, 0xfe, INT, 3, RM, EB | LOCK, 0}, {0, 0xff, 0xff, INT, 3, RM, E | LOCK, 0},

    {1, 0x10, 0x11, ALL, EXT_ALL, RM, 0, 0}, {1, 0x12, 0x12, N | F3 | F2, EXT_ALL, RM, 0, 0},
    {1, 0x12, 0x12, P, EXT_ALL, M, 0, 0}, {1, 0x13, 0x13, INT, EXT_ALL, M, 0, 0},
    {1, 0x14, 0x15, INT, EXT_ALL, RM, 0, 0}, {1, 0x16, 0x16, N | F3, EXT_ALL, RM, 0, 0},
    {1, 0x16, 0x16, P, EXT_ALL, M, 0, 0}, {1, 0x17, 0x17, INT, EXT_ALL, M, 0, 0},
    {1, 0x28, 0x29, INT, EXT_ALL, RM, 0, 0},
    {1, 0x2a, 0x2a, INT, EXT_ALL, RM, 0, 0}, {1, 0x2a, 0x2a, F3 | F2, EXT_ALL, RM, E, 0},
    {1, 0x2b, 0x2b, INT, EXT_ALL, M, 0, 0},
    {1, 0x2c, 0x2d, INT, EXT_ALL, RM, 0, 0}, {1, 0x2c, 0x2d, F3 | F2, EXT_ALL, RM, G, 0},
    {1, 0x2e, 0x2f, INT, EXT_ALL, RM, 0, 0},
    {1, 0x40, 0x4f, INT, EXT_ALL, RM, G | E, 0},
    {1, 0x50, 0x50, INT, EXT_ALL, R, G, 0},
    {1, 0x51, 0x51, ALL, EXT_ALL, RM, 0, 0}, {1, 0x52, 0x53, N | F3, EXT_ALL, RM, 0, 0},
    {1, 0x54, 0x57, INT, EXT_ALL, RM, 0, 0}, {1, 0x58, 0x5a, ALL, EXT_ALL, RM, 0, 0},
    {1, 0x5b, 0x5b, N | P | F3, EXT_ALL, RM, 0, 0}, {1, 0x5c, 0x5f, ALL, EXT_ALL, RM, 0, 0},
    {1, 0x60, 0x6b, INT, EXT_ALL, RM, 0, 0}, {1, 0x6c, 0x6d, P, EXT_ALL, RM, 0, 0},
    {1, 0x6e, 0x6e, INT, EXT_ALL, RM, E, 0}, {1, 0x6f, 0x6f, N | P | F3, EXT_ALL, RM, 0, 0},
    {1, 0x70, 0x70, ALL, EXT_ALL, RM, 0, 1}, {1, 0x71, 0x72, INT, 0x54, R, 0, 1},
    {1, 0x73, 0x73, N, 0x44, R, 0, 1}, {1, 0x73, 0x73, P, 0xcc, R, 0, 1},
    {1, 0x74, 0x76, INT, EXT_ALL, RM, 0, 0}, {1, 0x77, 0x77, N, 0, PLAIN, 0, 0},
    {1, 0x7c, 0x7d, P | F2, EXT_ALL, RM, 0, 0},
    {1, 0x7e, 0x7e, INT, EXT_ALL, RM, E, 0}, {1, 0x7e, 0x7e, F3, EXT_ALL, RM, 0, 0},
    {1, 0x7f, 0x7f, N | P | F3, EXT_ALL, RM, 0, 0},
    {1, 0x90, 0x9f, INT, EXT_ALL, RM, EB, 0},
    {1, 0xa3, 0xa3, INT, EXT_ALL, R, G | E, 0},
    {1, 0xa4, 0xa4, INT, EXT_ALL, RM, G | E, 1}, {1, 0xa5, 0xa5, INT, EXT_ALL, RM, G | E, 0},
    {1, 0xab, 0xab, INT, EXT_ALL, R, G | E, 0},
    {1, 0xac, 0xac, INT, EXT_ALL, RM, G | E, 1}, {1, 0xad, 0xad, INT, EXT_ALL, RM, G | E, 0},
    {1, 0xae, 0xae, N, 0x0c, M, 0, 0}, {1, 0xae, 0xae, N, 0xe0, R, 0, 0},
    {1, 0xaf, 0xaf, INT, EXT_ALL, RM, G | E, 0},
    {1, 0xb0, 0xb0, INT, EXT_ALL, RM, GB | EB | LOCK, 0}, {1, 0xb1, 0xb1, INT, EXT_ALL, RM, G | E | LOCK, 0},
    {1, 0xb3, 0xb3, INT, EXT_ALL, R, G | E, 0},
    {1, 0xb6, 0xb6, INT, EXT_ALL, RM, G | EB, 0}, {1, 0xb7, 0xb7, INT, EXT_ALL, RM, G | E, 0},
    {1, 0xb8, 0xb8, F3 | X, EXT_ALL, RM, G | E, 0},
    {1, 0xba, 0xba, INT, 0x10, RM, E, 1}, {1, 0xba, 0xba, INT, 0xe0, RM, E | LOCK, 1},
    {1, 0xbb, 0xbb, INT, EXT_ALL, R, G | E, 0},
    {1, 0xbc, 0xbd, INT | F3 | X, EXT_ALL, RM, G | E, 0},
    {1, 0xbe, 0xbe, INT, EXT_ALL, RM, G | EB, 0}, {1, 0xbf, 0xbf, INT, EXT_ALL, RM, G | E, 0},
    {1, 0xc0, 0xc0, INT, EXT_ALL, RM, GB | EB | LOCK, 0}, {1, 0xc1, 0xc1, INT, EXT_ALL, RM, G | E | LOCK, 0},
    {1, 0xc2, 0xc2, ALL, EXT_ALL, RM, 0, 1}, {1, 0xc3, 0xc3, N, EXT_ALL, M, G, 0},
    {1, 0xc4, 0xc4, INT, EXT_ALL, RM, E, 1}, {1, 0xc5, 0xc5, INT, EXT_ALL, R, G, 1},
    {1, 0xc6, 0xc6, INT, EXT_ALL, RM, 0, 1},
    {1, 0xc7, 0xc7, N, 1 << 1, M, LOCK, 0}, {1, 0xc8, 0xcf, N, 0, OPREG, 0, 0},
    {1, 0xd0, 0xd0, P | F2, EXT_ALL, RM, 0, 0}, {1, 0xd1, 0xd5, INT, EXT_ALL, RM, 0, 0},
    {1, 0xd6, 0xd6, P, EXT_ALL, RM, 0, 0}, {1, 0xd6, 0xd6, F3 | F2, EXT_ALL, R, 0, 0},
    {1, 0xd7, 0xd7, INT, EXT_ALL, R, G, 0}, {1, 0xd8, 0xe5, INT, EXT_ALL, RM, 0, 0},
    {1, 0xe6, 0xe6, P | F3 | F2, EXT_ALL, RM, 0, 0}, {1, 0xe7, 0xe7, INT, EXT_ALL, M, 0, 0},
    {1, 0xe8, 0xef, INT, EXT_ALL, RM, 0, 0}, {1, 0xf0, 0xf0, F2, EXT_ALL, M, 0, 0},
    {1, 0xf1, 0xf6, INT, EXT_ALL, RM, 0, 0},
    {1, 0xf8, 0xfe, INT, EXT_ALL, RM, 0, 0},

    {2, 0x00, 0x0b, INT, EXT_ALL, RM, 0, 0}, {2, 0x10, 0x10, P, EXT_ALL, RM, 0, 0},
    {2, 0x14, 0x15, P, EXT_ALL, RM, 0, 0}, {2, 0x17, 0x17, P, EXT_ALL, RM, 0, 0},
    {2, 0x1c, 0x1e, INT, EXT_ALL, RM, 0, 0}, {2, 0x20, 0x25, P, EXT_ALL, RM, 0, 0},
    {2, 0x28, 0x29, P, EXT_ALL, RM, 0, 0},
    {2, 0x2a, 0x2a, P, EXT_ALL, M, 0, 0}, {2, 0x2b, 0x2b, P, EXT_ALL, RM, 0, 0}, {2, 0x30, 0x35, P, EXT_ALL, RM, 0, 0},
    {2, 0x37, 0x41, P, EXT_ALL, RM, 0, 0}, {2, 0xc8, 0xcd, N, EXT_ALL, RM, 0, 0},
    {2, 0xcf, 0xcf, P, EXT_ALL, RM, 0, 0}, {2, 0xdb, 0xdf, P, EXT_ALL, RM, 0, 0},
    {2, 0xf0, 0xf1, INT, EXT_ALL, M, G, 0},
    {2, 0xf6, 0xf6, P | F3, EXT_ALL, RM, G | E, 0},
    {2, 0xf0, 0xf0, F2, EXT_ALL, RM, G | EB, 0}, {2, 0xf1, 0xf1, F2 | X, EXT_ALL, RM, G | E, 0},

    {3, 0x08, 0x0e, P, EXT_ALL, RM, 0, 1}, {3, 0x0f, 0x0f, INT, EXT_ALL, RM, 0, 1},
    {3, 0x14, 0x17, P, EXT_ALL, RM, E, 1}, {3, 0x20, 0x20, P, EXT_ALL, RM, E, 1},
    {3, 0x21, 0x21, P, EXT_ALL, RM, 0, 1}, {3, 0x22, 0x22, P, EXT_ALL, RM, E, 1},
    {3, 0x40, 0x42, P, EXT_ALL, RM, 0, 1}, {3, 0x44, 0x44, P, EXT_ALL, RM, 0, 1},
    {3, 0x60, 0x63, P, EXT_ALL, RM, 0, 1}, {3, 0xcc, 0xcc, N, EXT_ALL, RM, 0, 1}, {3, 0xce, 0xcf, P, EXT_ALL, RM, 0, 1},
    {3, 0xdf, 0xdf, P, EXT_ALL, RM, 0, 1},

    {VEX1, 0x10, 0x11, INT, EXT_ALL, RM, 0, 0}, {VEX1, 0x10, 0x11, F3 | F2, EXT_ALL, R, VECTOR, 0},
    {VEX1, 0x10, 0x11, F3 | F2, EXT_ALL, M, 0, 0}, {VEX1, 0x12, 0x12, N, EXT_ALL, RM, VECTOR, 0},
    {VEX1, 0x12, 0x12, P, EXT_ALL, M, VECTOR, 0}, {VEX1, 0x12, 0x12, F3 | F2, EXT_ALL, RM, 0, 0},
    {VEX1, 0x13, 0x13, INT, EXT_ALL, M, 0, 0}, {VEX1, 0x14, 0x15, INT, EXT_ALL, RM, VECTOR, 0},
    {VEX1, 0x16, 0x16, N, EXT_ALL, RM, VECTOR, 0}, {VEX1, 0x16, 0x16, P, EXT_ALL, M, VECTOR, 0},
    {VEX1, 0x16, 0x16, F3, EXT_ALL, RM, 0, 0}, {VEX1, 0x17, 0x17, INT, EXT_ALL, M, 0, 0},
    {VEX1, 0x28, 0x29, INT, EXT_ALL, RM, 0, 0}, {VEX1, 0x2a, 0x2a, F3 | F2, EXT_ALL, RM, E | VECTOR, 0},
    {VEX1, 0x2b, 0x2b, INT, EXT_ALL, M, 0, 0}, {VEX1, 0x2c, 0x2d, F3 | F2, EXT_ALL, RM, G, 0},
    {VEX1, 0x2e, 0x2f, INT, EXT_ALL, RM, 0, 0}, {VEX1, 0x41, 0x42, INT, EXT_ALL, R, VECTOR, 0},
    {VEX1, 0x44, 0x44, INT, EXT_ALL, R, 0, 0}, {VEX1, 0x45, 0x47, INT, EXT_ALL, R, VECTOR, 0},
    {VEX1, 0x4a, 0x4b, INT, EXT_ALL, R, VECTOR, 0}, {VEX1, 0x50, 0x50, INT, EXT_ALL, R, G, 0},
    {VEX1, 0x51, 0x51, INT, EXT_ALL, RM, 0, 0}, {VEX1, 0x51, 0x51, F3 | F2, EXT_ALL, RM, VECTOR, 0},
    {VEX1, 0x52, 0x53, N, EXT_ALL, RM, 0, 0}, {VEX1, 0x52, 0x53, F3, EXT_ALL, RM, VECTOR, 0},
    {VEX1, 0x54, 0x57, INT, EXT_ALL, RM, VECTOR, 0}, {VEX1, 0x58, 0x59, ALL, EXT_ALL, RM, VECTOR, 0},
    {VEX1, 0x5a, 0x5a, INT, EXT_ALL, RM, 0, 0}, {VEX1, 0x5a, 0x5a, F3 | F2, EXT_ALL, RM, VECTOR, 0},
    {VEX1, 0x5b, 0x5b, N | P | F3, EXT_ALL, RM, 0, 0}, {VEX1, 0x5c, 0x5f, ALL, EXT_ALL, RM, VECTOR, 0},
    {VEX1, 0x60, 0x6d, P, EXT_ALL, RM, VECTOR, 0}, {VEX1, 0x6e, 0x6e, P, EXT_ALL, RM, E, 0},
    {VEX1, 0x6f, 0x6f, P | F3, EXT_ALL, RM, 0, 0}, {VEX1, 0x70, 0x70, P | F3 | F2, EXT_ALL, RM, 0, 1},
    {VEX1, 0x71, 0x72, P, 0x54, R, VECTOR, 1}, {VEX1, 0x73, 0x73, P, 0xcc, R, VECTOR, 1},
    {VEX1, 0x74, 0x76, P, EXT_ALL, RM, VECTOR, 0}, {VEX1, 0x77, 0x77, N, 0, PLAIN, 0, 0},
    {VEX1, 0x7c, 0x7d, P | F2, EXT_ALL, RM, VECTOR, 0}, {VEX1, 0x7e, 0x7e, P, EXT_ALL, RM, E, 0},
    {VEX1, 0x7e, 0x7e, F3, EXT_ALL, RM, 0, 0}, {VEX1, 0x7f, 0x7f, P | F3, EXT_ALL, RM, 0, 0},
    {VEX1, 0x90, 0x90, INT, EXT_ALL, RM, 0, 0}, {VEX1, 0x91, 0x91, INT, EXT_ALL, M, 0, 0},
    {VEX1, 0x92, 0x92, N | P | F2, EXT_ALL, R, E, 0}, {VEX1, 0x93, 0x93, N | P | F2, EXT_ALL, R, G, 0},
    {VEX1, 0x98, 0x99, INT, EXT_ALL, R, 0, 0}, {VEX1, 0xae, 0xae, N, 0x0c, M, 0, 0},
    {VEX1, 0xc2, 0xc2, ALL, EXT_ALL, RM, VECTOR, 1}, {VEX1, 0xc4, 0xc4, P, EXT_ALL, RM, E | VECTOR, 1},
    {VEX1, 0xc5, 0xc5, P, EXT_ALL, R, G, 1}, {VEX1, 0xc6, 0xc6, INT, EXT_ALL, RM, VECTOR, 1},
    {VEX1, 0xd0, 0xd0, P | F2, EXT_ALL, RM, VECTOR, 0}, {VEX1, 0xd1, 0xd5, P, EXT_ALL, RM, VECTOR, 0},
    {VEX1, 0xd6, 0xd6, P, EXT_ALL, RM, 0, 0}, {VEX1, 0xd7, 0xd7, P, EXT_ALL, R, G, 0},
    {VEX1, 0xd8, 0xe5, P, EXT_ALL, RM, VECTOR, 0}, {VEX1, 0xe6, 0xe6, P | F3 | F2, EXT_ALL, RM, 0, 0},
    {VEX1, 0xe7, 0xe7, P, EXT_ALL, M, 0, 0}, {VEX1, 0xe8, 0xef, P, EXT_ALL, RM, VECTOR, 0},
    {VEX1, 0xf0, 0xf0, F2, EXT_ALL, M, 0, 0}, {VEX1, 0xf1, 0xf6, P, EXT_ALL, RM, VECTOR, 0},
    {VEX1, 0xf8, 0xfe, P, EXT_ALL, RM, VECTOR, 0},

    {VEX2, 0x00, 0x0d, P, EXT_ALL, RM, VECTOR, 0}, {VEX2, 0x0e, 0x0f, P, EXT_ALL, RM, 0, 0},
    {VEX2, 0x13, 0x13, P, EXT_ALL, RM, 0, 0}, {VEX2, 0x16, 0x16, P, EXT_ALL, RM, VECTOR, 0},
    {VEX2, 0x17, 0x19, P, EXT_ALL, RM, 0, 0}, {VEX2, 0x1a, 0x1a, P, EXT_ALL, M, 0, 0},
    {VEX2, 0x1c, 0x1e, P, EXT_ALL, RM, 0, 0}, {VEX2, 0x20, 0x25, P, EXT_ALL, RM, 0, 0},
    {VEX2, 0x28, 0x29, P, EXT_ALL, RM, VECTOR, 0}, {VEX2, 0x2a, 0x2a, P, EXT_ALL, M, 0, 0},
    {VEX2, 0x2b, 0x2b, P, EXT_ALL, RM, VECTOR, 0}, {VEX2, 0x2c, 0x2f, P, EXT_ALL, M, VECTOR, 0},
    {VEX2, 0x30, 0x35, P, EXT_ALL, RM, 0, 0}, {VEX2, 0x36, 0x40, P, EXT_ALL, RM, VECTOR, 0},
    {VEX2, 0x41, 0x41, P, EXT_ALL, RM, 0, 0}, {VEX2, 0x45, 0x47, P, EXT_ALL, RM, VECTOR, 0},
    {VEX2, 0x58, 0x59, P, EXT_ALL, RM, 0, 0}, {VEX2, 0x5a, 0x5a, P, EXT_ALL, M, 0, 0},
    {VEX2, 0x78, 0x79, P, EXT_ALL, RM, 0, 0}, {VEX2, 0x8c, 0x8c, P, EXT_ALL, M, VECTOR, 0},
    {VEX2, 0x8e, 0x8e, P, EXT_ALL, M, VECTOR, 0}, {VEX2, 0x90, 0x93, P, EXT_ALL, M, VECTOR | VSIB, 0},
    {VEX2, 0x96, 0x9f, P, EXT_ALL, RM, VECTOR, 0}, {VEX2, 0xa6, 0xaf, P, EXT_ALL, RM, VECTOR, 0},
    {VEX2, 0xb6, 0xbf, P, EXT_ALL, RM, VECTOR, 0}, {VEX2, 0xcf, 0xcf, P, EXT_ALL, RM, VECTOR, 0},
    {VEX2, 0xdb, 0xdb, P, EXT_ALL, RM, 0, 0}, {VEX2, 0xdc, 0xdf, P, EXT_ALL, RM, VECTOR, 0},
    {VEX2, 0xf2, 0xf2, N, EXT_ALL, RM, G | E | V, 0}, {VEX2, 0xf3, 0xf3, N, 0x0e, RM, E | V, 0},
    {VEX2, 0xf5, 0xf5, N | F3 | F2, EXT_ALL, RM, G | E | V, 0}, {VEX2, 0xf6, 0xf6, F2, EXT_ALL, RM, G | E | V, 0},
    {VEX2, 0xf7, 0xf7, ALL, EXT_ALL, RM, G | E | V, 0},

    {VEX3, 0x00, 0x01, P, EXT_ALL, RM, 0, 1}, {VEX3, 0x02, 0x02, P, EXT_ALL, RM, VECTOR, 1},
    {VEX3, 0x04, 0x05, P, EXT_ALL, RM, 0, 1}, {VEX3, 0x06, 0x06, P, EXT_ALL, RM, VECTOR, 1},
    {VEX3, 0x08, 0x09, P, EXT_ALL, RM, 0, 1}, {VEX3, 0x0a, 0x0f, P, EXT_ALL, RM, VECTOR, 1},
    {VEX3, 0x14, 0x17, P, EXT_ALL, RM, E, 1}, {VEX3, 0x18, 0x18, P, EXT_ALL, RM, VECTOR, 1},
    {VEX3, 0x19, 0x19, P, EXT_ALL, RM, 0, 1}, {VEX3, 0x1d, 0x1d, P, EXT_ALL, RM, 0, 1},
    {VEX3, 0x20, 0x20, P, EXT_ALL, RM, E | VECTOR, 1}, {VEX3, 0x21, 0x21, P, EXT_ALL, RM, VECTOR, 1},
    {VEX3, 0x22, 0x22, P, EXT_ALL, RM, E | VECTOR, 1}, {VEX3, 0x30, 0x33, P, EXT_ALL, R, 0, 1},
    {VEX3, 0x38, 0x38, P, EXT_ALL, RM, VECTOR, 1}, {VEX3, 0x39, 0x39, P, EXT_ALL, RM, 0, 1},
    {VEX3, 0x40, 0x42, P, EXT_ALL, RM, VECTOR, 1}, {VEX3, 0x44, 0x44, P, EXT_ALL, RM, VECTOR, 1},
    {VEX3, 0x46, 0x46, P, EXT_ALL, RM, VECTOR, 1}, {VEX3, 0x4a, 0x4c, P, EXT_ALL, RM, VECTOR, IMM_REGISTER},
    {VEX3, 0x60, 0x63, P, EXT_ALL, RM, 0, 1}, {VEX3, 0xce, 0xcf, P, EXT_ALL, RM, VECTOR, 1},
    {VEX3, 0xdf, 0xdf, P, EXT_ALL, RM, 0, 1}, {VEX3, 0xf0, 0xf0, F2, EXT_ALL, RM, G | E, 1},

    {EVEX1, 0x10, 0x11, INT, EXT_ALL, RM, 0, 0}, {EVEX1, 0x10, 0x11, F3 | F2, EXT_ALL, R, VECTOR, 0},
    {EVEX1, 0x10, 0x11, F3 | F2, EXT_ALL, M, 0, 0}, {EVEX1, 0x12, 0x12, N, EXT_ALL, RM, VECTOR, 0},
    {EVEX1, 0x12, 0x12, P, EXT_ALL, M, VECTOR, 0}, {EVEX1, 0x12, 0x12, F3 | F2, EXT_ALL, RM, 0, 0},
    {EVEX1, 0x13, 0x13, INT, EXT_ALL, M, 0, 0}, {EVEX1, 0x14, 0x15, INT, EXT_ALL, RM, VECTOR, 0},
    {EVEX1, 0x16, 0x16, N, EXT_ALL, RM, VECTOR, 0}, {EVEX1, 0x16, 0x16, P, EXT_ALL, M, VECTOR, 0},
    {EVEX1, 0x16, 0x16, F3, EXT_ALL, RM, 0, 0}, {EVEX1, 0x17, 0x17, INT, EXT_ALL, M, 0, 0},
    {EVEX1, 0x28, 0x29, INT, EXT_ALL, RM, 0, 0}, {EVEX1, 0x2a, 0x2a, F3 | F2, EXT_ALL, RM, E | VECTOR, 0},
    {EVEX1, 0x2b, 0x2b, INT, EXT_ALL, M, 0, 0}, {EVEX1, 0x2c, 0x2d, F3 | F2, EXT_ALL, RM, G, 0},
    {EVEX1, 0x2e, 0x2f, INT, EXT_ALL, RM, 0, 0}, {EVEX1, 0x51, 0x51, INT, EXT_ALL, RM, 0, 0},
    {EVEX1, 0x51, 0x51, F3 | F2, EXT_ALL, RM, VECTOR, 0}, {EVEX1, 0x54, 0x57, INT, EXT_ALL, RM, VECTOR, 0},
    {EVEX1, 0x58, 0x59, ALL, EXT_ALL, RM, VECTOR, 0}, {EVEX1, 0x5a, 0x5a, INT, EXT_ALL, RM, 0, 0},
    {EVEX1, 0x5a, 0x5a, F3 | F2, EXT_ALL, RM, VECTOR, 0}, {EVEX1, 0x5b, 0x5b, N | P | F3, EXT_ALL, RM, 0, 0},
    {EVEX1, 0x5c, 0x5f, ALL, EXT_ALL, RM, VECTOR, 0}, {EVEX1, 0x60, 0x6d, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX1, 0x6e, 0x6e, P, EXT_ALL, RM, E, 0}, {EVEX1, 0x6f, 0x6f, P | F3 | F2, EXT_ALL, RM, 0, 0},
    {EVEX1, 0x70, 0x70, P | F3 | F2, EXT_ALL, RM, 0, 1}, {EVEX1, 0x71, 0x71, P, 0x54, RM, VECTOR, 1},
    {EVEX1, 0x72, 0x72, P, 0x57, RM, VECTOR, 1}, {EVEX1, 0x73, 0x73, P, 0xcc, RM, VECTOR, 1},
    {EVEX1, 0x74, 0x76, P, EXT_ALL, RM, VECTOR, 0}, {EVEX1, 0x78, 0x79, INT, EXT_ALL, RM, 0, 0},
    {EVEX1, 0x78, 0x79, F3 | F2, EXT_ALL, RM, G, 0}, {EVEX1, 0x7a, 0x7a, P | F3 | F2, EXT_ALL, RM, 0, 0},
    {EVEX1, 0x7b, 0x7b, P, EXT_ALL, RM, 0, 0}, {EVEX1, 0x7b, 0x7b, F3 | F2, EXT_ALL, RM, E | VECTOR, 0},
    {EVEX1, 0x7e, 0x7e, P, EXT_ALL, RM, E, 0}, {EVEX1, 0x7e, 0x7e, F3, EXT_ALL, RM, 0, 0},
    {EVEX1, 0x7f, 0x7f, P | F3 | F2, EXT_ALL, RM, 0, 0}, {EVEX1, 0xc2, 0xc2, ALL, EXT_ALL, RM, VECTOR, 1},
    {EVEX1, 0xc4, 0xc4, P, EXT_ALL, RM, E | VECTOR, 1}, {EVEX1, 0xc5, 0xc5, P, EXT_ALL, R, G, 1},
    {EVEX1, 0xc6, 0xc6, INT, EXT_ALL, RM, VECTOR, 1}, {EVEX1, 0xd1, 0xd5, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX1, 0xd6, 0xd6, P, EXT_ALL, RM, 0, 0}, {EVEX1, 0xd8, 0xe5, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX1, 0xe6, 0xe6, P | F3 | F2, EXT_ALL, RM, 0, 0}, {EVEX1, 0xe7, 0xe7, P, EXT_ALL, M, 0, 0},
    {EVEX1, 0xe8, 0xef, P, EXT_ALL, RM, VECTOR, 0}, {EVEX1, 0xf1, 0xf6, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX1, 0xf8, 0xfe, P, EXT_ALL, RM, VECTOR, 0},

    {EVEX2, 0x00, 0x00, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x04, 0x04, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x0b, 0x0d, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x10, 0x12, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x10, 0x12, F3, EXT_ALL, RM, 0, 0}, {EVEX2, 0x13, 0x13, P | F3, EXT_ALL, RM, 0, 0},
    {EVEX2, 0x14, 0x16, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x14, 0x15, F3, EXT_ALL, RM, 0, 0},
    {EVEX2, 0x18, 0x19, P, EXT_ALL, RM, 0, 0}, {EVEX2, 0x1a, 0x1b, P, EXT_ALL, M, 0, 0},
    {EVEX2, 0x1c, 0x1f, P, EXT_ALL, RM, 0, 0}, {EVEX2, 0x20, 0x25, P | F3, EXT_ALL, RM, 0, 0},
    {EVEX2, 0x26, 0x27, P | F3, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x28, 0x29, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x28, 0x2a, F3, EXT_ALL, R, 0, 0}, {EVEX2, 0x2a, 0x2a, P, EXT_ALL, M, 0, 0},
    {EVEX2, 0x2b, 0x2d, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x30, 0x35, P | F3, EXT_ALL, RM, 0, 0},
    {EVEX2, 0x36, 0x40, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x38, 0x3a, F3, EXT_ALL, R, 0, 0},
    {EVEX2, 0x42, 0x42, P, EXT_ALL, RM, 0, 0}, {EVEX2, 0x43, 0x43, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x44, 0x44, P, EXT_ALL, RM, 0, 0}, {EVEX2, 0x45, 0x47, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x4c, 0x4c, P, EXT_ALL, RM, 0, 0}, {EVEX2, 0x4d, 0x4d, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x4e, 0x4e, P, EXT_ALL, RM, 0, 0}, {EVEX2, 0x4f, 0x51, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x52, 0x52, P | F3, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x53, 0x53, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x54, 0x55, P, EXT_ALL, RM, 0, 0}, {EVEX2, 0x58, 0x59, P, EXT_ALL, RM, 0, 0},
    {EVEX2, 0x5a, 0x5b, P, EXT_ALL, M, 0, 0}, {EVEX2, 0x62, 0x63, P, EXT_ALL, RM, 0, 0},
    {EVEX2, 0x64, 0x66, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x70, 0x71, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x72, 0x72, P | F2, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x72, 0x72, F3, EXT_ALL, RM, 0, 0},
    {EVEX2, 0x73, 0x73, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x75, 0x77, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x78, 0x79, P, EXT_ALL, RM, 0, 0}, {EVEX2, 0x7a, 0x7c, P, EXT_ALL, R, E, 0},
    {EVEX2, 0x7d, 0x7f, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x83, 0x83, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x88, 0x8b, P, EXT_ALL, RM, 0, 0}, {EVEX2, 0x8d, 0x8d, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0x8f, 0x8f, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0x90, 0x93, P, EXT_ALL, M, VSIB, 0},
    {EVEX2, 0x96, 0x9f, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0xa0, 0xa3, P, EXT_ALL, M, VSIB, 0},
    {EVEX2, 0xa6, 0xaf, P, EXT_ALL, RM, VECTOR, 0}, {EVEX2, 0xb4, 0xbf, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0xc4, 0xc4, P, EXT_ALL, RM, 0, 0}, {EVEX2, 0xcf, 0xcf, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX2, 0xdc, 0xdf, P, EXT_ALL, RM, VECTOR, 0},

    {EVEX3, 0x00, 0x01, P, EXT_ALL, RM, 0, 1}, {EVEX3, 0x03, 0x03, P, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x04, 0x05, P, EXT_ALL, RM, 0, 1}, {EVEX3, 0x08, 0x09, P, EXT_ALL, RM, 0, 1},
    {EVEX3, 0x0a, 0x0b, P, EXT_ALL, RM, VECTOR, 1}, {EVEX3, 0x0f, 0x0f, P, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x14, 0x17, P, EXT_ALL, RM, E, 1}, {EVEX3, 0x18, 0x18, P, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x19, 0x19, P, EXT_ALL, RM, 0, 1}, {EVEX3, 0x1a, 0x1a, P, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x1b, 0x1b, P, EXT_ALL, RM, 0, 1}, {EVEX3, 0x1d, 0x1d, P, EXT_ALL, RM, 0, 1},
    {EVEX3, 0x1e, 0x1f, P, EXT_ALL, RM, VECTOR, 1}, {EVEX3, 0x20, 0x20, P, EXT_ALL, RM, E | VECTOR, 1},
    {EVEX3, 0x21, 0x21, P, EXT_ALL, RM, VECTOR, 1}, {EVEX3, 0x22, 0x22, P, EXT_ALL, RM, E | VECTOR, 1},
    {EVEX3, 0x23, 0x23, P, EXT_ALL, RM, VECTOR, 1}, {EVEX3, 0x25, 0x25, P, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x26, 0x26, P, EXT_ALL, RM, 0, 1}, {EVEX3, 0x27, 0x27, P, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x38, 0x38, P, EXT_ALL, RM, VECTOR, 1}, {EVEX3, 0x39, 0x39, P, EXT_ALL, RM, 0, 1},
    {EVEX3, 0x3a, 0x3a, P, EXT_ALL, RM, VECTOR, 1}, {EVEX3, 0x3b, 0x3b, P, EXT_ALL, RM, 0, 1},
    {EVEX3, 0x3e, 0x3f, P, EXT_ALL, RM, VECTOR, 1}, {EVEX3, 0x42, 0x44, P, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x50, 0x51, P, EXT_ALL, RM, VECTOR, 1}, {EVEX3, 0x54, 0x55, P, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x56, 0x56, P, EXT_ALL, RM, 0, 1}, {EVEX3, 0x57, 0x57, P, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x66, 0x67, P, EXT_ALL, RM, 0, 1}, {EVEX3, 0x70, 0x73, P, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0xce, 0xcf, P, EXT_ALL, RM, VECTOR, 1},
    /* of half precision */
    {EVEX3, 0x08, 0x08, N, EXT_ALL, RM, 0, 1}, {EVEX3, 0x0a, 0x0a, N, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x26, 0x26, N, EXT_ALL, RM, 0, 1}, {EVEX3, 0x27, 0x27, N, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x56, 0x56, N, EXT_ALL, RM, 0, 1}, {EVEX3, 0x57, 0x57, N, EXT_ALL, RM, VECTOR, 1},
    {EVEX3, 0x66, 0x67, N, EXT_ALL, RM, 0, 1}, {EVEX3, 0xc2, 0xc2, N | F3, EXT_ALL, RM, VECTOR, 1},

    {EVEX5, 0x10, 0x11, F3, EXT_ALL, R, VECTOR, 0}, {EVEX5, 0x10, 0x11, F3, EXT_ALL, M, 0, 0},
    {EVEX5, 0x1d, 0x1d, N, EXT_ALL, RM, VECTOR, 0}, {EVEX5, 0x1d, 0x1d, P, EXT_ALL, RM, 0, 0},
    {EVEX5, 0x2a, 0x2a, F3, EXT_ALL, RM, E | VECTOR, 0}, {EVEX5, 0x2c, 0x2d, F3, EXT_ALL, RM, G, 0},
    {EVEX5, 0x2e, 0x2f, N, EXT_ALL, RM, 0, 0}, {EVEX5, 0x51, 0x51, N, EXT_ALL, RM, 0, 0},
    {EVEX5, 0x51, 0x51, F3, EXT_ALL, RM, VECTOR, 0}, {EVEX5, 0x58, 0x59, N | F3, EXT_ALL, RM, VECTOR, 0},
    {EVEX5, 0x5a, 0x5a, INT, EXT_ALL, RM, 0, 0}, {EVEX5, 0x5a, 0x5a, F3 | F2, EXT_ALL, RM, VECTOR, 0},
    {EVEX5, 0x5b, 0x5b, N | P | F3, EXT_ALL, RM, 0, 0}, {EVEX5, 0x5c, 0x5f, N | F3, EXT_ALL, RM, VECTOR, 0},
    {EVEX5, 0x6e, 0x6e, P, EXT_ALL, RM, E, 0}, {EVEX5, 0x78, 0x79, INT, EXT_ALL, RM, 0, 0},
    {EVEX5, 0x78, 0x79, F3, EXT_ALL, RM, G, 0}, {EVEX5, 0x7a, 0x7a, P | F2, EXT_ALL, RM, 0, 0},
    {EVEX5, 0x7b, 0x7b, P, EXT_ALL, RM, 0, 0}, {EVEX5, 0x7b, 0x7b, F3, EXT_ALL, RM, E | VECTOR, 0},
    {EVEX5, 0x7c, 0x7c, INT, EXT_ALL, RM, 0, 0}, {EVEX5, 0x7d, 0x7d, ALL, EXT_ALL, RM, 0, 0},
    {EVEX5, 0x7e, 0x7e, P, EXT_ALL, RM, E, 0},

    {EVEX6, 0x13, 0x13, P, EXT_ALL, RM, 0, 0}, {EVEX6, 0x13, 0x13, N, EXT_ALL, RM, VECTOR, 0},
    {EVEX6, 0x2c, 0x2d, P, EXT_ALL, RM, VECTOR, 0}, {EVEX6, 0x42, 0x42, P, EXT_ALL, RM, 0, 0},
    {EVEX6, 0x43, 0x43, P, EXT_ALL, RM, VECTOR, 0}, {EVEX6, 0x4c, 0x4c, P, EXT_ALL, RM, 0, 0},
    {EVEX6, 0x4d, 0x4d, P, EXT_ALL, RM, VECTOR, 0}, {EVEX6, 0x4e, 0x4e, P, EXT_ALL, RM, 0, 0},
    {EVEX6, 0x4f, 0x4f, P, EXT_ALL, RM, VECTOR, 0}, {EVEX6, 0x56, 0x57, F3 | F2, EXT_ALL, RM, VECTOR, 0},
    {EVEX6, 0x96, 0x9f, P, EXT_ALL, RM, VECTOR, 0}, {EVEX6, 0xa6, 0xaf, P, EXT_ALL, RM, VECTOR, 0},
    {EVEX6, 0xb6, 0xbf, P, EXT_ALL, RM, VECTOR, 0}, {EVEX6, 0xd6, 0xd7, F3 | F2, EXT_ALL, RM, VECTOR, 0},
};

/* First row of each opcode, plus one; its other rows follow it or come later in the table. */
static uint16_t first_row[MAPS][256];
static vx_once first_row_once = VX_ONCE_INIT;

static void index_rows(void) {
    for (size_t row = VX_COUNT(accepts); row-- > 0;)
        for (unsigned op = accepts[row].first; op <= accepts[row].last; op++)
            first_row[accepts[row].map][op] = (uint16_t)(row + 1);
}

/* --- reading one ---------------------------------------------------------------------------------- */

/* Words where the compiler would store bytes and read them as words, which stalls the processor. */
typedef struct insn {
    const uint8_t *next; /* byte to read */
    bool lock, word, gs;
    bool near;           /* gs without the 32-bit address size */
    unsigned prefixes, rex, map, op;
    bool vector, w;      /* VEX or EVEX; rex and prefixes then have what theirs say */
    unsigned vvvv;
    bool mem, sib;
    unsigned reg, rm, index;
} insn;

/* Registers as bits: the guest's seven, r13 for its esp, and the scratch r8 to r10.  Of bytes there is no r13;
 * with REX 4 to 7 are spl to dil, which no one emits. */
enum { NAMED = 0x27ef, CLEAN = 0x21ef, BYTES = 0x00ff, BYTES_REX = 0x070f, VECTORS = 0x00ff };

/* By G and GB, or E and EB, of a row, and whether there is a REX. */
static const unsigned allowed[3][2] = {[0] = {VECTORS, VECTORS}, [G] = {NAMED, NAMED}, [GB] = {BYTES, BYTES_REX}};

static bool named(unsigned reg) { return NAMED >> reg & 1; }

static uint8_t byte(insn *in) { return *in->next++; }

/* Those whose upper halves are zero between instructions (V2 of verify.c): the guest's, r13 and r8. */
static bool clean(unsigned reg) { return CLEAN >> reg & 1; }

/* Both guards of the window are wider than it.  A single byte always is so, even times the size of a vector. */
static bool near_displacement(insn *in, unsigned mod) {
    _Static_assert(VX_LOW_GUARD <= VX_ABOVE / 2 && 128 * 64 <= VX_LOW_GUARD, "guards are wider than displacements");
    int32_t disp = 0;
    if (mod == 2)
        memcpy(&disp, in->next, sizeof disp);
    in->next += mod == 0 ? 0 : mod == 1 ? 1 : 4;
    return disp >= -VX_LOW_GUARD && disp < VX_LOW_GUARD;
}

/* The index is judged later: it may be a vector. */
static bool address(insn *in, uint8_t modrm) {
    unsigned mod = modrm >> 6, base = modrm & 7, high = (in->rex & 1u) << 3;
    if (base == 5 && mod == 0)
        return false; /* relative to rip */
    in->sib = base == 4;
    if (in->sib) {
        uint8_t sib = byte(in);
        in->index = (sib >> 3 & 7u) | (in->rex & 2) << 2;
        base = sib & 7;
        if (base == 5 && mod == 0) {
            in->next += 4;
            return !in->near;
        }
    }
    if (in->near)
        return clean(base | high) && in->index == RSP && near_displacement(in, mod);
    in->next += mod == 0 ? 0 : mod == 1 ? 1 : 4;
    return named(base | high);
}

static bool read_modrm(insn *in) {
    uint8_t modrm = byte(in);
    in->reg = (modrm >> 3 & 7u) | (in->rex & 4) << 1;
    in->rm = (modrm & 7u) | (in->rex & 1) << 3;
    in->mem = modrm < 0xc0;
    in->sib = false;
    in->index = RSP; /* none */
    return !in->mem || address(in, modrm);
}

/* lock, 66, f2 or f3: instructions with them are few. */
static const uint8_t *read_legacy_prefixes(insn *in, const uint8_t *p) {
    in->lock = *p == 0xf0;
    p += in->lock;
    in->word = *p == 0x66;
    p += in->word;
    if (*p != 0xf2 && *p != 0xf3) {
        in->prefixes = in->word ? P : N;
        return p;
    }
    in->prefixes = (*p == 0xf2 ? F2 : F3) | (in->word ? X : 0);
    return p + 1;
}

/* The byte of W, vvvv (inverted), and pp. */
static void read_vvvv(insn *in, uint8_t payload) {
    in->w = payload >> 7;
    in->vvvv = ~(unsigned)payload >> 3 & 15;
    in->prefixes = 1u << (payload & 3);
}

/* Byte 1 of C4 and 62 begins with R, X, B inverted: as in REX, X and the high bit of a vector's number are not used. */
static bool read_vex(insn *in) {
    uint8_t kind = in->next[-1], first = byte(in), map = 1;
    in->rex = ~(unsigned)first >> 5 & 4;
    if (kind == 0xc5) {
        read_vvvv(in, first & 0x7f);
    } else {
        in->rex |= ~(unsigned)first >> 5 & 3;
        map = first & 31;
        read_vvvv(in, byte(in));
    }
    in->map = VEX1 + map - 1u;
    in->op = byte(in);
    return map >= 1 && map <= 3 && !(in->rex & 2);
}

/* R' and V' are 1: registers 16 to 31 are nobody's.  A length of 3 means a rounding mode. */
static bool read_evex(insn *in) {
    uint8_t first = byte(in), second = byte(in), third = byte(in), map = first & 7;
    in->rex = ~(unsigned)first >> 5 & 7;
    read_vvvv(in, second);
    in->map = EVEX1 + map - 1u;
    in->op = byte(in);
    bool rounds = (third & 0x10) && *in->next >= 0xc0;
    return map >= 1 && map <= 6 && (first & 0x18) == 0x10 && (second & 4) && (third & 8) && !(in->rex & 2) &&
           ((third & 0x60) != 0x60 || rounds);
}

static bool read_vector(insn *in) {
    in->vector = true;
    return !in->lock && in->prefixes == N && in->rex == 0 && (in->op == 0x62 ? read_evex(in) : read_vex(in));
}

/* Prefixes come in the one order that is emitted: those of old, gs with the address size, REX without W. */
static bool read_opcode(insn *in, const uint8_t *p) {
    in->lock = in->word = in->gs = in->near = in->vector = in->w = false;
    in->rex = in->map = in->vvvv = 0;
    in->prefixes = N;
    if (*p == 0xf0 || *p == 0x66 || (*p & 0xfe) == 0xf2)
        p = read_legacy_prefixes(in, p);
    if (*p == 0x65) {
        in->gs = true;
        in->near = *++p != 0x67;
        p += !in->near;
    }
    if ((*p & 0xf8) == 0x40)
        in->rex = *p++;
    in->op = *p++;
    if (in->op == 0x0f) {
        in->map = *p == 0x38 ? 2 : *p == 0x3a ? 3 : 1;
        p += in->map != 1;
        in->op = *p++;
    }
    in->next = p;
    return (in->op != 0xc4 && in->op != 0xc5 && in->op != 0x62) || in->map != 0 || read_vector(in);
}

/* --- judging it ---------------------------------------------------------------------------------- */

static bool registers_ok(const insn *in, const accept *a) {
    bool rex = in->rex != 0;
    return (allowed[a->regs & 3][rex] >> in->reg & 1) && (in->mem || (allowed[a->regs >> 2 & 3][rex] >> in->rm & 1));
}

static bool index_ok(const insn *in, const accept *a) {
    if (a->regs & VSIB)
        return in->sib && in->index <= 7 && !in->near; /* each lane is another address */
    return in->index == RSP || named(in->index);
}

static bool vvvv_ok(const insn *in, const accept *a) {
    if (a->regs & V)
        return named(in->vvvv) && !in->w;
    return (a->regs & VECTOR ? in->vvvv <= 7 : in->vvvv == 0) && !(in->w && (a->regs & (G | E)));
}

static bool row_is_of(const insn *in, const accept *a) {
    return a->map == in->map && in->op >= a->first && in->op <= a->last && (a->prefixes & in->prefixes) == in->prefixes;
}

/* Memory is named with gs, and gs with memory; lea computes, and touches none. */
static bool modrm_row_ok(const insn *in, const accept *a) {
    return row_is_of(in, a) && (a->ext >> (in->reg & 7) & 1) && (a->forms & (in->mem ? M : R)) && registers_ok(in, a) &&
           (!in->mem || index_ok(in, a)) && in->gs == (in->mem && !(a->forms & LEA)) &&
           (!in->lock || (in->mem && (a->regs & LOCK))) && (!in->vector || vvvv_ok(in, a));
}

static bool plain_row_ok(const insn *in, const accept *a) {
    unsigned reg = (in->op & 7) | (in->rex & 1) << 3;
    bool register_ok = a->forms == OPREG ? named(reg) : a->forms == OPREGB ? allowed[GB][in->rex != 0] >> reg & 1
                                                 : a->forms == PLAIN && in->rex == 0;
    return row_is_of(in, a) && register_ok && !in->gs && !in->lock && (in->rex & ~0x41u) == 0 && (!in->vector || vvvv_ok(in, a));
}

static bool skip_immediate(insn *in, const accept *a) {
    if (a->imm == IMM_REGISTER)
        return byte(in) < 0x80;
    in->next += a->imm == IMM_OPERAND ? (in->word ? 2 : 4) : a->imm;
    return true;
}

/* An opcode's rows all have a ModRM byte, or none has. */
static bool judge(insn *in) {
    unsigned first = first_row[in->map][in->op];
    if (first == 0)
        return false;
    const accept *a = &accepts[first - 1], *end = accepts + VX_COUNT(accepts);
    if (a->forms & RM) {
        if (!read_modrm(in))
            return false;
        while (a < end && !modrm_row_ok(in, a))
            a++;
    } else {
        while (a < end && !plain_row_ok(in, a))
            a++;
    }
    return a < end && skip_immediate(in, a);
}

void verify_insn_prepare(void) { vx_run_once(&first_row_once, index_rows); }

uint32_t verify_insn(const uint8_t *code) {
    insn in;
    return read_opcode(&in, code) && judge(&in) ? (uint32_t)(in.next - code) : 0;
}
