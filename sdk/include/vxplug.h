/* The vxplug guest SDK.  Include this, mark functions VX_EXPORT, build with `vxplug build`.
 *
 *   C parameter                      Python argument
 *   int8_t .. int64_t, unsigned      int, OverflowError when out of range
 *   bool                             bool (by truth value)
 *   float, double                    float
 *   const char *                     str, passed as UTF-8; an embedded NUL is ValueError
 *   vx_view                          any C-contiguous bytes-like object, read only
 *   vx_mut                           any writable bytes-like object; changes reach the caller
 *
 *   enum                             int or enum.IntEnum made for the plugin
 *   struct, union; const struct *    a frozen dataclass made for the plugin; a union class
 *   struct *, VX_INOUT(T *)          the same, and one more result: what the function left there
 *   VX_OUT(T *)                      no argument, one more result
 *   function pointer                 any callable, to be called until the function returns
 *   pointer to a VX_HANDLE           an object of the class made for it, not yet closed, of this sandbox
 *   vx_array_i32 and its like        a buffer of exactly such numbers: array.array, NumPy, memoryview
 *   vx_mut_array_i32                 a writable one; changes reach the caller
 *
 * Results: void (None), the scalars above, const char * (str; NULL is None), vx_bytes (bytes), enums,
 * structs by value and by pointer (a copy; NULL is None), vx_new_array_i32 (array.array),
 * pointers to handles, vx_stream (an iterator of bytes). */
#ifndef VXPLUG_H
#define VXPLUG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "vx_abi.h"

#ifdef __cplusplus
#define VX_EXTERN_C extern "C"
#else
#define VX_EXTERN_C
#endif

/* Marks a function for the interface note: the build takes every function in this section. */
#define VX_EXPORT VX_EXTERN_C __attribute__((used, retain, visibility("default"), section("vx_export")))

/* The docstring of an exported function, or of the module (VX_MODULE_DOC). */
#define VX_DOC(function, text) \
    VX_EXTERN_C __attribute__((used, retain)) const char vx_doc_##function[] = text
#define VX_MODULE_DOC(text) VX_EXTERN_C __attribute__((used, retain)) const char vx_module_doc[] = text

/* What C cannot say of a pointer parameter.  A pointer to a struct needs neither: it is read, and,
 * if not const, given back as well.
 *   VX_OUT     the function only writes it: no Python parameter, one more result
 *   VX_INOUT   of a pointer to a number or enum: one value, read and given back */
#define VX_OUT(function, parameter) VX_DECLARE_(out, function, parameter)
#define VX_INOUT(function, parameter) VX_DECLARE_(inout, function, parameter)
/* None is allowed, and is NULL here: of pointers, const char *, vx_view, vx_mut and vx_array parameters. */
#define VX_NULLABLE(function, parameter) VX_DECLARE_(nullable, function, parameter)
/* Pointers to `type` are handles: objects that only the plugin looks into, with `destroy`, of type
 * void (type *), to be called once when Python closes or forgets them; NULL for what another object owns.
 * They die when the sandbox is closed or reset, without a call.  `type` is a name of its own, a typedef's.
 * VX_METHOD makes an exported function whose first parameter is the handle a method of the object. */
