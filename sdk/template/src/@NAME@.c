#include <stdlib.h>
#include <vxplug.h>

VX_MODULE_DOC("A plugin that runs in a vxplug sandbox.");

VX_DOC(add, "Return a + b; OverflowError if it does not fit in 32 bits.");
VX_EXPORT int32_t add(int32_t a, int32_t b) {
    int32_t sum = 0;
    if (__builtin_add_overflow(a, b, &sum)) vx_raise(VX_OverflowError, "%d + %d", (int)a, (int)b);
    return sum;
}

VX_DOC(reverse, "Return data backwards.");
VX_EXPORT vx_bytes reverse(vx_view data) {
    char *out = malloc(data.len ? data.len : 1);
    if (!out) return vx_raise(VX_MemoryError, "no %zu bytes", data.len);
    for (size_t i = 0; i < data.len; i++) out[i] = ((const char *)data.ptr)[data.len - 1 - i];
    return vx_take(out, data.len);
}
