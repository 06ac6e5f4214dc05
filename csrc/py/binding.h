/* The binding's private header: its types, and its functions under the file that defines them.
 *
 * The GIL: every function here is entered with it held and returns with it held, hooks apart.
 * While vx_sandbox_create or vx_call runs, the hooks may release it and take it back; the
 * record of that is Call.suspended.  A free-threaded Python has none: its threads attach and detach by
 * the same calls, and lock.h says what guards the fields of the types below, there and here. */
#ifndef VXPLUG_BINDING_H
#define VXPLUG_BINDING_H

#include "compat.h"

#include <structmember.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vx.h"
#include "vx_abi.h"

/* The compiler lays the usual course of a call out in a line. */
#define USUALLY(x) __builtin_expect(!!(x), 1)

/* ---- limits ---- */

enum {
    /* Bytes of one value in guest memory, and layouts in layouts: SIZE_MAX, DEPTH_MAX of types.py. */
    MAX_LAYOUT = 1 << 20,
    MAX_DEPTH = 40,
    /* What C11 5.2.4.1 promises of any compiler; bounds the arrays of a call on the host stack. */
    MAX_PARAMETERS = 127,
    MAX_WORDS = 2 * MAX_PARAMETERS + 1, /* two for each parameter and the hidden result pointer */
    /* Leases of one call that need no allocation. */
    INLINE_LEASES = 4,
    /* Characters of a plugin's error message that reach Python: enough for any report. */
    MAX_ERROR_TEXT = 4096,
    /* How often a long call lets Python's signal handlers run, and how often a thread that
     * waits for a sandbox does: quick for a person at Ctrl-C, rare for the processor. */
    SIGNAL_CHECK_MS = 100,
    /* How often a call that is overdue in an errand interrupts the main thread: several times before
     * anybody waits for it, rare beside what else goes on there. */
    WAKE_MS = 50,
};
/* What is kept of a guest's end: bytes of its stack, enough for the frames that a traceback shows, and
 * of the last output on stderr, enough for the message of an assertion. */
#define EVIDENCE_STACK ((uint32_t)256 << 10)
#define EVIDENCE_TEXT 1024
/* sizeof(vx_bytes) on i386: pointer, length, owner. */
#define BYTES_RESULT_SIZE 12
#define VIEW_RESULT_SIZE 8 /* and of vx_view */
/* A `const char *` result is a name or a message; data travels in vx_bytes.  Messages of memory.c name both. */
#define MAX_STRING_RESULT ((size_t)64 << 20)
/* Bytes of all text that one struct points to. */
#define MAX_MEMBER_TEXT ((size_t)1 << 20)

/* Calls of a box did not end in the order in which they began: see box_astray. */
#define ASTRAY UINT32_MAX

/* ---- types ---- */

/* Whether a thread is in a section that lock.h guards. */
typedef bool Guard;

/* Module state: what would be a global. */
typedef struct State {
    PyTypeObject *plugin_type, *box_type, *function_type, *layout_type, *handle_type, *buffer_type;
    PyTypeObject *mapping_type;
    PyObject *array_type;       /* array.array */
    PyObject *builtins;         /* dict of the module: where vx_raise looks its names up */
    bool ends_callbacks;        /* a Python handler of SIGURG ends errands whose time is over */
    unsigned long main_thread;  /* ident of the thread that runs Python's signal handlers */
    unsigned forks;             /* how many forks this process descends from since the import */
    unsigned long forked_by;    /* ident of the thread that survived the last of them */
    struct Errand *errands;     /* of all threads but the main one, the newest first (errand.c) */
    Guard errands_guard;
    uint64_t woken_ms;          /* when the main thread was last woken to end them */
} State;

typedef struct Plugin {
    PyObject_HEAD
    PyObject *weakrefs;
    vx_plugin *core;
} Plugin;

/* Copies for the report of a guest's end: its memory is reset before anyone reads them. */
typedef struct Evidence {
    char *stack;               /* PyMem_Raw; NULL for none */
    uint32_t stack_at, stack_size;
    uint32_t text_size;
    char text[EVIDENCE_TEXT];  /* the end of what the call wrote to stderr */
} Evidence;

/* One use of a sandbox by the thread that holds its lock: a guest call, a reset or the
 * initialisation.  Lives on the host stack; Box.call points at it for the hooks.
 *
 * Whatever goes wrong while the lock is held is kept here and raised after it is released, so
 * that no Python code of an exception runs in the middle.  `error` wins over `faulted`, which
 * wins over `raised`, which wins over a result. */