#define VX_HANDLE(type, destroy) \
    VX_EXTERN_C __attribute__((used, retain)) void (*const vx_handle_##type)(type *) = destroy
#define VX_METHOD(type, function, name) \
    VX_EXTERN_C __attribute__((used, retain)) const char vx_declare_method_##type##_##name[] = \
        "method " #type " " #function " " #name
#define VX_DECLARE_(word, function, parameter) \
    VX_EXTERN_C __attribute__((used, retain)) const char vx_declare_##word##_##function##_##parameter[] = \
        #word " " #function " " #parameter

typedef struct vx_view { const void *ptr; size_t len; } vx_view;
typedef struct vx_mut { void *ptr; size_t len; } vx_mut;
typedef struct vx_bytes { void *ptr; size_t len; uint32_t owner; } vx_bytes;

/* Result that the plugin owns by malloc: the host copies it out, then frees it. */
static inline vx_bytes vx_take(void *ptr, size_t len) {
    vx_bytes bytes = {ptr, len, VX_MALLOCED};
    return bytes;
}

/* Result in storage that outlives the call and stays the plugin's. */
static inline vx_bytes vx_borrow(const void *ptr, size_t len) {
    vx_bytes bytes = {(void *)ptr, len, VX_BORROWED};
    return bytes;
}

/* Declares a function that the host gives, VX_IMPORT(int32_t, lookup, (const char *key)), to be called as
 * any other.  Loading the plugin without it fails.  Not to be called from constructors. */
#define VX_IMPORT(result, name, parameters) \
    VX_EXTERN_C result name parameters; \
    VX_EXTERN_C __attribute__((used, retain, weak)) result (*const vx_import_##name) parameters = name; \
    __asm__(".pushsection .text.vx_import, \"ax\", @progbits\n" \
            ".weak " #name "\n.type " #name ", @function\n" #name ":\n" \
            "movl $" VX_STRING_(VX_HC_IMPORT) ", %eax\nmovl $" #name ", %ecx\n" \
            "int $" VX_STRING_(VX_HOSTCALL_VECTOR) "\nud2\n.size " #name ", .-" #name "\n.popsection")
#define VX_STRING_(number) VX_STRING_OF_(number)
#define VX_STRING_OF_(number) #number

/* Arrays of numbers, for i8 to u64, f32 and f64: in, in and out, and as a result. */
#define VX_ARRAY_(code, type) \
    typedef struct vx_array_##code { const type *ptr; size_t len; } vx_array_##code; \
    typedef struct vx_mut_array_##code { type *ptr; size_t len; } vx_mut_array_##code; \
    typedef struct vx_new_array_##code { type *ptr; size_t len; uint32_t owner; } vx_new_array_##code; \
    static inline vx_new_array_##code vx_take_##code(type *ptr, size_t len) { \
        vx_new_array_##code array = {ptr, len, VX_MALLOCED}; \
        return array; \
    } \
    static inline vx_new_array_##code vx_borrow_##code(const type *ptr, size_t len) { \
        vx_new_array_##code array = {(type *)ptr, len, VX_BORROWED}; \
        return array; \
    }
VX_ARRAY_(i8, int8_t)
VX_ARRAY_(u8, uint8_t)
VX_ARRAY_(i16, int16_t)
VX_ARRAY_(u16, uint16_t)
VX_ARRAY_(i32, int32_t)
VX_ARRAY_(u32, uint32_t)
VX_ARRAY_(i64, int64_t)
VX_ARRAY_(u64, uint64_t)
VX_ARRAY_(f32, float)
VX_ARRAY_(f64, double)

/* A result in pieces: a function that returns vx_stream calls vx_yield for each, and `return VX_END;`.  Python
 * gets an iterator of bytes; the function runs, on a stack of 256 KiB of its own, only while a piece is
 * asked for.  vx_yield is false when nobody wants more: clean up and return.  The host copies the piece
 * before the function goes on.  Arguments stay until the stream is closed; there are no outputs or callbacks. */
typedef enum vx_stream { VX_END } vx_stream;
VX_EXTERN_C bool vx_yield(const void *data, size_t size);

/* Makes the running call end in the Python exception VX_Name (any builtin exception).  It does
 * not jump: the function still returns, so that it can free what it holds; its result is
 * dropped.  The first error of a call is the one that is raised. */
VX_EXTERN_C vx_bytes vx_raise_(const char *exception, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
#define vx_raise(exception, ...) vx_raise_(exception, __VA_ARGS__)

#define VX_ArithmeticError "ArithmeticError"
#define VX_AssertionError "AssertionError"
#define VX_AttributeError "AttributeError"
#define VX_BufferError "BufferError"
#define VX_EOFError "EOFError"
#define VX_Exception "Exception"
#define VX_FileExistsError "FileExistsError"
#define VX_FileNotFoundError "FileNotFoundError"
#define VX_FloatingPointError "FloatingPointError"
#define VX_IndexError "IndexError"
#define VX_KeyError "KeyError"
#define VX_LookupError "LookupError"
#define VX_MemoryError "MemoryError"
#define VX_NotImplementedError "NotImplementedError"
#define VX_OSError "OSError"
#define VX_OverflowError "OverflowError"
#define VX_PermissionError "PermissionError"
#define VX_RecursionError "RecursionError"
#define VX_RuntimeError "RuntimeError"
#define VX_StopIteration "StopIteration"
#define VX_SystemError "SystemError"
#define VX_TimeoutError "TimeoutError"
#define VX_TypeError "TypeError"
#define VX_UnicodeDecodeError "UnicodeDecodeError"
#define VX_ValueError "ValueError"
#define VX_ZeroDivisionError "ZeroDivisionError"

#endif
