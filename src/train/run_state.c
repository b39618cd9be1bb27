/*
 * What a run's state holds, and how a run goes on from one. Rank 0 reads and writes; the other
 * ranks get what it read, so they need not see its file system.
 */
#include "base/file.h"
#include "base/log.h"
#include "base/note.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/xxh3.h"
#include "train/device_numbers.h"
#include "train/run_alarms.h"
#include "train/zero.h"
#include "train/run_states.h"

#include <stdlib.h>
#include <string.h>

static const char weights_name[] = "model.safetensors";        /* the names that accelerate gives */
static const char text_weights_name[] = "model_1.safetensors"; /* only when it is trained */
static const char optimizer_name[] = "optimizer.safetensors";
static const char facts_name[] = "train_state.json";

/* ---- what the run starts from -------------------------------------------------------------- */

static dr_status add_fingerprint(dr_run *r, const dr_params *set, dr_str *text)
{
    enum { SAMPLE_BYTES = 4096 };
    unsigned char sample[SAMPLE_BYTES];
    char hex[DR_XXH3_HEX];
    for (size_t i = 0; i < set->n; i++) {
        const dr_param *p = set->at[i];
        const size_t all = (size_t)p->n * dr_dtype_size(p->master.dtype);
        const size_t n = all < SAMPLE_BYTES ? all : SAMPLE_BYTES;
        DR_TRY(r->backend->device->download(sample, p->master.data, n));
        dr_xxh3_hex(dr_xxh3_bytes(sample, n), hex);
        dr_str_printf(text, "%s %lld %s\n", p->name, (long long)p->n, hex);
    }
    return DR_OK;
}

dr_status dr_run_fingerprint_model(dr_run *r)
{
    dr_str text = {0};
    dr_str_printf(&text, "vae %s\n", dr_model_file_vae_hash(r->file));
    dr_status st = add_fingerprint(r, &r->net.text_params, &text);
    if (st == DR_OK) {
        st = add_fingerprint(r, &r->net.unet_params, &text);
    }
    dr_xxh3_hex(dr_xxh3_bytes(dr_str_get(&text), text.len), r->model_hash);
    dr_str_free(&text);
    return st;
}

/* Folder and name of a picture without what stands before: a dataset may be moved. */
static const char *short_path(const char *path)
{
    const char *base = dr_path_base(path);
    while (base > path + 1 && base[-2] != '/') {
        base--;
    }
    return base > path ? base - 1 : path;
}

void dr_run_fingerprint_dataset(dr_run *r)
{
    dr_str text = {0};
    for (size_t i = 0; i < r->dataset.n_images; i++) {
        const dr_dataset_image *im = &r->dataset.images[i];
        dr_str_printf(&text, "%s\n%s\n%d %d %u %u\n", short_path(im->path), im->caption,
                      (int)im->size.w, (int)im->size.h, im->bucket, im->repeats);
    }
    dr_xxh3_hex(dr_xxh3_bytes(dr_str_get(&text), text.len), r->dataset_hash);
    dr_str_free(&text);
}

/* ---- writing ------------------------------------------------------------------------------- */

typedef struct weights_job {
    const dr_device *device;
    const dr_params *set;
} weights_job;

static dr_status emit_weight(void *user, dr_safetensors_writer *w, size_t i)
{
    const weights_job *job = user;
    const dr_param *p = job->set->at[i];
    const size_t bytes = (size_t)p->n * dr_dtype_size(p->master.dtype);
    unsigned char *memory = dr_xcalloc(2, bytes);
    dr_status st = job->device->download(memory, p->master.data, bytes);
    if (st == DR_OK) {
        dr_param_to_file_order(p, memory, p->master.dtype, memory + bytes, p->master.dtype);
        st = dr_safetensors_writer_write(w, memory + bytes, bytes);
    }
    free(memory);
    return st;
}

static dr_status write_weights(const dr_run *r, const dr_params *set, const char *path)
{
    const dr_safetensors_meta meta = {"format", "pt"};
    dr_safetensors_entry *entries = dr_xcalloc(set->n, sizeof *entries);
    weights_job job = {r->backend->device, set};
    for (size_t i = 0; i < set->n; i++) {
        const dr_param *p = set->at[i];
        entries[i] = (dr_safetensors_entry){p->name, p->master.dtype, p->rank, p->dim};
    }
    const dr_safetensors_content content = {
        .entries = entries, .n_entries = set->n, .meta = &meta, .n_meta = 1};
    const dr_status st = dr_safetensors_write(path, &content, emit_weight, &job);
    free(entries);
    return st;
}

