#include <stdlib.h>
#include <vxplug.h>

VX_MODULE_DOC("The smallest useful plugin.");
VX_DOC(reverse, "Return data backwards.");
VX_EXPORT vx_bytes reverse(vx_view data) {
    char *out = malloc(data.len ? data.len : 1);
    if (!out) return vx_raise(VX_MemoryError, "no %u bytes", (unsigned)data.len);
    for (size_t i = 0; i < data.len; i++) out[i] = ((const char *)data.ptr)[data.len - 1 - i];
    return vx_take(out, data.len);
}
