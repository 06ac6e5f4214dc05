/* Between the two files of the verifier. */
#ifndef VX_VERIFY_H
#define VX_VERIFY_H

#include "base.h"

void verify_insn_prepare(void); /* before the first verify_insn */
/* Length of the instruction at `code` if it may stand alone in emitted code, else 0.  Reads at most
 * VERIFY_INSN_MAX bytes. */
uint32_t verify_insn(const uint8_t *code);

#define VERIFY_INSN_MAX 24

#endif
