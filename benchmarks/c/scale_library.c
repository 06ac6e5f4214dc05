/* For ctypes. */
#include "scale.h"

uint32_t work(uint32_t rounds) { return spin(rounds); }
uint32_t calls(uint32_t blocks, uint32_t count) { return walk(blocks, count); }