typedef struct Call {
    struct Call *outer;        /* of the same thread, whose hook made this call; or NULL */
    uint32_t level;            /* how many such there are */
    vx_sandbox *serving;       /* while a system call's hook runs: Box.core may not be set yet */
    PyThreadState *suspended;  /* what PyEval_SaveThread gave, while the GIL is released */
    PyObject *error;           /* exception of a hook or of the host */
    PyObject *raised;          /* exception that the guest raised with vx_raise, the first */
    bool faulted;              /* guest code did not return: `trap` says why */
    const char *fault_text;    /* instead of the trap kind's own text */
    char fault_room[256];      /* for one that is made up */
    uint64_t lingers_ns;       /* since when, while `suspended` is of on_linger's doing; or 0 */
    uint64_t checked_ms;       /* when Python's signal handlers last had their turn */
    uint64_t until_ns;         /* when box_call_more has no time left; 0 before the first */
    vx_trap trap;
    Evidence evidence;
} Call;

typedef struct Box {
    PyObject_HEAD
    PyObject *weakrefs;
    State *state;              /* lives as long as our type, which holds the module */
    Plugin *plugin;
    PyObject *write, *trap;    /* the callables of the constructor; NULL only after tp_clear */
    PyObject *linux_call, *linux_trace, *new_life; /* the same, or NULL when there is none */
    PyObject *sample;          /* the profiler's callable, or NULL */
    vx_sandbox *core;          /* NULL: not yet made, closed, or given up after a fork */
    PyObject *broken;          /* str: why calls are refused until a reset, or NULL */
    uint64_t memory;           /* limits, for messages and of `lent` */
    uint64_t lent;             /* bytes copied from the guest for host functions that it calls now */
    uint64_t timeout_ns, init_timeout_ns;
    uint32_t stack_low;        /* lowest address of the guest's stack */
    uint32_t release;          /* guest address of vx_release_, or 0 */
    struct Slot *slots;        /* host functions that the guest may call (callback.c): imports, then */
    uint32_t slot_count;       /* callbacks that running calls lend, the innermost's last */
    uint32_t slot_room;
    PyObject *handles;         /* dict from guest address to weak reference of the Handle */
    struct Grave *graves;      /* destructors to be run when the outermost call is over (handle.c) */
    size_t grave_count;
    bool left;                 /* there are graves, or Shared without memory: box_leave_work */
    struct Shared *shared;     /* memory of Buffers and Mappings (buffer.c) */
    uint64_t generation;       /* how often the memory was replaced: what handles are good for */
    uint32_t next_callback;    /* where the next one's address is, so that old ones stay strange */
    bool poison;               /* after a fault refuse calls instead of resetting */
    bool faulted;              /* a nested call did: reset when the outermost is over */
    bool arena_used;           /* arguments to be forgotten when the outermost call is over */
    vx_trap_kind overdue;      /* why the running errand has to end, by the last tick (hooks.c) */
    /* The lock: one call at a time.  `owner` is what counts; mutex and condition only put waiting
     * threads to sleep (lock.c). */
    unsigned long owner;       /* thread ident, 0 when free */
    unsigned forks;            /* State.forks when the lock was last known to be sound */
    unsigned waiters;
    Guard guard;               /* of what is not the owner's alone (lock.h) */
    pthread_mutex_t mutex;
    pthread_cond_t freed;
    Call *call;                /* what the owner does, innermost */
    uint32_t level;            /* of that call; or ASTRAY, until the last one is over */
    uint32_t open;             /* how many are not, then */
} Box;

typedef enum Code {
#define CODE(name, text, ctype, words, class, low, high) CODE_##name,
#include "codes.def"
#undef CODE
    CODE_COUNT
} Code;

/* What a Layout describes.  Those before POINTER stand in memory, the rest in parameters. */
typedef enum Kind {
    KIND_SCALAR, KIND_ENUM, KIND_STRUCT, KIND_UNION, KIND_ARRAY,
    KIND_CHARS,                /* char[n]: bytes up to the first NUL */
    KIND_BYTES,                /* uint8_t[n]: bytes */
    KIND_TEXT,                 /* const char * in a struct: str or None */
    KIND_POINTER,
    KIND_FUNCTION,             /* pointer to a function of the type of `prototype` */
    KIND_HANDLE,               /* pointer to an object that only the guest looks into */
    KIND_STREAM,               /* a result in pieces; `target` is the handle of what makes them */
    KIND_NUMBERS,              /* pointer and count of `code`: vx_array */
    KIND_COUNT
} Kind;

struct Layout;

