#include "io/event_file.h"

#include "base/append_file.h"
#include "base/arena.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct dr_event_file {
    dr_append_file file;
    char *path;
    dr_str gathered; /* framed records */
};

/* ---- CRC32C -------------------------------------------------------------------------------- */

uint32_t dr_crc32c(const void *data, size_t n)
{
    const unsigned char *bytes = data;
    uint32_t crc = 0xFFFFFFFFU;
    uint32_t table[16]; /* four bits at a time: records are short, pictures few */
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t c = i;
        for (int k = 0; k < 4; k++) {
            c = (c & 1U) != 0 ? (c >> 1) ^ 0x82F63B78U : c >> 1; /* the polynomial, reflected */
        }
        table[i] = c;
    }
    for (size_t i = 0; i < n; i++) {
        crc = (crc >> 4) ^ table[(crc ^ bytes[i]) & 15U];
        crc = (crc >> 4) ^ table[(crc ^ (uint32_t)(bytes[i] >> 4)) & 15U];
    }
    return crc ^ 0xFFFFFFFFU;
}

/* TFRecord's mask, so that a CRC over data that holds CRCs stays meaningful. */
static uint32_t masked_crc(const void *data, size_t n)
{
    const uint32_t crc = dr_crc32c(data, n);
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
}

/* ---- protobuf ------------------------------------------------------------------------------ */

static void add_little_endian(dr_str *s, uint64_t v, int n_bytes)
{
    char bytes[8];
    for (int i = 0; i < n_bytes; i++) {
        bytes[i] = (char)(v >> (8 * i) & 0xFFU);
    }
    dr_str_add_n(s, bytes, (size_t)n_bytes);
}

static void add_varint(dr_str *s, uint64_t v)
{
    while (v >= 0x80U) {
        add_little_endian(s, (v & 0x7FU) | 0x80U, 1);
        v >>= 7;
    }
    add_little_endian(s, v, 1);
}

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 }; /* wire types */

static void add_key(dr_str *s, unsigned field, unsigned wire)
{
    add_varint(s, (uint64_t)field << 3 | wire);
}

static void add_int(dr_str *s, unsigned field, int64_t v)
{
    add_key(s, field, VARINT);
    add_varint(s, (uint64_t)v);
}

static void add_double(dr_str *s, unsigned field, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    add_key(s, field, FIXED64);
    add_little_endian(s, bits, 8);
}

static void add_float(dr_str *s, unsigned field, double v)
{
    const float narrow = (float)v;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    add_key(s, field, FIXED32);
    add_little_endian(s, bits, 4);
}

static void add_bytes(dr_str *s, unsigned field, const void *data, size_t n)
{
    add_key(s, field, BYTES);
    add_varint(s, n);
    dr_str_add_n(s, data, n);
}

static void add_text(dr_str *s, unsigned field, const char *text)
{
    add_bytes(s, field, text, strlen(text));
}

/* A message inside another; the inner one is freed. */
static void add_message(dr_str *s, unsigned field, dr_str *inner)
{
    add_bytes(s, field, dr_str_get(inner), inner->len);
    dr_str_free(inner);
}

/* ---- records ------------------------------------------------------------------------------- */

static void add_record(dr_event_file *f, dr_str *event)
{
    dr_str length = {0};
    add_little_endian(&length, event->len, 8);
    dr_str_add_n(&f->gathered, length.data, length.len);
    add_little_endian(&f->gathered, masked_crc(length.data, length.len), 4);
    dr_str_add_n(&f->gathered, dr_str_get(event), event->len);
    add_little_endian(&f->gathered, masked_crc(dr_str_get(event), event->len), 4);
    dr_str_free(&length);
    dr_str_free(event);
}

/* An Event of one Summary.Value, which is freed. */
static void add_value(dr_event_file *f, double time_s, int64_t step, dr_str *value)
{
    dr_str summary = {0};
    dr_str event = {0};
    add_message(&summary, 1, value);
    add_double(&event, 1, time_s);
    add_int(&event, 2, step);
    add_message(&event, 5, &summary);
    add_record(f, &event);
}

void dr_event_file_scalar(dr_event_file *f, const dr_event_at *at, double value)
{
    dr_str v = {0};
    add_text(&v, 1, at->tag);
    add_float(&v, 2, value);
    add_value(f, at->time_s, at->step, &v);
}

/* SummaryMetadata of a plugin, as field 9 of a Summary.Value. */
static void add_plugin(dr_str *value, const char *name, const void *content, size_t n)
{
    dr_str data = {0};
    dr_str metadata = {0};
    add_text(&data, 1, name);
    if (n > 0) {
        add_bytes(&data, 2, content, n);
    }
    add_message(&metadata, 1, &data);
    add_message(value, 9, &metadata);
}

void dr_event_file_text(dr_event_file *f, const dr_event_at *at, const char *text)
{
    enum { DT_STRING = 7 };
    dr_str tag = {0};
    dr_str dim = {0};
    dr_str shape = {0};
    dr_str tensor = {0};
    dr_str v = {0};
    dr_str_printf(&tag, "%s/text_summary", at->tag);
    add_text(&v, 1, dr_str_get(&tag));
    add_int(&dim, 1, 1);
    add_message(&shape, 2, &dim);
    add_int(&tensor, 1, DT_STRING);
    add_message(&tensor, 2, &shape);
    add_text(&tensor, 8, text);
    add_message(&v, 8, &tensor);
    add_plugin(&v, "text", NULL, 0);
    add_value(f, at->time_s, at->step, &v);
    dr_str_free(&tag);
}