/* A piece of a blob, on the host. */
static dr_status check_piece(const dr_optim_blob *blob, void *piece, size_t bytes)
{
    const int64_t n = (int64_t)(bytes / dr_dtype_size(blob->dtype));
    const dr_tensor t = dr_tensor_of(piece, blob->dtype, 1, &n);
    int64_t bad;
    DR_TRY(dr_first_not_finite(&dr_host_device, &t, &bad));
    if (bad >= 0) {
        DR_FAIL(DR_NUMERIC,
                "the optimizer's %s holds NaN or infinity, so no state is saved; what was saved "
                "before stays (a lower --learning_rate, or --max_grad_norm 1)",
                blob->name);
    }
    return DR_OK;
}

static dr_status emit_blob(void *user, dr_safetensors_writer *w, size_t i)
{
    enum { PIECE = 16 << 20 };
    const dr_run *r = user;
    dr_optim_blob blob;
    dr_optimizer_blob(r->optimizer, i, &blob);
    const size_t bytes = (size_t)blob.n * dr_dtype_size(blob.dtype);
    unsigned char *piece = dr_xcalloc(1, bytes < PIECE ? bytes + 1 : PIECE);
    dr_status st = DR_OK;
    for (size_t at = 0; st == DR_OK && at < bytes; at += PIECE) {
        const size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        st = dr_zero_read(r, i, at, piece, n);
        if (st == DR_OK) {
            st = check_piece(&blob, piece, n);
        }
        if (st == DR_OK) {
            st = dr_safetensors_writer_write(w, piece, n);
        }
    }
    free(piece);
    return st;
}

static dr_status write_optimizer(dr_run *r, const char *path)
{
    const size_t n = dr_optimizer_n_blobs(r->optimizer);
    dr_optim_blob *blobs = dr_xcalloc(n + 1, sizeof *blobs);
    dr_safetensors_entry *entries = dr_xcalloc(n + 1, sizeof *entries);
    for (size_t i = 0; i < n; i++) {
        dr_optimizer_blob(r->optimizer, i, &blobs[i]);
        entries[i] = (dr_safetensors_entry){blobs[i].name, blobs[i].dtype, 1, &blobs[i].n};
    }
    const dr_safetensors_content content = {.entries = entries, .n_entries = n};
    const dr_status st = dr_safetensors_write(path, &content, emit_blob, r);
    free(entries);
    free(blobs);
    return st;
}

static void add_text(dr_str *s, const char *key, const char *value)
{
    dr_str_printf(s, "  \"%s\": ", key);
    dr_json_add_string(s, value);
    dr_str_add(s, ",\n");
}

static dr_status write_facts(const dr_run *r, const char *path)
{
    dr_str s = {0};
    dr_str_printf(&s,
                  "{\n  \"current_epoch\": %u,\n  \"current_step\": %lld,\n"
                  "  \"steps_per_epoch\": %u,\n  \"total_steps\": %lld,\n  \"seed\": %lld,\n"
                  "  \"virtual_shards\": %lld,\n  \"schedule_from\": %lld,\n",
                  dr_run_epoch(r), (long long)r->step, r->steps_per_epoch, (long long)r->n_steps,
                  (long long)r->c->seed, (long long)(r->n_leaves / (uint32_t)r->c->accumulation),
                  (long long)r->lr.first_step);
    dr_str_add(&s, "  \"smooth_loss\": ");
    dr_json_add_double(&s, r->progress.smooth_loss);
    dr_str_add(&s, ",\n");
    if (dr_run_log_name(r->log) != NULL) {
        add_text(&s, "log", dr_run_log_name(r->log));
    }
    if (dr_precision_scales_loss(r->net.o.precision)) {
        dr_str_printf(&s,
                      "  \"loss_scale\": %.17g,\n  \"loss_scale_good_steps\": %lld,\n"
                      "  \"skipped_steps\": %lld,\n",
                      r->loss_scale.scale, (long long)r->loss_scale.good,
                      (long long)r->loss_scale.skipped);
    }
    add_text(&s, "model", r->model_hash);
    add_text(&s, "dataset", r->dataset_hash);
    dr_str_add(&s, "  \"optimizer\": {");
    for (size_t i = 0; i < dr_optimizer_n_scalars(r->optimizer); i++) {
        const dr_optim_scalar scalar = dr_optimizer_scalar(r->optimizer, i);
        dr_str_add(&s, i > 0 ? ",\n    " : "\n    ");
        dr_json_add_string(&s, scalar.name);
        dr_str_add(&s, ": ");
        dr_json_add_double(&s, *scalar.value);
    }
    dr_str_add(&s, "\n  },\n  \"options\": {");
    for (size_t i = 0; i < r->c->n_facts; i++) {
        dr_str_add(&s, i > 0 ? ",\n    " : "\n    ");
        dr_json_add_string(&s, r->c->facts[i].name);
        dr_str_add(&s, ": ");
        dr_json_add_string(&s, r->c->facts[i].value);
    }
    dr_str_add(&s, "\n  }\n}\n");
    const dr_status st = dr_file_write(path, dr_str_get(&s), s.len);
    dr_str_free(&s);
    return st;
}

