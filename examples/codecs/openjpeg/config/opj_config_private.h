/* What upstream's CMake would write: little-endian, POSIX, no worker threads. */
#define OPJ_PACKAGE_VERSION "2.5.2"
#define OPJ_HAVE_POSIX_MEMALIGN
#define _POSIX_C_SOURCE 200112L
