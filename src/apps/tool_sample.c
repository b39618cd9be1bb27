#include "apps/tool_sample.h"

#include "apps/sample_latents.h"
#include "apps/threads.h"
#include "apps/tool_words.h"
#include "backend/cpu/backend_cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "image/png_write.h"
#include "train/hub.h"
#include "train/sampling.h"

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
    const int needed[] = {SAMPLE_model, SAMPLE_prompt, SAMPLE_output_dir};
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

/* ---- the run ------------------------------------------------------------------------------- */

typedef struct sample_run {
    dr_optset options;
    uint64_t seed;
    int n_per_prompt, n_pictures;
    dr_arena arena; /* paths */
    dr_model_file *file;
    dr_network net;
    dr_sampling sampling;
    bool keep_latents;         /* they come from or go to a file */
    dr_sample_latents latents; /* of all pictures when kept, else of one */
    dr_image *pictures;        /* for the grid; NULL: not kept */
    int current;               /* picture in work, from 0 */
} sample_run;

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
    const int asked = (int)dr_opt_int_or(o, SAMPLE_num_cpu_threads_per_process, 0);
    const dr_network_options net = {.backend = &dr_backend_cpu,
                                    .threads = dr_threads_for_rank(asked, 1),
                                    .clip_skip = (int)dr_opt_int(o, SAMPLE_clip_skip),
                                    .n_rows = (int)dr_opt_int(o, SAMPLE_max_token_length) / 75};
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
    dr_info("needs %s: text encoder %s, U-Net %s, VAE decoder %s, activations %s; %d picture%s of "
            "%lldx%lld, %d steps, %d thread%s",
            total, text, unet, vae, work, r->n_pictures, r->n_pictures == 1 ? "" : "s",
            (long long)r->sampling.o.width, (long long)r->sampling.o.height, r->sampling.o.n_steps,
            r->net.o.threads, r->net.o.threads == 1 ? "" : "s");
}

static dr_status prepare(sample_run *r)
{
    const dr_optset *o = &r->options;
    dr_sampling_options s = {.n_steps = (int)dr_opt_int(o, SAMPLE_steps),
                             .cfg_scale = (float)dr_opt_float(o, SAMPLE_cfg_scale),
                             .width = dr_opt_int(o, SAMPLE_width),
                             .height = dr_opt_int(o, SAMPLE_height)};
    DR_TRY(dr_sampler_kind_from_name(dr_opt_str(o, SAMPLE_sampler), &s.sampler));
    DR_TRY(open_model(r));
    DR_TRY(dr_sampling_init(&r->sampling, &r->net, dr_model_file_config(r->file), &s));
    print_plan(r);
    r->keep_latents = dr_opt_has(o, SAMPLE_latents_in) || dr_opt_has(o, SAMPLE_latents_out);
    DR_TRY(dr_sample_latents_alloc(&r->latents, r->keep_latents ? r->n_pictures : 1, r->sampling.h,
                                   r->sampling.w, r->sampling.channels));
    if (dr_opt_has(o, SAMPLE_latents_in)) {
        DR_TRY(dr_sample_latents_read(&r->latents, dr_opt_str(o, SAMPLE_latents_in)));
    }
    if (dr_opt_has(o, SAMPLE_grid)) {
        r->pictures = dr_xcalloc((size_t)r->n_pictures, sizeof *r->pictures);
    }
    DR_TRY(dr_network_load(&r->net, r->file));
    return dr_sampling_load(&r->sampling, r->file);
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

/* The text that other programs read settings from. */
static void describe(const sample_run *r, const char *prompt, uint64_t seed, dr_str *out)
{
    const dr_sampling_options *o = &r->sampling.o;
    const char *negative = dr_opt_str(&r->options, SAMPLE_negative_prompt);
    dr_str_printf(out, "%s\n", prompt);
    if (negative[0] != '\0') {
        dr_str_printf(out, "Negative prompt: %s\n", negative);
    }
    dr_str_printf(out, "Steps: %d, Sampler: %s, CFG scale: %g, Seed: %llu, Size: %lldx%lld",
                  o->n_steps, o->sampler == DR_SAMPLER_DDIM ? "DDIM" : "Euler",
                  (double)o->cfg_scale, (unsigned long long)seed, (long long)o->width,
                  (long long)o->height);
    if (r->net.o.clip_skip > 1) {
        dr_str_printf(out, ", Clip skip: %d", r->net.o.clip_skip);
    }
}

static dr_status write_picture(const sample_run *r, const char *prompt, uint64_t seed,
                               const dr_image *image)
{
    dr_str name = {0};
    dr_str parameters = {0};
    dr_str_printf(&name, "%05d_%llu.png", r->current, (unsigned long long)seed);
    describe(r, prompt, seed, &parameters);
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

static dr_status make_picture(sample_run *r, const char *prompt)
{
    const size_t n = dr_sampling_latent_elems(&r->sampling);
    const uint64_t seed = r->seed + (uint64_t)r->current;
    const size_t slot = r->keep_latents ? (size_t)r->current : 0;
    float *initial = r->latents.initial + slot * n;
    float *final = r->latents.final + slot * n;
    const dr_sampling_prompt p = {.prompt = prompt,
                                  .negative_prompt =
                                      dr_opt_str(&r->options, SAMPLE_negative_prompt),
                                  .progress = show_progress,
                                  .user = r};
    dr_image image = {0};
    if (!dr_opt_has(&r->options, SAMPLE_latents_in)) {
        dr_sampling_noise(&r->sampling, seed, initial);
    }
    memcpy(final, initial, n * sizeof *final);
    DR_TRY(dr_sampling_run(&r->sampling, &p, final));
    DR_TRY(dr_sampling_decode(&r->sampling, final, &image));
    dr_status st = write_picture(r, prompt, seed, &image);
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
    const dr_strv *prompts = dr_opt_list(&r->options, SAMPLE_prompt);
    DR_TRY(first_seed(&r->options, &r->seed));
    r->n_per_prompt = (int)dr_opt_int(&r->options, SAMPLE_n);
    if (prompts->n > (size_t)(100000 / r->n_per_prompt)) {
        DR_FAIL(DR_INVALID, "--n %d for %zu prompts: expected at most 100000 pictures in all",
                r->n_per_prompt, prompts->n);
    }
    r->n_pictures = (int)prompts->n * r->n_per_prompt;
    DR_TRY(prepare(r));
    for (r->current = 0; r->current < r->n_pictures; r->current++) {
        DR_TRY(make_picture(r, prompts->at[r->current / r->n_per_prompt]));
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
    dr_sample_latents_free(&r->latents);
    dr_sampling_deinit(&r->sampling);
    dr_network_deinit(&r->net);
    dr_model_file_close(r->file);
    dr_arena_deinit(&r->arena);
    dr_optset_deinit(&r->options);
}

dr_status dr_tool_sample(int argc, const char *const *argv)
{
    sample_run r = {0};
    dr_arena_init(&r.arena);
    dr_optset_init(&r.options, &sample_table, 0);
    dr_status st = dr_tool_words(&r.options, &sample_text, argc, argv, NULL);
    if (st == DR_OK && !r.options.help) {
        st = check_options(&r.options);
        if (st == DR_OK) {
            st = sample(&r);
        }
    }
    close_run(&r);
    return st;
}
