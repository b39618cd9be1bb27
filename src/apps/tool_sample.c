#include "apps/tool_sample.h"

#include "apps/sample_latents.h"
#include "apps/sample_loras.h"
#include "apps/threads.h"
#include "apps/tool_words.h"
#include "backend/cpu/backend_cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "image/png_write.h"
#include "train/hub/hub.h"
#include "train/sample/sample_files.h"
#include "train/sample/sample_prompts.h"
#include "train/sample/sampling.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- options ------------------------------------------------------------------------------- */

enum { /* rows of the table */
#define GROUP(id, title)                        SAMPLE_GROUP_##id,
#define OPT(name, type, def, range, unit, help) SAMPLE_##name,
#include "apps/sample_options.def"
#undef GROUP
#undef OPT
       SAMPLE_OPTION_COUNT
};

static const dr_opt_spec sample_specs[SAMPLE_OPTION_COUNT] = {
#define GROUP(id, title) {.help = title},
#define OPT(name_, type_, def_, range_, unit_, help_)                                              \
    {.name = #name_,                                                                               \
     .programs = 1,                                                                                \
     .type = DR_OPT_TYPE_##type_,                                                                  \
     .def = (def_),                                                                                \
     .range = (range_),                                                                            \
     .unit = (unit_),                                                                              \
     .reason = "",                                                                                 \
     .help = (help_)},
#include "apps/sample_options.def"
#undef GROUP
#undef OPT
};

static const char *const program_names[] = {"dreamrun sample"};

static const dr_opt_table sample_table = {.specs = sample_specs,
                                          .n = SAMPLE_OPTION_COUNT,
                                          .programs = program_names,
                                          .n_programs = 1,
                                          .syntax = DR_OPT_PREFIXES | DR_OPT_TO_WORD,
                                          .own_first = -1};

static const dr_tool_text sample_text = {
    .usage = "Usage: dreamrun sample --model MODEL --prompt TEXT --output_dir DIR [options]\n\n"
             "Generates pictures with a Stable Diffusion 1.x or 2.x model. Each PNG carries its\n"
             "settings in the text chunk \"parameters\". The same seed gives the same pixels.\n",
    .operands = "options only",
    .n_operands = 0};

static dr_status check_output_file(const char *flag, const char *path, const char *ending)
{
    if (path == NULL) {
        return DR_OK;
    }
    if (!dr_str_ends(path, ending)) {
        DR_FAIL(DR_INVALID, "--%s %s: expected a file name that ends in %s", flag, path, ending);
    }
    size_t n = (size_t)(dr_path_base(path) - path);
    dr_str folder = {0};
    dr_str_add_n(&folder, n > 0 ? path : ".", n > 0 ? n : 1);
    dr_status st = DR_OK;
    if (!dr_path_is_dir(dr_str_get(&folder))) {
        st = dr_error_set(DR_OUTPUT, __FILE__, __LINE__,
                          "--%s %s: there is no folder %s; make it first", flag, path,
                          dr_str_get(&folder));
    }
    dr_str_free(&folder);
    return st;
}

/* What must be given, and that everything can be written, before minutes are spent. */
static dr_status check_options(const dr_optset *o)
{
    const bool file = dr_opt_given(o, SAMPLE_sample_prompts);
    const int needed[] = {SAMPLE_model, file ? SAMPLE_sample_prompts : SAMPLE_prompt,
                          SAMPLE_output_dir};
    if (file && dr_opt_given(o, SAMPLE_prompt)) {
        DR_FAIL(DR_INVALID, "--prompt and --sample_prompts: give one of them");
    }
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (!dr_opt_given(o, needed[i])) {
            DR_FAIL(DR_INVALID, "--%s is missing; dreamrun sample --help lists all options",
                    sample_specs[needed[i]].name);
        }
    }
    const char *dir = dr_opt_str(o, SAMPLE_output_dir);
    DR_TRY(dr_mkdirs(dir));
    if (access(dir, W_OK | X_OK) != 0) {
        DR_FAIL(DR_OUTPUT, "--output_dir %s: no permission to write there", dir);
    }
    DR_TRY(check_output_file("grid", dr_opt_str(o, SAMPLE_grid), ".png"));
    return check_output_file("latents_out", dr_opt_str(o, SAMPLE_latents_out), ".safetensors");
}