typedef struct Member {
    PyObject *name;            /* interned str */
    struct Layout *type;
    uint32_t bit;              /* offset from the start of the struct */
    uint8_t bits;              /* width of a bit-field, else 0 */
} Member;

/* A C type in guest memory.  Immutable after creation, and made of finished ones, so acyclic. */
typedef struct Layout {
    PyObject_HEAD
    uint8_t kind;              /* Kind */
    uint8_t code;              /* Code of a scalar or of what holds an enum */
    uint8_t depth;             /* of layouts below */
    bool in, out;              /* of what is pointed to: read, given back */
    bool text;                 /* has a KIND_TEXT, or is one */
    uint32_t size;             /* bytes in guest memory, at most MAX_LAYOUT */
    uint32_t count;            /* items, members */
    PyObject *class;           /* of enum, struct, union */
    PyObject *values;          /* of an enum: dict from number to member */
    struct Layout *target;     /* items, what is pointed to */
    struct Function *prototype;
    uint32_t destroy;          /* guest address of a handle's destructor, or 0 */
    uint32_t open, alloc;      /* of a stream: functions of sdk/lib/vx_stream.c */
    Member *members;
} Layout;

/* Where a value belongs, for messages: a root, then what leads into it. */
typedef struct Place {
    const struct Place *outer;
    PyObject *owner;           /* root: name before `role`; NULL for what an import gave */
    const char *role;          /* root: "() argument" or another */
    bool given;                /* root: what a callback gave that was passed there */
    PyObject *name;            /* root or member */
    Py_ssize_t item;           /* when there is no name */
} Place;

typedef struct Parameter {
    PyObject *name;            /* interned str */
    Layout *layout;            /* or NULL where the code says all */
    uint8_t code;              /* Code */
    uint8_t word;              /* index of its first word, the hidden pointer counted */
    uint8_t words;
    bool optional;             /* None is NULL */
    uint8_t out;               /* place among what the function gives back */
    int64_t low, high;         /* what convert_fast may take; an empty range but for integers */
} Parameter;

/* Immutable after creation: calls read it without precautions. */
typedef struct Function {
    PyObject_HEAD                  /* `box` is NULL: a prototype or unbound, and cannot be called */
    vectorcallfunc vectorcall;
    PyObject *weakrefs;
    Box *box;
    PyObject *name, *module, *doc, *text_signature;
    PyObject *signature; /* a callable that makes it, None or NULL */
    vx_gaddr address;
    uint64_t generation;           /* of the box, where the guest gave the address (pointer.c) */
    uint16_t parameter_count;  /* those that Python passes come first */
    uint16_t input_count;
    uint16_t word_count;       /* the hidden result pointer included */
    uint16_t lease_count;      /* parameters that live in guest memory */
    uint16_t out_count;        /* of those that are given back */
    uint16_t callback_count;
    bool uses_memory;          /* any of them, or the result does */
    uint8_t result;            /* Code */
    bool plain_result;         /* a number, or none */
    bool plain;                /* and so are the parameters */
    bool unbound;              /* an export, of no sandbox yet: function_bind */
    Layout *result_layout;     /* or NULL where the code says all */
    uint32_t result_size;      /* bytes behind the hidden pointer, or 0: there is none */
    Parameter *parameters;
} Function;

/* Base of the classes made for handles. */
typedef struct Handle {
    PyObject_HEAD
    PyObject *weakrefs;
    Box *box;                  /* NULL only while it is made */
    uint64_t generation;       /* of the box when the guest gave it */
    uint32_t address, destroy;
    uint32_t uses;             /* running calls that have it as an argument; the box's owner's */
    bool closed;
} Handle;

/* Host memory lent to a call, and where the guest has its copy. */
typedef struct Lease {
    Py_buffer buffer;          /* obj is NULL for a str, which the caller's reference holds */
    PyObject *object;          /* callback or handle, borrowed from the caller */
    void *owned;               /* or memory of our own that buffer.buf points at */
    vx_gaddr address;
    uint32_t texts, texts_from; /* of a struct in `owned`: how many texts it points to, where they begin */
    uint8_t parameter;
    bool resident;             /* the guest has no copy, but the bytes themselves: of a Buffer */
    bool none;                 /* NULL for the guest, and nothing is lent */
} Lease;

/* module.c, the module, its state and forks, has nothing that others call. */

/* ---- plugin.c: the type Plugin ---- */

extern PyType_Spec plugin_spec;

/* ---- box.c: the type Box ---- */

extern PyType_Spec box_spec;

