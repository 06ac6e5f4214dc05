/* SIGTRAP after every instruction of this thread. */
#ifndef TRAP_FLAG_H
#define TRAP_FLAG_H

static inline void set_trap_flag(void) { __asm__ volatile("pushfq\n orl $0x100, (%%rsp)\n popfq" : : : "memory", "cc"); }
static inline void clear_trap_flag(void) { __asm__ volatile("pushfq\n andl $~0x100, (%%rsp)\n popfq" : : : "memory", "cc"); }

#endif