static dr_status write_files(dr_run *r, const dr_state_writer *w)
{
    char *weights = dr_state_file(w, weights_name);
    char *text = dr_state_file(w, text_weights_name);
    char *optimizer = dr_state_file(w, optimizer_name);
    char *facts = dr_state_file(w, facts_name);
    dr_status st = DR_OK;
    if (r->net.trained[DR_PART_UNET].set != NULL) {
        st = write_weights(r, r->net.trained[DR_PART_UNET].set, weights);
    }
    if (st == DR_OK && r->net.trained[DR_PART_TEXT_ENCODER].set != NULL) {
        st = write_weights(r, r->net.trained[DR_PART_TEXT_ENCODER].set, text);
    }
    if (st == DR_OK) {
        st = write_optimizer(r, optimizer);
    }
    if (st == DR_OK) {
        st = write_facts(r, facts);
    }
    free(weights);
    free(text);
    free(optimizer);
    free(facts);
    return st;
}

dr_status dr_run_write_state(dr_run *r, const char *path)
{
    dr_state_writer w;
    DR_TRY(dr_state_begin(&w, path));
    const dr_status st = write_files(r, &w);
    if (st != DR_OK) {
        dr_state_abort(&w);
        return st;
    }
    return dr_state_commit(&w);
}

/* ---- which state --------------------------------------------------------------------------- */

static dr_status find_state(dr_run *r)
{
    const char *resume = r->c->resume;
    if (strcmp(resume, "auto") != 0) {
        dr_str copy = {0};
        dr_str_add(&copy, resume);
        r->resume = copy.data;
        return dr_state_verify(resume, true);
    }
    static const char *const unnamed[] = {"epoch", "at", "last", NULL}; /* dr_save_name */
    const char *const named[] = {r->c->save.name, NULL};
    return dr_state_newest(r->c->output_dir, named[0] != NULL ? named : unnamed, &r->resume);
}

typedef struct head { /* what all ranks must know before they plan */
    int64_t found, step, seed, virtual_shards, schedule_from;
} head;

dr_status dr_run_open_facts(dr_run *r)
{
    char *path = dr_path_join(r->resume, facts_name);
    dr_json_close(r->resume_facts);
    r->resume_facts = NULL;
    const dr_status st = dr_json_open(&r->resume_facts, path);
    free(path);
    return st;
}

static dr_status read_head(dr_run *r, head *h)
{
    DR_TRY(find_state(r));
    if (r->resume == NULL) {
        dr_info("--resume auto: no state in %s: the run starts at step 1", r->c->output_dir);
        return DR_OK;
    }
    DR_TRY(dr_run_open_facts(r));
    h->found = 1;
    DR_TRY(dr_json_get_int(r->resume_facts, "current_step", &h->step, NULL));
    DR_TRY(dr_json_get_int(r->resume_facts, "seed", &h->seed, NULL));
    DR_TRY(dr_json_get_int(r->resume_facts, "virtual_shards", &h->virtual_shards, NULL));
    bool has_schedule = false; /* states of older versions: 0 */
    DR_TRY(dr_json_get_int(r->resume_facts, "schedule_from", &h->schedule_from, &has_schedule));
    if (h->step < 0 || h->virtual_shards < 1 || h->virtual_shards > 4096) {
        DR_FAIL(DR_FORMAT, "%s: step %lld of %lld virtual shards: the state is damaged", r->resume,
                (long long)h->step, (long long)h->virtual_shards);
    }
    return DR_OK;
}

