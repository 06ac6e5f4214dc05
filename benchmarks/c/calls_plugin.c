#include <vxplug.h>
#include "calls.h"

VX_EXPORT int32_t add(int32_t a, int32_t b) { return sum(a, b); }
VX_EXPORT int32_t callbacks(int32_t (*function)(int32_t), int32_t count) { return total(function, count); }
VX_EXPORT int32_t nothing(void) { return 42; }
VX_EXPORT vx_bytes same(vx_view data) { return vx_borrow(data.ptr, data.len); }
VX_EXPORT uint32_t take(vx_view data) { return both_ends(data.ptr, data.len); }
VX_EXPORT vx_bytes give(uint32_t size) {
    if (size > sizeof storage) return vx_raise(VX_ValueError, "%u bytes", (unsigned)size);
    return vx_borrow(filled(), size);
}