/* Unset: 31 bits, so that the seed fits every other program too. */
static dr_status first_seed(const dr_optset *o, uint64_t *seed)
{
    uint32_t bits = 0;
    if (dr_opt_has(o, SAMPLE_seed)) {
        *seed = (uint64_t)dr_opt_int(o, SAMPLE_seed);
        return DR_OK;
    }
    if (getentropy(&bits, sizeof bits) != 0) {
        DR_FAIL(DR_IO, "the system gives no random numbers: give --seed");
    }
    *seed = bits & 0x7FFFFFFFU;
    return DR_OK;
}

/* ---- what to draw -------------------------------------------------------------------------- */

typedef struct sample_run {
    dr_optset options;
    dr_arena arena; /* paths */
    dr_sample_prompts prompts;
    dr_sample_request *requests; /* of all pictures */
    int n_pictures;
    dr_model_file *file;
    dr_network net;
    dr_sample_loras loras;
    dr_sampling sampling;
    bool keep_latents;         /* they come from or go to a file */
    dr_sample_latents latents; /* of all pictures when kept */
    dr_image *pictures;        /* for the grid; NULL: not kept */
    int current;               /* picture in work, from 0 */
} sample_run;

/* What the command line says. */
static dr_status request_of_options(const dr_optset *o, dr_sample_request *q)
{
    *q = (dr_sample_request){.negative_prompt = dr_opt_str(o, SAMPLE_negative_prompt),
                             .karras = dr_opt_flag(o, SAMPLE_karras),
                             .n_steps = (int)dr_opt_int(o, SAMPLE_steps),
                             .cfg_scale = (float)dr_opt_float(o, SAMPLE_cfg_scale),
                             .width = dr_opt_int(o, SAMPLE_width),
                             .height = dr_opt_int(o, SAMPLE_height)};
    return dr_sampler_kind_from_name(dr_opt_str(o, SAMPLE_sampler), &q->sampler);
}

/* Picture i, the k-th of its prompt; seed: of the run's first picture. */
static void take_request(const sample_run *r, const dr_sample_request *of_options, int i, int k,
                         uint64_t seed, dr_sample_request *q)
{
    const dr_strv *texts = dr_opt_list(&r->options, SAMPLE_prompt);
    const size_t prompt = (size_t)(i - k) / (size_t)dr_opt_int(&r->options, SAMPLE_n);
    *q = *of_options;
    q->seed = seed + (uint64_t)i;
    if (r->prompts.n == 0) {
        q->prompt = texts->at[prompt];
    } else {
        dr_sample_prompts_request(&r->prompts, prompt, 1, q);
        q->seed = r->prompts.at[prompt].seed >= 0 ? q->seed + (uint64_t)k : seed + (uint64_t)i;
    }
}

static dr_status collect_requests(sample_run *r)
{
    const dr_optset *o = &r->options;
    const int64_t n_each = dr_opt_int(o, SAMPLE_n);
    uint64_t seed = 0;
    dr_sample_request of_options;
    DR_TRY(first_seed(o, &seed));
    DR_TRY(request_of_options(o, &of_options));
    if (dr_opt_has(o, SAMPLE_sample_prompts)) {
        DR_TRY(dr_sample_prompts_read(dr_opt_str(o, SAMPLE_sample_prompts), of_options.sampler,
                                      &r->prompts));
    }
    const size_t n_prompts = r->prompts.n > 0 ? r->prompts.n : dr_opt_list(o, SAMPLE_prompt)->n;
    if (n_prompts > (size_t)(100000 / n_each)) {
        DR_FAIL(DR_INVALID, "--n %lld for %zu prompts: expected at most 100000 pictures in all",
                (long long)n_each, n_prompts);
    }
    r->n_pictures = (int)n_prompts * (int)n_each;
    r->requests = dr_xcalloc((size_t)r->n_pictures, sizeof *r->requests);
    for (int i = 0; i < r->n_pictures; i++) {
        take_request(r, &of_options, i, i % (int)n_each, seed, &r->requests[i]);
    }
    return DR_OK;
}