dr_status dr_run_open_state(dr_run *r)
{
    head h = {0};
    if (r->c->resume == NULL) {
        return DR_OK;
    }
    dr_status st = dr_dist_rank(r->dist) == 0 ? read_head(r, &h) : DR_OK;
    DR_TRY(dr_dist_agree(r->dist, st));
    DR_TRY(dr_dist_bcast(r->dist, &h, sizeof h, 0));
    r->resuming = h.found != 0;
    if (!r->resuming) {
        return DR_OK;
    }
    r->step = h.step;
    r->schedule_from = h.schedule_from;
    if (!r->c->seed_given) {
        r->config.seed = (uint64_t)h.seed;
    }
    if (r->c->virtual_shards == 0) {
        r->config.virtual_shards = h.virtual_shards;
    }
    return DR_OK;
}

/* ---- does it fit --------------------------------------------------------------------------- */

static void differ(dr_str *list, const char *what, const char *was, const char *is)
{
    if (strcmp(was, is) != 0) {
        dr_str_printf(list, "\n  %s: the state has %s, this run %s", what, was, is);
    }
}

static dr_status differ_text(const dr_run *r, dr_str *list, const char *key, const char *what,
                             const char *is)
{
    const char *was = NULL;
    DR_TRY(dr_json_get_string(r->resume_facts, key, &was, NULL));
    differ(list, what, was, is);
    return DR_OK;
}

static dr_status differ_count(const dr_run *r, dr_str *list, const char *key, const char *what,
                              int64_t is)
{
    char a[32];
    char b[32];
    int64_t was = 0;
    DR_TRY(dr_json_get_int(r->resume_facts, key, &was, NULL));
    (void)snprintf(a, sizeof a, "%lld", (long long)was);
    (void)snprintf(b, sizeof b, "%lld", (long long)is);
    differ(list, what, a, b);
    return DR_OK;
}

static void differ_options(const dr_run *r, dr_str *list)
{
    const dr_json_value *options = dr_json_member(dr_json_root(r->resume_facts), "options");
    for (size_t i = 0; i < r->c->n_facts; i++) {
        const dr_train_fact *fact = &r->c->facts[i];
        const dr_json_value *was = dr_json_member(options, fact->name);
        dr_str what = {0};
        dr_str_printf(&what, "--%s", fact->name);
        differ(list, dr_str_get(&what), was != NULL ? dr_json_string_value(was) : "nothing",
               fact->value);
        dr_str_free(&what);
    }
}

static dr_status check_fit(dr_run *r)
{
    dr_str list = {0};
    const dr_train_config *c = r->c;
    dr_status st = differ_text(r, &list, "model", "model (hash of its weights)", r->model_hash);
    if (st == DR_OK) {
        st = differ_text(r, &list, "dataset", "dataset (hash of names, captions, sizes, repeats)",
                         r->dataset_hash);
    }
    if (st == DR_OK) {
        st = differ_count(r, &list, "seed", "--seed", (int64_t)c->seed);
    }
    if (st == DR_OK) {
        st = differ_count(r, &list, "virtual_shards", "--virtual_shards",
                          (int64_t)r->n_leaves / c->accumulation);
    }
    if (st == DR_OK && c->lr_kind != DR_LR_CONSTANT && c->lr_kind != DR_LR_CONSTANT_WITH_WARMUP) {
        st = differ_count(r, &list, "total_steps", "steps of the learning-rate schedule",
                          r->n_steps);
    }
    if (st == DR_OK) {
        differ_options(r, &list);
    }
    if (st == DR_OK && list.len > 0 && !c->resume_changed) {
        st =
            dr_error_set(DR_INEXACT, __FILE__, __LINE__,
                         "%s does not fit this run:%s\nStart it with the options it had, or say "
                         "--resume_changed to go on with the new ones: the result is then not that "
                         "of one uninterrupted run",
                         r->resume, dr_str_get(&list));
    } else if (st == DR_OK && list.len > 0) {
        dr_warn("--resume_changed: the run goes on with other settings:%s", dr_str_get(&list));
    }
    dr_str_free(&list);
    return st;
}

