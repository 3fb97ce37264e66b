/* Rows, to those that add to them. */

#ifndef MULTICAST_EXPERT_ROWS_H
#define MULTICAST_EXPERT_ROWS_H

#include "fast.h"

#include <string.h>

typedef struct {
    PyObject_HEAD
    Py_ssize_t capacity;
    Py_ssize_t count;
    char refused; /* whether one found no room */
    long busy;    /* the process that receives into them; 0: none. In the child of a fork that call does not go on. */
    Py_ssize_t expected; /* how long messages were of late */
    Py_buffer memory;
    Py_buffer holds[4];
    int64_t *offsets;
    int32_t *lengths;
    int64_t *timestamps;
    int32_t *sources;
    PyObject *origins; /* a list of tuples */
    PyObject *places;  /* by origin, its index in the list */
    PyObject *last;    /* the one that was looked up last, which the list holds */
    Py_ssize_t last_place;
} Rows;

static inline Py_ssize_t
end_of(const Rows *rows)
{
    Py_ssize_t last = rows->count - 1;
    return last < 0 ? 0 : (Py_ssize_t)rows->offsets[last] + rows->lengths[last];
}

/* Return whether there is room for a payload, and note if there is none. */
static inline bool
has_room(Rows *rows, Py_ssize_t size)
{
    bool room = rows->count < rows->capacity && size <= rows->memory.len - end_of(rows);
    rows->refused = rows->refused || !room;
    return room;
}

/* Add a row, for which there is room. `place` is the index of its origin. */
static inline void
add_row(Rows *rows, const char *payload, Py_ssize_t size, Py_ssize_t place, long long timestamp)
{
    Py_ssize_t offset = end_of(rows);
    char *home = (char *)rows->memory.buf + offset;
    if (home != payload) {
        /* It may be in the rows already, further on. */
        memmove(home, payload, (size_t)size);
    }
    rows->offsets[rows->count] = offset;
    rows->lengths[rows->count] = (int32_t)size;
    rows->timestamps[rows->count] = timestamp;
    rows->sources[rows->count] = (int32_t)place;
    rows->count++;
}

bool begin_rows(Rows *rows);
void end_rows(Rows *rows);
Py_ssize_t place_of(Rows *rows, PyObject *origin);

#endif