/* ---- the run ------------------------------------------------------------------------------- */

static dr_status open_model(sample_run *r)
{
    const dr_optset *o = &r->options;
    dr_model_open_options open = {.path = dr_opt_str(o, SAMPLE_model),
                                  .vae = dr_opt_str(o, SAMPLE_vae)};
    DR_TRY(dr_hub_resolve_model(NULL, &r->arena, &open));
    DR_TRY(dr_model_file_probe(&open, NULL));
    open.v2 = open.v2 || dr_opt_flag(o, SAMPLE_v2);
    open.v_parameterization = open.v_parameterization || dr_opt_flag(o, SAMPLE_v_parameterization);
    DR_TRY(dr_model_file_open(&open, &r->file));
    DR_TRY(dr_sample_loras_open(&r->loras, dr_opt_list(o, SAMPLE_lora),
                                dr_model_file_config(r->file)));
    const int asked = (int)dr_opt_int_or(o, SAMPLE_num_cpu_threads_per_process, 0);
    const dr_network_options net = {.backend = &dr_backend_cpu,
                                    .threads = dr_threads_for_rank(asked, 1),
                                    .clip_skip = (int)dr_opt_int(o, SAMPLE_clip_skip),
                                    .n_rows = 1};
    return dr_network_init(&r->net, dr_model_file_config(r->file), &net);
}

static void print_plan(const sample_run *r)
{
    char total[24], text[24], unet[24], vae[24], work[24];
    const size_t n_text = (size_t)r->net.text_params.n_elems * sizeof(float);
    const size_t n_unet = (size_t)r->net.unet_params.n_elems * sizeof(float);
    const size_t n_vae = dr_sampling_vae_bytes(&r->sampling);
    dr_format_bytes(n_text + n_unet + n_vae + r->sampling.work_bytes, total);
    dr_format_bytes(n_text, text);
    dr_format_bytes(n_unet, unet);
    dr_format_bytes(n_vae, vae);
    dr_format_bytes(r->sampling.work_bytes, work);
    dr_info(
        "needs %s: text encoder %s, U-Net %s, VAE decoder %s, activations %s; %d picture%s, the "
        "first of %lldx%lld in %d steps, %d thread%s",
        total, text, unet, vae, work, r->n_pictures, r->n_pictures == 1 ? "" : "s",
        (long long)r->requests[0].width, (long long)r->requests[0].height, r->requests[0].n_steps,
        r->net.o.threads, r->net.o.threads == 1 ? "" : "s");
}

static dr_status plan(sample_run *r)
{
    const dr_optset *o = &r->options;
    const int64_t multiple = dr_sampling_multiple(dr_model_file_config(r->file));
    const dr_sampling_options options = {
        .as_sd_scripts = dr_opt_str(o, SAMPLE_compat) != NULL,
        .zero_terminal_snr = dr_opt_flag(o, SAMPLE_zero_terminal_snr) ||
                             dr_model_file_config(r->file)->zero_terminal_snr,
        .max_rows = (int)dr_opt_int(o, SAMPLE_max_token_length) / 75};
    DR_TRY(dr_sampling_init(&r->sampling, &r->net, dr_model_file_config(r->file), &options));
    for (int i = 0; i < r->n_pictures; i++) {
        dr_sample_request *q = &r->requests[i];
        if (r->prompts.n > 0) {
            q->width = dr_sample_prompts_side(q->width, multiple);
            q->height = dr_sample_prompts_side(q->height, multiple);
        }
        const dr_status st = dr_sampling_plan(&r->sampling, q);
        if (st != DR_OK) {
            return r->prompts.n > 0 ? dr_error_prefix(st, "picture %d", i) : st;
        }
    }
    print_plan(r);
    return DR_OK;
}