/* ---- reading ------------------------------------------------------------------------------- */

static dr_status open_file(const dr_run *r, const char *name, dr_safetensors **out)
{
    char *path = dr_path_join(r->resume, name);
    const dr_status st = dr_safetensors_open(out, path);
    free(path);
    return st;
}

/* The tensor of that name, dtype and number of elements. */
static dr_status find_tensor(const dr_safetensors *s, const char *name, dr_dtype dtype, int64_t n,
                             const void **data)
{
    const dr_safetensors_tensor *t = dr_safetensors_find(s, name);
    int64_t found = 1;
    for (int i = 0; t != NULL && i < t->rank; i++) {
        found *= t->shape[i];
    }
    if (t == NULL || !t->readable || t->dtype != dtype || found != n) {
        DR_FAIL(DR_FORMAT,
                "%s: %s is %s, expected %lld values of %s: the state is of another model, "
                "optimizer or precision",
                dr_safetensors_path(s), name, t == NULL ? "missing" : "of another kind or size",
                (long long)n, dr_dtype_name(dtype));
    }
    return dr_safetensors_data(s, t, data);
}

static dr_status read_weights(const dr_run *r, const char *name, const dr_params *set)
{
    dr_safetensors *s = NULL;
    DR_TRY(open_file(r, name, &s));
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < set->n; i++) {
        const dr_param *p = set->at[i];
        const size_t bytes = (size_t)p->n * dr_dtype_size(p->master.dtype);
        const void *data = NULL;
        st = find_tensor(s, p->name, p->master.dtype, p->n, &data);
        if (st == DR_OK) {
            void *memory = dr_xcalloc(1, bytes);
            dr_param_from_file_order(p, data, p->master.dtype, memory, p->master.dtype);
            st = r->backend->device->upload(p->master.data, memory, bytes);
            free(memory);
        }
    }
    dr_safetensors_close(s);
    return st;
}

static dr_status read_optimizer(const dr_run *r)
{
    dr_safetensors *s = NULL;
    DR_TRY(open_file(r, optimizer_name, &s));
    dr_status st = DR_OK;
    for (size_t i = 0; st == DR_OK && i < dr_optimizer_n_blobs(r->optimizer); i++) {
        dr_optim_blob blob;
        const void *data = NULL;
        dr_optimizer_blob(r->optimizer, i, &blob);
        st = find_tensor(s, blob.name, blob.dtype, blob.n, &data);
        if (st == DR_OK) {
            st = dr_zero_write(r, i, data);
        }
    }
    dr_safetensors_close(s);
    for (size_t i = 0; st == DR_OK && i < dr_optimizer_n_scalars(r->optimizer); i++) {
        const dr_optim_scalar scalar = dr_optimizer_scalar(r->optimizer, i);
        char key[96];
        (void)snprintf(key, sizeof key, "optimizer/%s", scalar.name);
        st = dr_json_get_double(r->resume_facts, key, scalar.value, NULL);
    }
    return st;
}

/* A state of a run without one leaves the first scale, which --resume_changed allows. */
static dr_status read_loss_scale(dr_run *r)
{
    bool found = false;
    if (!dr_precision_scales_loss(r->net.o.precision)) {
        return DR_OK;
    }
    dr_loss_scale *s = &r->loss_scale;
    DR_TRY(dr_json_get_double(r->resume_facts, "loss_scale", &s->scale, &found));
    DR_TRY(dr_json_get_int(r->resume_facts, "loss_scale_good_steps", &s->good, &found));
    DR_TRY(dr_json_get_int(r->resume_facts, "skipped_steps", &s->skipped, &found));
    if (!(s->scale > 0.0 && s->scale < 0x1p100) || s->good < 0 || s->skipped < 0) {
        DR_FAIL(DR_FORMAT, "%s: a loss scale of %g: the state is damaged", r->resume, s->scale);
    }
    return DR_OK;
}

