#include <vxplug.h>
#include "scale.h"

VX_EXPORT uint32_t work(uint32_t rounds) { return spin(rounds); }
VX_EXPORT uint32_t sum(vx_view data) { return checksum(data.ptr, data.len); }
VX_EXPORT uint32_t calls(uint32_t blocks, uint32_t count) {
    if (blocks == 0 || blocks > BLOCKS) {
        vx_raise(VX_ValueError, "%u blocks", (unsigned)blocks);
        return 0;
    }
    return walk(blocks, count);
}