/* The slow part of box_enter. */
bool box_enter_slow(Box *box, Call *call);
/* The slow part of box_leave, for the outermost call: forgets arguments, resets after a fault. */
void box_tidy(Box *box, Call *call);
/* Guest code did not return from `call`: poisons the sandbox or has it reset. */
void box_faulted(Box *box, Call *call, PyObject *who);
/* Python code that `call` had run came back, and the box is not where it was: keeps an error on the call. */
void box_astray(Box *box, Call *call);
/* Before guest code runs on: whether the box is where it was. */
static inline bool box_in_order(Box *box, Call *call)
{
    if (USUALLY(box->level == call->level))
        return true;
    box_astray(box, call);
    return false;
}
/* box_leave of such a call: the last one lets the box go, whichever it is. */
void box_leave_astray(Box *box, Call *call, PyObject *who);
/* With the box locked, and released if `release`: raises why it takes no calls.  Always false. */
bool box_refuse(Box *box, bool release);

/* Calls that one of Python's makes besides its own, as destructors and the making of a stream: a guest chooses how
 * many, so all together have the time of one call, and its output.  Takes the GIL back. */
vx_status box_call_more(Box *box, Call *call, uint32_t function, const uint32_t *words, size_t count, vx_result *result);
/* The box's list of work has more.  It is done now, or by whoever has the box locked when it lets go. */
void box_leave_work(Box *box);
void box_catch_up(Box *box);               /* the slow part of lock_release */
/* After box_leave: raises what the call kept; always false. */
bool box_raise(Box *box, Call *call, PyObject *who);

/* ---- lock.c: who uses a box ---- */

#include "lock.h"

/* ---- box.c again: its hot part ---- */

static inline void call_init(Call *call)
{
    call->outer = NULL;
    call->level = 0;
    call->serving = NULL;
    call->suspended = NULL;
    call->error = call->raised = NULL;
    call->faulted = false;
    call->fault_text = NULL;
    call->lingers_ns = 0;
    call->checked_ms = 0;
    call->until_ns = 0;
    call->evidence.stack = NULL;
    call->evidence.text_size = 0;
}

/* With the box locked. */
static inline bool box_usable(const Box *box)
{
    return USUALLY(box->core != NULL && box->broken == NULL) && !box->faulted;
}

/* Locks the box for `call`, which may be made by a hook of another call of this thread.  False
 * with an exception: closed or broken. */
static inline bool box_enter(Box *box, Call *call)
{
    call_init(call);
    if (!USUALLY(lock_try(box, thread_ident())))
        return box_enter_slow(box, call);
    if (!USUALLY(box_usable(box)))
        return box_refuse(box, true);
    box->call = call;
    return true;
}

/* Unlocks.  Raises nothing: box_outcome does, when the lock is free again. */
static inline void box_leave(Box *box, Call *call, PyObject *who)
{
    if (!USUALLY(box->level == call->level)) {
        box_leave_astray(box, call, who);
        return;
    }
    if (call->faulted)
        box_faulted(box, call, who);
    if (call->outer == NULL && (box->arena_used || box->faulted || PEEK(box->left)))
        box_tidy(box, call);
    box->call = call->outer;
    box->level -= call->outer != NULL;
    if (call->outer == NULL)
        lock_release(box);
}

/* The usual end of a call that borrowed nothing: the GIL was kept, nothing went wrong or waits to be
 * tidied, and no other call is around it.  False: nothing was done. */
static inline bool box_leave_plain(Box *box, Call *call)
{
    if (((uintptr_t)call->outer | (uintptr_t)call->suspended | (uintptr_t)call->error
         | (uintptr_t)call->raised | box->arena_used | box->faulted | PEEK(box->left)) != 0)
        return false;
    box->call = NULL;
    lock_release(box);
    return true;
}

/* True when nothing went wrong, else raises what did. */
static inline bool box_outcome(Box *box, Call *call, PyObject *who)
{
    if (call->error == NULL && call->raised == NULL && !call->faulted)
        return true;
    return box_raise(box, call, who);
}

/* ---- hooks.c: what the core calls back; releasing and taking the GIL ---- */

extern const vx_hooks hooks_table;
/* A hook's view of a call that may or may not hold the GIL: takes it, and says whether it has to
 * be released again. */
bool hook_begin(Call *call);
/* False: the call has to end, with the error that it has. */
bool hook_end(Box *box, Call *call, bool released);
/* False with an exception when a call made by the hook's own callback broke the sandbox. */
bool hook_still_sound(const Box *box);
void gil_release(Call *call);
void gil_take_slow(Call *call);
uint64_t clock_ns(void);
uint64_t clock_ms(void);

static inline void gil_take(Call *call)
{
    if (call->suspended != NULL)
        gil_take_slow(call);
}

