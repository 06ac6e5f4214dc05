#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vxplug.h"

static void host_raise(const char *name, size_t name_size, const char *text, size_t text_size) {
    int result;
    __asm__ volatile("int %1"
                     : "=a"(result)
                     : "i"(VX_HOSTCALL_VECTOR), "0"(VX_HC_RAISE), "b"(name), "c"(name_size),
                       "d"(text), "S"(text_size)
                     : "memory");
    (void)result; /* the host keeps the first error of a call; there is nothing to do about a refusal */
}

vx_bytes vx_raise_(const char *exception, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = size < 0 ? 0 : (size_t)size < sizeof text ? (size_t)size : sizeof text - 1;
    host_raise(exception, strlen(exception), text, length);
    return (vx_bytes){NULL, 0, VX_BORROWED};
}

/* The host calls this with the pointer of a VX_MALLOCED result once it has its copy. */
__attribute__((used, retain)) void vx_release_(void *pointer) { free(pointer); }
