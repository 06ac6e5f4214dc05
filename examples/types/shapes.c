#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <vxplug.h>

VX_MODULE_DOC("Every kind of type that an interface can have, in one small plugin.");

typedef enum { OPEN, CLOSED } kind;
typedef struct point { double x, y; } point;
typedef struct path path;

VX_DOC(distance, "How far two points are apart.");
VX_EXPORT double distance(point a, const point *b) { return hypot(a.x - b->x, a.y - b->y); }

VX_OUT(divide, remainder);
VX_EXPORT int32_t divide(int32_t a, int32_t b, int32_t *remainder) {
    if (b == 0 || (a == INT32_MIN && b == -1)) {
        vx_raise(VX_ValueError, "no quotient of %d and %d", (int)a, (int)b);
        return 0;
    }
    *remainder = a % b;
    return a / b;
}

VX_EXPORT void scale(vx_mut_array_f64 numbers, double factor) {
    for (size_t i = 0; i < numbers.len; i++) numbers.ptr[i] *= factor;
}

VX_EXPORT double integrate(double (*f)(double), double from, double to, uint32_t steps) {
    double sum = 0, width = (to - from) / steps;
    for (uint32_t i = 0; i < steps; i++) sum += f(from + (i + 0.5) * width);
    return sum * width;
}

VX_IMPORT(void, notify, (const char *what, kind k));

/* A handle: Python holds it, and only this file knows what it is. */
struct path {
    point *points;
    uint32_t count;
};
static void path_free(path *p) {
    free(p->points);
    free(p);
}
VX_HANDLE(path, path_free);
VX_METHOD(path, path_add, add);
VX_METHOD(path, path_length, length);
VX_METHOD(path, path_describe, describe);

VX_EXPORT path *path_new(void) {
    path *p = calloc(1, sizeof *p);
    if (!p) vx_raise(VX_MemoryError, "no path");
    return p;
}

VX_EXPORT uint32_t path_add(path *self, point p) {
    point *points = realloc(self->points, (self->count + 1) * sizeof *points);
    if (!points) {
        vx_raise(VX_MemoryError, "no point");
        return 0;
    }
    self->points = points;
    points[self->count++] = p;
    return self->count;
}

VX_EXPORT double path_length(path *self, kind k) {
    double sum = 0;
    for (uint32_t i = 1; i < self->count; i++) sum += distance(self->points[i - 1], &self->points[i]);
    if (k == CLOSED && self->count > 1) sum += distance(self->points[self->count - 1], &self->points[0]);
    notify("length", k);
    return sum;
}

/* A stream: each line is made when Python asks for it. */
VX_EXPORT vx_stream path_describe(path *self) {
    char line[80];
    for (uint32_t i = 0; i < self->count; i++) {
        int size = snprintf(line, sizeof line, "%g %g\n", self->points[i].x, self->points[i].y);
        if (!vx_yield(line, (size_t)size)) break;
    }
    return VX_END;
}