/* ---- process.c: what a Linux personality needs of a box ---- */

bool on_linux_call(void *context, vx_sandbox *core, uint32_t number, const uint32_t arguments[6],
                   int32_t *result);
void on_linux_trace(void *context, vx_sandbox *core, uint32_t number, const uint32_t arguments[6],
                    const int32_t *result);
PyObject *box_run(Box *self, PyObject *args);
PyObject *box_read(Box *self, PyObject *args);
PyObject *box_write(Box *self, PyObject *args);
PyObject *box_text(Box *self, PyObject *args);
PyObject *box_stopping(Box *self, PyObject *unused);
PyObject *box_output_room(Box *self, PyObject *size);
PyObject *linux_rows(PyObject *module, PyObject *unused);

/* ---- paths.c: opening files beneath a folder, reading folders ---- */

PyObject *open_beneath(PyObject *module, PyObject *args);
PyObject *file_system(PyObject *module, PyObject *args);
PyObject *directory_entries(PyObject *module, PyObject *args);

/* ---- function.c: the type Function, one call ---- */

extern PyType_Spec function_spec;
bool function_finish_type(PyTypeObject *type);
bool function_check(PyObject *object);
PyObject *function_vectorcall(PyObject *self, PyObject *const *args, size_t flagged, PyObject *keywords);
/* A function of the prototype's type in a box; its address is still to be set. */
/* The type of a function of the host's: what is possible differs. */
static inline bool function_is_prototype(const Function *self) { return self->box == NULL && !self->unbound; }
Function *function_of(const Function *prototype, Box *box, PyObject *name);
/* Keeps on the call what vx_call returned, not VX_OK; always NULL. */
void *call_failed(const Function *function, Call *call, vx_status status);

/* ---- pointer.c: functions that the guest gives by their address ---- */

/* The callable of an address that is not 0.  Takes over `name`; NULL if that is. */
PyObject *pointer_get(Box *box, const Function *prototype, PyObject *name, uint32_t address);

/* ---- arguments.c: arguments to parameters, as CPython matches them ---- */

/* Fills `bound` (one borrowed reference an input); false with a TypeError. */
bool arguments_bind(const Function *function, PyObject *const *args, Py_ssize_t count,
                    PyObject *keywords, PyObject **bound);

/* ---- convert.c: codes; scalars to words and back ---- */

Code code_parse(PyObject *text);           /* CODE_COUNT: no such code, or not without a layout */
/* Fills all but name, layout and first word; false when no parameter has the code. */
bool code_set_parameter(Code code, Parameter *parameter);
uint32_t code_size(Code code);             /* bytes of a scalar in memory, 0 for what is none */
bool code_is_leased(Code code);
bool code_is_result(Code code);
/* PyArg_Parse converter ("O&") to a uint32_t; ValueError when the number is not one. */
int convert_word(PyObject *value, void *out);
int convert_long_word(PyObject *value, void *out); /* the same to a uint64_t */
/* The common case, a small exact int in range; false says nothing more than use convert_scalar. */
static inline bool convert_fast(const Parameter *parameter, PyObject *value, uint32_t *words)
{
    if (!USUALLY(PyLong_CheckExact(value)))
        return false;
#if PY_VERSION_HEX >= 0x030C0000
    if (!USUALLY(PyUnstable_Long_IsCompact((PyLongObject *)value)))
        return false;
    int64_t number = PyUnstable_Long_CompactValue((PyLongObject *)value);
#else
    Py_ssize_t size = Py_SIZE(value);
    if (!USUALLY(size >= -1 && size <= 1))
        return false;
    int64_t number = size * (int64_t)((PyLongObject *)value)->ob_digit[0];
#endif
    if (!USUALLY(number >= parameter->low && number <= parameter->high))
        return false;
    words[0] = (uint32_t)number;
    if (!USUALLY(parameter->words == 1))
        words[1] = (uint32_t)((uint64_t)number >> 32);
    return true;
}

/* Runs the conversions of `value`, which may be Python code: never with a box locked. */
bool convert_scalar(const Function *function, unsigned index, PyObject *value, uint32_t *words);
/* The same for a value anywhere.  `code` is a scalar's; two words are written at most. */
bool convert_value(const Place *place, Code code, PyObject *value, uint32_t *words);
/* To a bit-field of `width` bits. */
bool convert_bits(const Place *place, Code code, unsigned width, PyObject *value, uint64_t *bits);
PyObject *convert_result_slow(Code code, const vx_result *result);
static inline PyObject *convert_result(Code code, const vx_result *result)
{
    if (USUALLY(code == CODE_I32))
        return PyLong_FromLong((int32_t)result->eax);
    return convert_result_slow(code, result);
}

