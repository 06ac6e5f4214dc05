/* For ctypes and cffi, and, compiled to wasm32, for wasmtime. */
#include "calls.h"

int32_t add(int32_t a, int32_t b) { return sum(a, b); }
int32_t callbacks(int32_t (*function)(int32_t), int32_t count) { return total(function, count); }
int32_t nothing(void) { return 42; }
const void *same(const void *data) { return data; }
uint32_t take(const void *data, uint32_t size) { return both_ends(data, size); }
void *give(uint32_t size) { return size <= sizeof storage ? filled() : NULL; }
