/* What -fsanitize=undefined calls: says what went wrong in compiler-rt's words, and ends the call by abort().
 *
 * The toolchain's own runtime goes on from its message to read the program's file, which a plugin may not, so that the
 * message came in the wrong exception; and it takes longer to build than a plugin.  Names, arguments and structures are
 * those of LLVM's compiler-rt (lib/ubsan/ubsan_handlers.h, ubsan_value.h), which gcc keeps to as well. */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* This file is compiled with the plugin's own flags, and must not check itself. */
#define UNCHECKED __attribute__((no_sanitize("undefined")))

typedef struct { const char *file; uint32_t line, column; } place;
typedef struct { uint16_t kind, info; char name[]; } type; /* the name has its quotes */
typedef uint32_t value;                                    /* itself, or the address of one that is wider */

enum { INTEGER = 0, FLOATING = 1 };

UNCHECKED __attribute__((noreturn, format(printf, 2, 3))) static void end(const place *at, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%u:%u: runtime error: ", at->file ? at->file : "?", (unsigned)at->line, (unsigned)at->column);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

/* ---- values ---- */

typedef struct { char text[64]; } shown;

UNCHECKED static int width_of(const type *t) { return t->kind == INTEGER ? 1 << (t->info >> 1) : t->info; }

UNCHECKED static uint64_t bits_of(const type *t, value v) {
    if (t->kind != INTEGER) return 0;
    if (width_of(t) > 32) return *(const uint64_t *)(uintptr_t)v;
    return v & UINT32_MAX >> (32 - width_of(t));
}

UNCHECKED static int64_t signed_of(const type *t, value v) {
    int spare = 64 - width_of(t);
    return (int64_t)(bits_of(t, v) << spare) >> spare;
}

UNCHECKED static int is_negative(const type *t, value v) {
    return t->kind == INTEGER && (t->info & 1) && width_of(t) <= 64 && signed_of(t, v) < 0;
}

UNCHECKED static long double floating_of(const type *t, value v) {
    union { uint32_t bits; float number; } narrow = {v};
    if (width_of(t) <= 32) return narrow.number;
    return width_of(t) == 64 ? *(const double *)(uintptr_t)v : *(const long double *)(uintptr_t)v;
}

UNCHECKED static shown show(const type *t, value v) {
    shown s;
    if (t->kind == FLOATING && width_of(t) >= 32) snprintf(s.text, sizeof s.text, "%Lg", floating_of(t, v));
    else if (t->kind != INTEGER || width_of(t) > 64) snprintf(s.text, sizeof s.text, "a value of %.40s", t->name);
    else if (t->info & 1) snprintf(s.text, sizeof s.text, "%lld", (long long)signed_of(t, v));
    else snprintf(s.text, sizeof s.text, "%llu", (unsigned long long)bits_of(t, v));
    return s;
}

/* ---- what the compiler calls ---- */

/* A handler ends the call whether or not the compiler expected it to come back.  Weak: a runtime that the link names
 * goes first. */
#define HANDLER(what, ...) \
    __attribute__((weak, noreturn)) void what(__VA_ARGS__) __asm__("__ubsan_handle_" #what); \
    __attribute__((weak, noreturn, alias("__ubsan_handle_" #what))) void what##_abort(__VA_ARGS__) \
        __asm__("__ubsan_handle_" #what "_abort"); \
    UNCHECKED void what(__VA_ARGS__)

typedef struct { place at; } placed;
typedef struct { place at; const type *type; } typed;
typedef struct { place at; const type *left, *right; } typed_twice;
typedef struct { place at; const type *type; uint8_t log_alignment, use; } typed_use;
typedef struct { place at, assumed; const type *type; } assumption;
typedef struct { place at; const type *from, *to; uint8_t how; } conversion;
typedef struct { place at; uint8_t which; } builtin;
typedef struct { place at, declared; int number; } argument;

#define ARITHMETIC(what, sign) \
    HANDLER(what##_overflow, const typed *d, value left, value right) { \
        end(&d->at, "%s integer overflow: %s " sign " %s cannot be represented in type %s", \
            d->type->info & 1 ? "signed" : "unsigned", show(d->type, left).text, show(d->type, right).text, d->type->name); \
    }
ARITHMETIC(add, "+")
ARITHMETIC(sub, "-")
ARITHMETIC(mul, "*")

HANDLER(negate_overflow, const typed *d, value old) {
    end(&d->at, "negation of %s cannot be represented in type %s", show(d->type, old).text, d->type->name);
}

HANDLER(divrem_overflow, const typed *d, value left, value right) {
    if (is_negative(d->type, right))
        end(&d->at, "division of %s by -1 cannot be represented in type %s", show(d->type, left).text, d->type->name);
    end(&d->at, "division by zero");
}

HANDLER(shift_out_of_bounds, const typed_twice *d, value left, value right) {
    shown number = show(d->left, left), count = show(d->right, right);
    if (is_negative(d->right, right)) end(&d->at, "shift exponent %s is negative", count.text);
    if (bits_of(d->right, right) >= (uint64_t)width_of(d->left))
        end(&d->at, "shift exponent %s is too large for %d-bit type %s", count.text, width_of(d->left), d->left->name);
    if (is_negative(d->left, left)) end(&d->at, "left shift of negative value %s", number.text);
    end(&d->at, "left shift of %s by %s places cannot be represented in type %s", number.text, count.text, d->left->name);
}

HANDLER(out_of_bounds, const typed_twice *d, value index) {
    end(&d->at, "index %s out of bounds for type %s", show(d->right, index).text, d->left->name);
}

static const char *const uses[] = {
    "load of", "store to", "reference binding to", "member access within", "member call on", "constructor call on",
    "downcast of", "downcast of", "upcast of", "cast to virtual base of", "_Nonnull binding to", "dynamic operation on",
};

HANDLER(type_mismatch_v1, const typed_use *d, value pointer) {
    const char *use = d->use < sizeof uses / sizeof *uses ? uses[d->use] : "use of";
    uint32_t alignment = 1u << (d->log_alignment & 31);
    if (pointer == 0) end(&d->at, "%s null pointer of type %s", use, d->type->name);
    if (pointer % alignment)
        end(&d->at, "%s misaligned address %#x for type %s, which requires %u byte alignment", use, (unsigned)pointer,
            d->type->name, (unsigned)alignment);
    end(&d->at, "%s address %#x with insufficient space for an object of type %s", use, (unsigned)pointer, d->type->name);
}

HANDLER(alignment_assumption, const assumption *d, value pointer, value alignment, value offset) {
    end(&d->at, "assumption of %u byte alignment (with offset of %u byte) for pointer %#x of type %s failed",
        (unsigned)alignment, (unsigned)offset, (unsigned)pointer, d->type->name);
}

HANDLER(pointer_overflow, const placed *d, value base, value result) {
    if (base == 0 && result == 0) end(&d->at, "applying zero offset to null pointer");
    if (base == 0) end(&d->at, "applying non-zero offset %u to null pointer", (unsigned)result);
    if (result == 0) end(&d->at, "applying non-zero offset to non-null pointer %#x produced null pointer", (unsigned)base);
    end(&d->at, "pointer index expression with base %#x overflowed to %#x", (unsigned)base, (unsigned)result);
}

HANDLER(builtin_unreachable, const placed *d) { end(&d->at, "execution reached an unreachable program point"); }

HANDLER(missing_return, const placed *d) {
    end(&d->at, "execution reached the end of a value-returning function without returning a value");
}

HANDLER(vla_bound_not_positive, const typed *d, value bound) {
    end(&d->at, "variable length array bound evaluates to non-positive value %s", show(d->type, bound).text);
}

HANDLER(float_cast_overflow, const typed_twice *d, value from) {
    end(&d->at, "%s is outside the range of representable values of type %s", show(d->left, from).text, d->right->name);
}

HANDLER(load_invalid_value, const typed *d, value loaded) {
    end(&d->at, "load of value %s, which is not a valid value for type %s", show(d->type, loaded).text, d->type->name);
}

HANDLER(implicit_conversion, const conversion *d, value from, value to) {
    end(&d->at, "implicit conversion from type %s of value %s to type %s changed the value to %s", d->from->name,
        show(d->from, from).text, d->to->name, show(d->to, to).text);
}

HANDLER(invalid_builtin, const builtin *d) {
    if (d->which == 2) end(&d->at, "assumption is violated during execution");
    end(&d->at, "passing zero to __builtin_%s(), which is not a valid argument", d->which ? "clz" : "ctz");
}

HANDLER(function_type_mismatch, const typed *d, value function) {
    end(&d->at, "call to function at %#x through pointer to incorrect function type %s", (unsigned)function, d->type->name);
}

#define NULLITY(kind, word) \
    HANDLER(kind##_arg, const argument *d) { \
        end(&d->at, "null pointer passed as argument %d, which is declared " word, d->number); \
    } \
    HANDLER(kind##_return_v1, const placed *d, const place *at) { \
        (void)d; \
        end(at, "null pointer returned from function declared " word); \
    }
NULLITY(nonnull, "to never be null")
NULLITY(nullability, "as _Nonnull")