/* ---- layout.c: the type Layout ---- */

extern PyType_Spec layout_spec;
bool layout_check(PyObject *object);       /* whether it is a Layout, of any interpreter */
Code layout_code(const Layout *layout);    /* of a parameter or result that has it */

/* ---- texts.c: text that structs point to ---- */

/* On the way in: the texts of one value, one behind the other, and (where in the struct, where in
 * `data`) of each pointer. */
typedef struct Texts {
    uint8_t *base;             /* the struct */
    char *data;                /* PyMem, as `places` */
    uint32_t *places, count;
    size_t size, room, places_room; /* bytes */
} Texts;

/* On the way out: whose memory, and how much text there may be yet; the last pointer to text.  With `failed`
 * it led to none, or to too much, and there is no exception. */
typedef struct Reader {
    vx_sandbox *core;
    size_t left;
    bool failed;
    uint32_t address;
} Reader;

/* `value` behind the pointer at `out`, a part of the struct. */
bool texts_add(Texts *texts, const Place *place, PyObject *value, uint8_t *out);
/* Gives the texts to the lease, which has the struct, if all went well; frees them. */
bool texts_finish(Texts *texts, bool ok, Lease *lease);
/* The lease has its address: sets the pointers of the guest's copy of the struct. */
void texts_link(const Lease *lease, uint8_t *target);
PyObject *texts_read(Reader *reader, uint32_t address);

/* ---- codec.c: values to the bytes of a layout and back ---- */

/* `out` holds layout->size bytes, all zero.  May run Python code: never with a box locked.  `texts` and
 * `reader` are for layouts with text, else NULL. */
bool codec_encode(const Place *place, const Layout *layout, PyObject *value, uint8_t *out, Texts *texts);
/* `in` is host memory that nothing changes meanwhile. */
PyObject *codec_decode(const Layout *layout, const uint8_t *in, Reader *reader);
bool codec_encode_member(const Place *place, const Member *member, PyObject *value, uint8_t *out, Texts *texts);
PyObject *codec_decode_member(const Member *member, const uint8_t *in, Reader *reader);
PyObject *codec_enum(const Layout *layout, PyObject *number); /* steals */
/* A scalar by the bits of its words; `layout` is an enum's or NULL. */
PyObject *codec_number(Code code, const Layout *layout, uint64_t bits);

/* ---- memory.c: arguments and results in guest memory ---- */

/* `value` is NULL for a parameter that Python does not pass. */
bool memory_lease(const Function *function, unsigned index, PyObject *value, Lease *lease);
void memory_end_leases(Lease *leases, unsigned count);
/* Which pointers of the host's its bytes are, "Python objects" or others, or NULL: none.  A guest would read where things
 * lie, and one that writes would choose where the host looks for them. */
const char *buffer_pointers(PyObject *value);
#define BUFFER_OF "expected a bytes-like object, got %s of %s"
bool lease_buffer(const Function *function, unsigned index, PyObject *value, int flags,
                  Lease *lease);
/* All of these with the box locked by `call`, which keeps the error when they return false. */
/* The words of a lease whose bytes have their place. */
bool memory_words(Function *function, Call *call, const Lease *lease, uint32_t *words);
bool memory_copy_in(Function *function, Call *call, Lease *leases, uint32_t *words);
bool memory_copy_out(const Function *function, Call *call, const Lease *leases);
/* Of guest memory, which a thread may be writing to through a Buffer: what is decoded is a copy. */
PyObject *memory_decode(const char *text, size_t size);
PyObject *memory_string_result(const Function *function, Call *call, uint32_t address);
PyObject *memory_owned_result(const Function *function, Call *call, uint32_t address);
/* The value of `layout` at `address`. */
PyObject *memory_struct_result(const Function *function, Call *call, const Layout *layout,
                               uint32_t address);
/* What a call with pointers to outputs gives: one value, or the tuple of the result, if the
 * function has one, and of what the pointers gave.  Steals `result`. */
PyObject *memory_outputs(const Function *function, Call *call, const Lease *leases,
                         PyObject *result);

/* ---- callback.c: host functions that the guest calls ---- */

/* `imports` is a sequence of (address of the stub, prototype, callable). */
bool callback_set_imports(Box *box, PyObject *imports);
/* With the box locked by `call`: the address for the guest, 0 with the error kept on the call. */
uint32_t callback_lend(Call *call, Function *function, unsigned index, PyObject *callable);
/* Everything that `call` lent is over. */
void callback_end(Box *box, const Call *call);
void callback_end_all(Box *box);           /* that any call lent */
void callback_free(Box *box);
int callback_traverse(Box *box, visitproc visit, void *arg);
/* For the hook, which holds the GIL. */
vx_callback_end callback_serve(Box *box, Call *call, vx_callback *callback);

