/* miniaudio.h cut down to its decoders: no devices, threads, or high-level engine.  Everything is
 * static, so that the compiler drops what the wrapper does not use before it spends time on it. */
#define MA_API static
#define MA_NO_DEVICE_IO
#define MA_NO_THREADING
#define MA_NO_ENCODING
#define MA_NO_GENERATION
#define MA_NO_RESOURCE_MANAGER
#define MA_NO_NODE_GRAPH
#define MA_NO_ENGINE
#define MINIAUDIO_IMPLEMENTATION
#include <miniaudio.h>
