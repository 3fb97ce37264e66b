/* Rows, to those that add to them. */

#ifndef MULTICAST_EXPERT_ROWS_H
#define MULTICAST_EXPERT_ROWS_H

#include "fast.h"

#include <string.h>

typedef struct {
    PyObject_HEAD
    Py_ssize_t capacity;
    Py_ssize_t count;
    Py_ssize_t end; /* of the last payload */
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

/* Return whether there is room for a payload, and note if there is none. */
static inline bool
has_room(Rows *rows, Py_ssize_t size)
{
    bool room = rows->count < rows->capacity && size <= rows->memory.len - rows->end;
    rows->refused = rows->refused || !room;
    return room;
}

/* Add a row, for which there is room. `place` is the index of its origin. */
static inline void
add_row(Rows *rows, const char *payload, Py_ssize_t size, Py_ssize_t place, long long timestamp)
{
    char *home = (char *)rows->memory.buf + rows->end;
    if (home != payload) {
        /* It may be in the rows already, further on. */
        memmove(home, payload, (size_t)size);
    }
    rows->offsets[rows->count] = rows->end;
    rows->lengths[rows->count] = (int32_t)size;
    rows->timestamps[rows->count] = timestamp;
    rows->sources[rows->count] = (int32_t)place;
    rows->count++;
    rows->end += size;
}

/* Learn how long messages are, from the longest of some; 0: none came. */
static inline void
expect_size(Rows *rows, Py_ssize_t longest)
{
    if (longest > rows->expected) {
        rows->expected = longest;
    } else if (longest > 0) {
        /* Shorter bit by bit: a short one may be the end of a run. */
        rows->expected -= (rows->expected - longest + 7) / 8;
    }
}

bool begin_rows(Rows *rows);
void end_rows(Rows *rows);
Py_ssize_t place_of(Rows *rows, PyObject *origin);

#endif