/* ---- errand.c: host code that guests have run, on threads without signal handlers ---- */

/* Not on the stack of its thread, which may be another greenlet's meanwhile. */
typedef struct Errand {
    struct Errand *next;
    State *state;
    Box *box;                /* that has it run; its owner is the thread */
    unsigned long thread;    /* ident */
    bool whole;              /* not to be ended in the middle */
    bool ended;              /* an exception was sent, and may not have been raised yet */
} Errand;

/* Around it, by the hook that runs it, holding the GIL.  NULL: on the main thread, or without memory for it, it ends
 * when it returns, or in another way. */
Errand *errand_begin(Box *box, bool whole);
void errand_end(Errand *errand);
/* end_errands(timeout, interrupt): raises these classes in the errands that are overdue. */
PyObject *end_errands(PyObject *module, PyObject *args);
void errand_after_fork(State *state);

/* ---- visit.c: one call of a host function ---- */

typedef struct Visit {
    Box *box;
    Call *call;
    Function *prototype;     /* held */
    Function *lender;        /* held: it was lent as this function's argument `index`; or NULL for an import */
    unsigned index;
    PyObject *callable;      /* held */
    vx_callback *callback;
    uint32_t words[MAX_WORDS];
    PyObject *values[MAX_PARAMETERS];
    unsigned count;          /* of values that there are */
    uint64_t lent;           /* its part of Box.lent */
    bool bad_memory;         /* the guest passed a pointer to what is not its memory, or to too much */
} Visit;

/* All of it.  False with an exception, or with bad_memory. */
bool visit_run(Visit *visit);
/* What messages call the host function: "apply() argument 'each'" of a callback, "name()" of an import; a new str. */
PyObject *visit_name(const Visit *visit);
/* Guest memory that the guest said; any pointer that is not NULL for no bytes.  NULL with bad_memory. */
void *visit_memory(Visit *visit, uint32_t address, uint64_t size, int rights);

/* ---- answer.c: what a host function gives ---- */

/* `value` is what the callable returned.  Both as visit_run. */
bool answer_give(Visit *visit, PyObject *value);
/* What it wrote to the arrays it got for what the guest lends to be written; runs no Python code. */
bool answer_write_back(Visit *visit);

/* ---- handle.c: the type Handle ---- */

extern PyType_Spec handle_spec;
/* With the box locked: the living handle of the address, or a new one; None for 0. */
PyObject *handle_get(Box *box, const Layout *layout, uint32_t address);
/* With the box locked: the address for the guest; 0 with an exception: not to be used here. */
uint32_t handle_word(const Box *box, const Place *place, PyObject *value);
/* With the box locked: those among the arguments of a call that begins (1) or is over (-1). */
void handle_use(const Function *function, const Lease *leases, int calls);
/* With the box locked and its memory new: handles of before are dead, and what was to be destroyed is gone. */
void handle_forget_all(Box *box);
/* The destructors that had to wait, at the end of the outermost call. */
void handle_bury_all(Box *box, Call *outer);
void handle_free_graves(Box *box);

/* ---- stream.c: results in pieces ---- */

/* With the box locked: the stream of a function that gives its result in pieces. */
PyObject *stream_open(Function *function, Call *call, uint32_t *words, Lease *leases);

/* ---- numbers.c: arrays of numbers ---- */

bool numbers_lease(const Function *function, unsigned index, PyObject *value, Lease *lease);
/* Whether they are the layout's; else an exception. */
bool numbers_fit(const Place *place, const Layout *layout, const Py_buffer *buffer);
/* An array.array of `count` zeros, and its memory, which stays until the array is given away. */
PyObject *numbers_create(State *state, Code code, uint32_t count, void **memory);

/* ---- evidence.c: what is kept of a guest's end ---- */

/* The core's hook `ended`: the stack, by whatever thread runs the guest, with or without the GIL. */
void evidence_keep(void *context, vx_sandbox *core, const vx_trap *trap);
void evidence_output(Evidence *evidence, const void *data, size_t size);
/* Adds "stack", "stack_at" and "stderr" to the dict that the trap callable gets. */
bool evidence_report(const Evidence *evidence, PyObject *info);
void evidence_free(Evidence *evidence);

/* ---- buffer.c: the type Buffer, memory that a sandbox and Python share ---- */

