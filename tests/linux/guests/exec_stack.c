/* Runs code that it writes to its stack, again after changing it: as gcc's nested functions do. */
#include <string.h>

static const unsigned char answer[] = {0xb8, 1, 0, 0, 0, 0xc3}; /* mov $1, %eax; ret */

int main(void) {
    unsigned char code[sizeof answer];
    int sum = 0;
    for (unsigned char i = 1; i <= 6; i++) {
        memcpy(code, answer, sizeof answer);
        code[1] = i;
        __asm__ volatile("call *%1" : "=&a"(sum) : "r"(code), "0"(sum) : "memory", "cc");
        if (sum != i)
            return 99;
    }
    return 42;
}