void dr_event_file_png(dr_event_file *f, const dr_event_at *at, const dr_event_png *png)
{
    enum { RGB = 3 };
    dr_str image = {0};
    dr_str v = {0};
    add_int(&image, 1, png->height);
    add_int(&image, 2, png->width);
    add_int(&image, 3, RGB);
    add_bytes(&image, 4, png->data, png->n);
    add_text(&v, 1, at->tag);
    add_message(&v, 4, &image);
    add_value(f, at->time_s, at->step, &v);
}

/* ---- hparams ------------------------------------------------------------------------------- */

static void add_hparams_summary(dr_event_file *f, double time_s, const char *tag, dr_str *data)
{
    dr_str v = {0};
    add_text(&v, 1, tag);
    add_plugin(&v, "hparams", dr_str_get(data), data->len);
    add_value(f, time_s, 0, &v);
    dr_str_free(data);
}

/* HParamInfo: name, type. */
static void add_hparam_info(dr_str *experiment, const dr_event_hparam *h)
{
    enum { TYPE_STRING = 1, TYPE_BOOL = 2, TYPE_FLOAT64 = 3 };
    dr_str info = {0};
    add_text(&info, 1, h->name);
    add_int(&info, 4, h->text != NULL ? TYPE_STRING : h->is_bool ? TYPE_BOOL : TYPE_FLOAT64);
    add_message(experiment, 4, &info);
}

/* An entry of SessionStartInfo's map: name, google.protobuf.Value. */
static void add_hparam_value(dr_str *start, const dr_event_hparam *h)
{
    dr_str value = {0};
    dr_str entry = {0};
    if (h->text != NULL) {
        add_text(&value, 3, h->text);
    } else if (h->is_bool) {
        add_int(&value, 4, h->number != 0.0);
    } else {
        add_double(&value, 2, h->number);
    }
    add_text(&entry, 1, h->name);
    add_message(&entry, 2, &value);
    add_message(start, 1, &entry);
}

void dr_event_file_hparams(dr_event_file *f, double time_s, const dr_event_hparam *list, size_t n)
{
    enum { STATUS_SUCCESS = 1 }; /* what torch writes at the start already */
    dr_str experiment = {0};
    dr_str start = {0};
    dr_str end = {0};
    dr_str data = {0};
    for (size_t i = 0; i < n; i++) {
        add_hparam_info(&experiment, &list[i]);
        add_hparam_value(&start, &list[i]);
    }
    add_message(&data, 2, &experiment);
    add_hparams_summary(f, time_s, "_hparams_/experiment", &data);
    add_message(&data, 3, &start);
    add_hparams_summary(f, time_s, "_hparams_/session_start_info", &data);
    add_int(&end, 1, STATUS_SUCCESS);
    add_message(&data, 4, &end);
    add_hparams_summary(f, time_s, "_hparams_/session_end_info", &data);
}

/* ---- the file ------------------------------------------------------------------------------ */

/* events.out.tfevents.<seconds>.<host>.<pid>.<number>; the caller frees it. */
static char *file_path(const char *dir, double time_s, int number)
{
    char host[256] = "";
    dr_str name = {0};
    if (gethostname(host, sizeof host - 1) != 0 || host[0] == '\0') {
        memcpy(host, "localhost", sizeof "localhost");
    }
    dr_str_printf(&name, "events.out.tfevents.%010lld.%s.%ld.%d", (long long)time_s, host,
                  (long)getpid(), number);
    char *path = dr_path_join(dir, dr_str_get(&name));
    dr_str_free(&name);
    return path;
}

static void add_head(dr_event_file *f, double time_s, int64_t restart_step)
{
    enum { SESSION_START = 1 };
    dr_str event = {0};
    add_double(&event, 1, time_s);
    add_text(&event, 3, "brain.Event:2");
    add_record(f, &event);
    if (restart_step >= 0) {
        dr_str session = {0};
        add_int(&session, 1, SESSION_START);
        add_double(&event, 1, time_s);
        add_int(&event, 2, restart_step);
        add_message(&event, 7, &session);
        add_record(f, &event);
    }
}

dr_status dr_event_file_create(const char *dir, double time_s, int64_t restart_step,
                               dr_event_file **out)
{
    dr_event_file *f = dr_xcalloc(1, sizeof *f);
    dr_status st = DR_INVALID; /* the name is taken */
    for (int number = 0; st == DR_INVALID; number++) {
        free(f->path);
        f->path = file_path(dir, time_s, number);
        st = dr_append_open(&f->file, f->path, true);
    }
    if (st == DR_OK) {
        add_head(f, time_s, restart_step);
        st = dr_event_file_flush(f);
    }
    if (st != DR_OK) {
        dr_event_file_close(f);
        return st;
    }
    *out = f;
    return DR_OK;
}

const char *dr_event_file_path(const dr_event_file *f)
{
    return f->path;
}

dr_status dr_event_file_flush(dr_event_file *f)
{
    dr_status st = DR_OK;
    if (f->gathered.len > 0) {
        st = dr_append_add(&f->file, f->path, f->gathered.data, f->gathered.len);
    }
    dr_str_free(&f->gathered);
    return st;
}

void dr_event_file_close(dr_event_file *f)
{
    if (f == NULL) {
        return;
    }
    if (f->gathered.len > 0 && dr_event_file_flush(f) != DR_OK) {
        dr_error_clear();
    }
    dr_append_close(&f->file);
    free(f->path);
    free(f);
}