/* Latents in files are one tensor, so the pictures must be alike. */
static dr_status open_latents(sample_run *r)
{
    const dr_optset *o = &r->options;
    const dr_sample_request *first = &r->requests[0];
    int64_t shape[3];
    r->keep_latents = dr_opt_has(o, SAMPLE_latents_in) || dr_opt_has(o, SAMPLE_latents_out);
    for (int i = 1; r->keep_latents && i < r->n_pictures; i++) {
        const dr_sample_request *q = &r->requests[i];
        if (q->width != first->width || q->height != first->height ||
            q->sampler != first->sampler || q->n_steps != first->n_steps) {
            DR_FAIL(DR_INVALID,
                    "--latents_in, --latents_out: picture %d differs in its size, "
                    "sampler or steps from picture 0; expected them to be the same",
                    i);
        }
    }
    dr_sampling_shape(&r->sampling, first, shape);
    if (!r->keep_latents) {
        return DR_OK;
    }
    DR_TRY(dr_sample_latents_alloc(&r->latents, r->n_pictures, shape[0], shape[1], shape[2]));
    return dr_opt_has(o, SAMPLE_latents_in)
               ? dr_sample_latents_read(&r->latents, dr_opt_str(o, SAMPLE_latents_in))
               : DR_OK;
}

static dr_status prepare(sample_run *r)
{
    DR_TRY(collect_requests(r));
    DR_TRY(open_model(r));
    DR_TRY(plan(r));
    DR_TRY(open_latents(r));
    if (dr_opt_has(&r->options, SAMPLE_grid)) {
        r->pictures = dr_xcalloc((size_t)r->n_pictures, sizeof *r->pictures);
    }
    DR_TRY(dr_network_load(&r->net, r->file));
    DR_TRY(dr_sample_loras_merge(&r->loras, &r->net));
    return dr_sampling_open(&r->sampling, r->file, NULL);
}

/* One line that is rewritten on a terminal; in a log one line per picture. */
static void show_progress(void *user, int n_done, int n_steps)
{
    const sample_run *r = user;
    const bool terminal = isatty(STDERR_FILENO) != 0;
    if (terminal || n_done == n_steps) {
        (void)fprintf(stderr, "%spicture %d/%d: step %d/%d%s", terminal ? "\r" : "", r->current + 1,
                      r->n_pictures, n_done, n_steps, n_done == n_steps ? "\n" : "");
    }
}

static void keep_noise(void *user, const float *noise, size_t n)
{
    sample_run *r = user;
    (void)n;
    if (r->keep_latents) {
        dr_sample_latents_add_noise(&r->latents, noise);
    }
}

/* The settings of a picture, its LoRAs among them, as web interfaces write and read them. */
static void describe(const sample_run *r, const dr_sample_request *q, dr_str *out)
{
    dr_sample_request tagged = *q;
    dr_str prompt = {0};
    dr_str_add(&prompt, q->prompt);
    dr_sample_loras_tags(&r->loras, &prompt);
    tagged.prompt = dr_str_get(&prompt);
    dr_sample_parameters(&tagged, r->net.o.clip_skip, out);
    dr_sample_loras_hashes(&r->loras, out);
    dr_str_free(&prompt);
}

static dr_status write_picture(const sample_run *r, const dr_sample_request *q,
                               const dr_image *image)
{
    dr_str name = {0};
    dr_str parameters = {0};
    dr_str_printf(&name, "%05d_%llu.png", r->current, (unsigned long long)q->seed);
    describe(r, q, &parameters);
    char *path = dr_path_join(dr_opt_str(&r->options, SAMPLE_output_dir), dr_str_get(&name));
    const dr_png_text text = {"parameters", dr_str_get(&parameters)};
    dr_status st = dr_png_write(path, image, &text, 1);
    if (st == DR_OK) {
        (void)printf("%s\n", path);
        (void)fflush(stdout);
    }
    free(path);
    dr_str_free(&parameters);
    dr_str_free(&name);
    return st;
}

