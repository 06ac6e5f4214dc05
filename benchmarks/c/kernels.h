/* One kernel for each thing that a translator may do badly. */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdint.h>

/* Each returns a checksum, which all builds must agree on. */
#define KERNELS(K) \
    K(fib)         /* direct calls and returns */ \
    K(indirect)    /* calls through a table of functions */ \
    K(quicksort)   /* a callback a comparison, unpredictable branches */ \
    K(chase)       /* loads that depend on loads */ \
    K(stream)      /* loads that do not */ \
    K(wide)        /* 64-bit arithmetic on 32-bit registers */ \
    K(matrix)      /* doubles */

#endif
