/* Stands in for sdk/lib when a codec is built as a native library, to compare and to time.
 * Keeps the first error of a call where the caller finds it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <vxplug.h>

char vx_error_name[64], vx_error_text[256];

vx_bytes vx_raise_(const char *exception, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    if (!vx_error_name[0]) {
        snprintf(vx_error_name, sizeof vx_error_name, "%s", exception);
        vsnprintf(vx_error_text, sizeof vx_error_text, format, arguments);
    }
    va_end(arguments);
    return vx_borrow(NULL, 0);
}

void vx_release_(void *ptr) { free(ptr); }