static dr_status read_numbers(dr_run *r)
{
    DR_TRY(read_loss_scale(r));
    if (r->net.trained[DR_PART_UNET].set != NULL) {
        DR_TRY(read_weights(r, weights_name, r->net.trained[DR_PART_UNET].set));
    }
    if (r->net.trained[DR_PART_TEXT_ENCODER].set != NULL) {
        DR_TRY(read_weights(r, text_weights_name, r->net.trained[DR_PART_TEXT_ENCODER].set));
    }
    return read_optimizer(r);
}

dr_status dr_run_share(const dr_run *r, void *data, size_t bytes, int root)
{
    enum { PIECE = 16 << 20 };
    const dr_device *device = r->backend->device;
    const bool mine = dr_dist_rank(r->dist) == root;
    if (device->host_visible) {
        return dr_dist_bcast(r->dist, data, bytes, root);
    }
    unsigned char *piece = dr_xcalloc(1, PIECE);
    dr_status st = DR_OK;
    for (size_t at = 0; st == DR_OK && at < bytes; at += PIECE) {
        const size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        unsigned char *place = (unsigned char *)data + at;
        st = mine ? device->download(piece, place, n) : DR_OK;
        if (st == DR_OK) {
            st = dr_dist_bcast(r->dist, piece, n, root);
        }
        if (st == DR_OK && !mine) {
            st = device->upload(place, piece, n);
        }
    }
    free(piece);
    return st;
}

static dr_status share_all(dr_run *r)
{
    const dr_network *net = &r->net;
    const dr_tensor trained = dr_network_trained(net);
    DR_TRY(dr_run_share(r, trained.data, dr_nbytes(&trained), 0));
    for (size_t i = 0; r->zero_cut == NULL && i < dr_optimizer_n_blobs(r->optimizer); i++) {
        dr_optim_blob blob;
        dr_optimizer_blob(r->optimizer, i, &blob);
        DR_TRY(dr_run_share(r, blob.data, (size_t)blob.n * dr_dtype_size(blob.dtype), 0));
    }
    for (size_t i = 0; i < dr_optimizer_n_scalars(r->optimizer); i++) {
        double *value = dr_optimizer_scalar(r->optimizer, i).value;
        DR_TRY(dr_dist_bcast(r->dist, value, sizeof *value, 0));
    }
    DR_TRY(dr_dist_bcast(r->dist, &r->loss_scale, sizeof r->loss_scale, 0));
    return DR_OK;
}

dr_status dr_run_read_state(dr_run *r)
{
    const bool first = dr_dist_rank(r->dist) == 0;
    DR_TRY(dr_dist_agree(r->dist, first ? dr_zero_end(r, read_numbers(r)) : dr_zero_serve(r)));
    if (dr_dist_world(r->dist) > 1) {
        DR_TRY(share_all(r));
    }
    dr_context cx;
    dr_context_init(&cx, r->backend, r->pool, r->c->threads);
    return dr_network_refresh(&r->net, &cx, 0, r->net.n_trained);
}

/* Whether this run can go on from the state (rank 0). */
static dr_status check_state(dr_run *r)
{
    DR_TRY(check_fit(r));
    if (r->step > r->n_steps) {
        DR_FAIL(DR_INVALID,
                "%s is of step %lld, this run ends at step %lld: raise --max_train_steps (or "
                "--max_train_epochs)",
                r->resume, (long long)r->step, (long long)r->n_steps);
    }
    return DR_OK;
}

dr_status dr_run_load_state(dr_run *r)
{
    if (!r->resuming) {
        return DR_OK;
    }
    DR_TRY(dr_dist_agree(r->dist, dr_dist_rank(r->dist) == 0 ? check_state(r) : DR_OK));
    DR_TRY(dr_run_read_state(r));
    if (dr_dist_rank(r->dist) == 0) {
        bool found = false;
        DR_TRY(dr_json_get_double(r->resume_facts, "smooth_loss", &r->resumed_loss, &found));
        dr_note("state %lld %s", (long long)r->step, r->resume);
        dr_info("resumed from %s: epoch %u, step %lld of %lld", r->resume, dr_run_epoch(r),
                (long long)r->step, (long long)r->n_steps);
    }
    return DR_OK;
}
