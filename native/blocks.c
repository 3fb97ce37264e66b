/* Lays the rows of a DatagramBuffer out as the packets of a pcapng file; wire/pcapng.py does the same, and says why. */

#include "fast.h"

#include <string.h>

enum { DATA, OFFSETS, LENGTHS, TIMES, SOURCES, COLUMNS };
enum { NUMBER = 4, UDP_HEADER = 8, V4 = 20, V6 = 40, AROUND = 32, PACKET = 6, PROTOCOL = 17 };

static unsigned char *
put_little(unsigned char *to, uint32_t value)
{
    for (int byte = 0; byte < 4; byte++) {
        *to++ = (unsigned char)(value >> 8 * byte);
    }
    return to;
}

static void
put_big(unsigned char *to, size_t value)
{
    to[0] = (unsigned char)(value >> 8);
    to[1] = (unsigned char)value;
}

/* Return the sum of 16-bit words in network byte order, added to another one: RFC 1071. */
static uint64_t
sum_of(const unsigned char *bytes, size_t size, uint64_t sum)
{
    for (; size > 1; size -= 2, bytes += 2) {
        sum += (uint64_t)bytes[0] << 8 | bytes[1];
    }
    return size ? sum + ((uint64_t)bytes[0] << 8) : sum;
}

static size_t
checksum(uint64_t sum)
{
    while (sum >> 16) {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    return 0xFFFF - sum;
}

/* Write the IP packet of a datagram: headers by `head`, behind the number of the interface, then the payload. */
static void
write_packet(unsigned char *to, const unsigned char *head, size_t headers, const char *payload, size_t size)
{
    size_t length = UDP_HEADER + size;
    unsigned char *udp = to + headers - UDP_HEADER;
    memcpy(to, head + NUMBER, headers);
    memcpy(to + headers, payload, size);
    put_big(udp + 4, length);
    if (headers == V4 + UDP_HEADER) {
        put_big(to + 2, V4 + length);
        put_big(to + 10, checksum(sum_of(to, V4, 0)));
    } else {
        put_big(to + 4, length);
        size_t sum = checksum(sum_of(to + 8, headers - 8 + size, length + PROTOCOL));
        put_big(udp + 6, sum ? sum : 0xFFFF);
    }
}

/* Write the rows from `first` to `end`, as far as there is room; set `at` to where they end. Return the next row, or -1 with
an exception set. */
static Py_ssize_t
lay_rows(Py_buffer *room, Py_ssize_t *at, Py_buffer *columns, PyObject *heads, Py_ssize_t first, Py_ssize_t end, int64_t now)
{
    const int64_t *offsets = columns[OFFSETS].buf, *times = columns[TIMES].buf;
    const int32_t *lengths = columns[LENGTHS].buf, *sources = columns[SOURCES].buf;
    for (Py_ssize_t row = first; row < end; row++) {
        int64_t size = lengths[row], offset = offsets[row];
        PyObject *shared_head = PyList_GetItem(heads, sources[row]);
        char *head;
        Py_ssize_t head_size;
        if (shared_head == NULL || PyBytes_AsStringAndSize(shared_head, &head, &head_size) < 0) {
            return -1;
        }
        size_t headers = (size_t)head_size - NUMBER;
        if ((headers != V4 + UDP_HEADER && headers != V6 + UDP_HEADER) || size < 0 || offset < 0 ||
            size > columns[DATA].len || offset > columns[DATA].len - size) {
            PyErr_SetString(PyExc_ValueError, "a row outside of its data, or a head of another size");
            return -1;
        }
        size_t content = headers + (size_t)size, padding = (4 - content % 4) % 4, total = AROUND + content + padding;
        if (total > (size_t)(room->len - *at)) {
            return row;
        }
        uint64_t time = (uint64_t)(times[row] ? times[row] : now);
        unsigned char *to = (unsigned char *)room->buf + *at;
        to = put_little(to, PACKET);
        to = put_little(to, (uint32_t)total);
        memcpy(to, head, NUMBER);
        to = put_little(to + NUMBER, (uint32_t)(time >> 32));
        to = put_little(to, (uint32_t)time);
        to = put_little(to, (uint32_t)content);
        to = put_little(to, (uint32_t)content);
        write_packet(to, (const unsigned char *)head, headers, (const char *)columns[DATA].buf + offset, (size_t)size);
        memset(to + content, 0, padding);
        put_little(to + content + padding, (uint32_t)total);
        *at += (Py_ssize_t)total;
    }
    return end;
}

/* lay_datagrams(room, at, columns, heads, first, end, now): see wire/pcapng.py. */
PyObject *
lay_datagrams(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    static const size_t item[COLUMNS] = {1, sizeof(int64_t), sizeof(int32_t), sizeof(int64_t), sizeof(int32_t)};
    PyObject *target, *views, *heads, *result = NULL;
    Py_ssize_t at, first, end;
    long long now;
    if (!PyArg_ParseTuple(arguments, "OnO!O!nnL:lay_datagrams", &target, &at, &PyTuple_Type, &views, &PyList_Type, &heads,
                          &first, &end, &now)) {
        return NULL;
    }
    Py_buffer room, columns[COLUMNS];
    int held = 0;
    bool fits = true;
    if (PyTuple_Size(views) != COLUMNS) {
        return PyErr_Format(PyExc_ValueError, "%d columns are needed", COLUMNS);
    }
    if (PyObject_GetBuffer(target, &room, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    for (; held < COLUMNS; held++) {
        if (PyObject_GetBuffer(PyTuple_GetItem(views, held), &columns[held], PyBUF_SIMPLE) < 0) {
            goto release;
        }
        bool aligned = (uintptr_t)columns[held].buf % item[held] == 0;
        fits = fits && aligned && (held == DATA || columns[held].len / (Py_ssize_t)item[held] >= end);
    }
    if (!fits || at < 0 || at > room.len || first < 0) {
        PyErr_SetString(PyExc_ValueError, "columns, rows or room that do not fit");
        goto release;
    }
    Py_ssize_t next = lay_rows(&room, &at, columns, heads, first, end, now);
    if (next >= 0) {
        result = Py_BuildValue("nn", at, next);
    }
release:
    while (held > 0) {
        PyBuffer_Release(&columns[--held]);
    }
    PyBuffer_Release(&room);
    return result;
}