static dr_status make_picture(sample_run *r, const dr_sample_request *q, float *latent)
{
    const size_t n = dr_sampling_latent_elems(&r->sampling, q);
    const dr_sampling_watch watch = {.progress = show_progress, .noise = keep_noise, .user = r};
    float *initial =
        r->latents.initial != NULL ? r->latents.initial + (size_t)r->current * n : NULL;
    dr_image image = {0};
    if (dr_opt_has(&r->options, SAMPLE_latents_in)) {
        memcpy(latent, initial, n * sizeof *latent);
    } else {
        dr_sampling_noise(&r->sampling, q, latent);
    }
    if (r->keep_latents) {
        memcpy(initial, latent, n * sizeof *latent);
    }
    DR_TRY(dr_sampling_run(&r->sampling, q, &watch, latent));
    if (r->keep_latents) {
        memcpy(r->latents.final + (size_t)r->current * n, latent, n * sizeof *latent);
    }
    DR_TRY(dr_sampling_decode(&r->sampling, q, latent, &image));
    dr_status st = write_picture(r, q, &image);
    if (r->pictures != NULL) {
        r->pictures[r->current] = image;
    } else {
        dr_image_free(&image);
    }
    return st;
}

static dr_status write_grid(const sample_run *r)
{
    enum { PAD = 2 };
    const int square = (int)ceil(sqrt((double)r->n_pictures));
    const int columns = (int)dr_opt_int_or(&r->options, SAMPLE_columns, square);
    dr_image grid = {0};
    DR_TRY(dr_image_grid(r->pictures, r->n_pictures, columns, PAD, &grid));
    dr_status st = dr_png_write(dr_opt_str(&r->options, SAMPLE_grid), &grid, NULL, 0);
    dr_image_free(&grid);
    return st;
}

static dr_status sample(sample_run *r)
{
    DR_TRY(prepare(r));
    for (r->current = 0; r->current < r->n_pictures; r->current++) {
        const dr_sample_request *q = &r->requests[r->current];
        float *latent = NULL;
        DR_TRY(dr_try_calloc(dr_sampling_latent_elems(&r->sampling, q), sizeof *latent,
                             (void **)&latent));
        const dr_status st = make_picture(r, q, latent);
        free(latent);
        DR_TRY(st);
    }
    if (r->pictures != NULL) {
        DR_TRY(write_grid(r));
    }
    if (dr_opt_has(&r->options, SAMPLE_latents_out)) {
        DR_TRY(dr_sample_latents_write(&r->latents, dr_opt_str(&r->options, SAMPLE_latents_out)));
    }
    return DR_OK;
}

static void close_run(sample_run *r)
{
    for (int i = 0; r->pictures != NULL && i < r->n_pictures; i++) {
        dr_image_free(&r->pictures[i]);
    }
    free(r->pictures);
    free(r->requests);
    dr_sample_prompts_free(&r->prompts);
    dr_sample_latents_free(&r->latents);
    dr_sampling_deinit(&r->sampling);
    dr_sample_loras_close(&r->loras);
    dr_network_deinit(&r->net);
    dr_model_file_close(r->file);
    dr_arena_deinit(&r->arena);
    dr_optset_deinit(&r->options);
}

dr_status dr_tool_sample(int argc, const char *const *argv)
{
    sample_run *r = dr_xcalloc(1, sizeof *r);
    dr_arena_init(&r->arena);
    dr_optset_init(&r->options, &sample_table, 0);
    dr_status st = dr_tool_words(&r->options, &sample_text, argc, argv, NULL);
    if (st == DR_OK && !r->options.help) {
        st = check_options(&r->options);
        if (st == DR_OK) {
            st = sample(r);
        }
    }
    close_run(r);
    free(r);
    return st;
}