extern PyType_Spec buffer_spec;
PyObject *box_buffer(Box *self, PyObject *size);
/* With the box locked: whether the bytes of `view` are all in one of the box's Buffers, at a multiple of
 * `unit`, and where the guest has them. */
bool buffer_find(Box *box, const Py_buffer *view, size_t unit, vx_gaddr *address);
/* With the box locked: unmaps from the guest what was released while it ran. */
void buffer_sweep(Box *box);
void buffer_free_all(Box *box);

/* Memory that host and guest have a mapping of each. */
typedef struct Shared {
    struct Shared *next;
    char *memory;              /* the host's mapping; NULL when it was released, by any thread */
    size_t size;
    vx_gaddr address;          /* the guest's mapping, in the box's generation */
    uint64_t generation;
    bool outside;              /* a Mapping's: the guest only reads, and the host does not look */
} Shared;

/* Buffer and Mapping. */
typedef struct Holder {
    PyObject_HEAD
    PyObject *weakrefs;
    Box *box;
    Shared *shared;            /* NULL: given up, or empty */
    bool closed;               /* given up */
    Py_ssize_t uses;           /* calls and views that have it; each holds the object */
    Guard guard;
} Holder;

extern PyMemberDef holder_members[];
PyObject *holder_enter(PyObject *self, PyObject *unused);
Py_ssize_t holder_length(Holder *self);
Py_ssize_t holder_give_up(Holder *self);   /* 0, or the number of uses for which it cannot */
/* One more use.  False, with or without an exception: given up, or `flags` ask for what is not there. */
bool holder_lend(Holder *self, bool read_only, Py_buffer *view, int flags);
void holder_take_back(Holder *self);
int holder_traverse(Holder *self, visitproc visit, void *arg);
void holder_dealloc(Holder *self);

/* With the box locked: takes over `memory`, a mapping of the host's; NULL with an exception. */
Shared *shared_add(Box *box, void *memory, size_t size, bool outside);
/* With the box locked: the guest's mapping, or false and a GuestMemoryError of `what`. */
bool shared_map(Box *box, Shared *shared, const char *what);

/* ---- mapping.c: the type Mapping, files and shared memory that a sandbox reads ---- */

extern PyType_Spec mapping_spec;
PyObject *box_map(Box *self, PyObject *args);
/* A Mapping of the function's own sandbox: an address for buffer_find in place of a buffer, not to be looked
 * at.  False, without an exception: anything else. */
bool mapping_lend(const Function *function, PyObject *value, int flags, Py_buffer *view);
bool mapping_lent(const Box *box, const Py_buffer *view);

/* ---- errors.c: exceptions ---- */

/* The current exception with its traceback, no longer current; and back. */
PyObject *error_take(void);
void error_restore(PyObject *exception);   /* steals */
/* Keeps the current exception for after the call; the first one wins. */
void error_keep(Call *call);
/* "NAME() argument 'PARAMETER': …", always false. */
bool error_argument(const Function *function, unsigned index, PyObject *type,
                    const char *format, ...);
/* The same for a place: "OWNER ROLE 'PATH': …", or "result of 'PATH': …" without a role. */
bool error_place(const Place *place, PyObject *type, const char *format, ...);
Place place_argument(const Function *function, unsigned index);
/* vxplug.errors.NAME, a new reference; and raising it. */
PyObject *error_class(const char *name);
void error_vxplug(const char *name, const char *format, ...);
/* A core status other than VX_OK and VX_TRAP. */
void error_status(vx_status status, const char *what);
PyObject *registers_dict(const vx_registers *registers);
/* The exception for the end of guest code, from the box's `trap` callable. */
void error_trap(Box *box, const Call *call, PyObject *who);
/* New exception object for vx_raise; NULL with an exception when the host is out of memory. */
/* The current exception, of the guest's making, for where Python prints it: its text escaped. */
void error_escape(void);
PyObject *error_of_guest(State *state, const char *name, size_t name_size, const char *text,
                         size_t size);
/* Guest code returned, but what it returned cannot be used: a fault at `address`. */
bool error_fault(const Function *function, Call *call, uint32_t address, const char *text);

/* tools.c */
PyObject *sample_info(const Box *box, const vx_registers *at); /* inside the tick hook */
void sample_set(Box *box, PyObject *sample);                   /* NULL: no profiler any more */
PyObject *sample_get(Box *box);                                /* new reference, NULL for none */
PyObject *box_profile(Box *self, PyObject *sample);
PyObject *box_translation(Box *self, PyObject *args);
PyObject *plugin_places(Plugin *self, PyObject *unused);

#endif
