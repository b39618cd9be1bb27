#include "train/report/progress.h"

#include "base/clock.h"
#include "base/log.h"
#include "io/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

static const double plain_interval_s = 5.0;   /* between plain lines: a log stays readable */
static const double rewrite_interval_s = 0.1; /* a terminal needs no more */
static const double smoothing = 0.05;         /* weight of the newest loss in the average */

/* Of the process so far, those that needed no disk. */
static long long page_faults(void)
{
    struct rusage usage = {0};
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (long long)usage.ru_minflt : 0;
}

void dr_progress_begin(dr_progress *p, dr_progress_mode mode, int64_t n_steps, uint32_t n_epochs,
                       const double *smooth_loss)
{
    *p = (dr_progress){.mode = mode, .n_steps = n_steps, .n_epochs = n_epochs};
    p->rewrite = mode == DR_PROGRESS_AUTO && isatty(STDERR_FILENO);
    p->started_s = dr_now_s();
    p->faults_before = page_faults();
    p->has_smooth_loss = smooth_loss != NULL;
    p->smooth_loss = smooth_loss != NULL ? *smooth_loss : 0.0;
}

static double seconds_per_step(const dr_progress *p, double now)
{
    return (now - p->started_s) / (double)p->n_done;
}

/* A number as JSON has it: null where it is not finite. */
static void add_number(dr_str *s, const char *key, double value)
{
    dr_str_printf(s, "\"%s\": ", key);
    dr_json_add_double(s, value);
    dr_str_add(s, ", ");
}

static void print_json(const dr_progress *p, const dr_progress_step *s, double now)
{
    dr_str line = {0};
    const double left = seconds_per_step(p, now) * (double)(p->n_steps - s->step);
    dr_str_printf(&line, "{\"step\": %lld, \"steps\": %lld, \"epoch\": %u, \"epochs\": %u, ",
                  (long long)s->step, (long long)p->n_steps, s->epoch, p->n_epochs);
    add_number(&line, "loss", s->loss);
    add_number(&line, "smooth_loss", p->smooth_loss);
    add_number(&line, "lr", s->lr);
    add_number(&line, "grad_norm", s->grad_norm);
    add_number(&line, "loss_scale", s->loss_scale);
    dr_str_printf(&line, "\"skipped_steps\": %lld, ", (long long)s->n_skipped);
    dr_str_printf(&line,
                  "\"samples\": %llu, \"step_s\": %.6f, \"data_s\": %.6f, \"eta_s\": %.1f, "
                  "\"memory_used_bytes\": %llu, \"memory_total_bytes\": %llu, "
                  "\"page_faults\": %lld, \"steps_to_save\": %lld}\n",
                  (unsigned long long)s->samples, s->step_s, s->data_s, left,
                  (unsigned long long)s->memory_used_bytes,
                  (unsigned long long)s->memory_total_bytes, page_faults() - p->faults_before,
                  (long long)s->steps_to_save);
    (void)fputs(dr_str_get(&line), stdout);
    (void)fflush(stdout);
    dr_str_free(&line);
}

/* " | 19.3/24.0 GiB" */
static void describe_memory(const dr_progress_step *s, char out[64])
{
    const double gib = 1024.0 * 1024.0 * 1024.0;
    out[0] = '\0';
    if (s->memory_total_bytes > 0) {
        (void)snprintf(out, 64, " | %.1f/%.1f GiB", (double)s->memory_used_bytes / gib,
                       (double)s->memory_total_bytes / gib);
    }
}

/* " | skipped 3, scale 8192": steps that overflowed fp16, and the loss scale. */
static void describe_scale(const dr_progress_step *s, char out[64])
{
    out[0] = '\0';
    if (s->n_skipped > 0) {
        (void)snprintf(out, 64, " | skipped %lld, scale %g", (long long)s->n_skipped,
                       s->loss_scale);
    }
}

/* Columns of the terminal; without an answer enough for the whole line. */
static size_t terminal_columns(void)
{
    struct winsize w = {0};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 1000;
}

/* Over the line before it, as much as fits. */
static void rewrite_line(const char *line)
{
    const size_t columns = terminal_columns();
    const size_t n = strlen(line);
    const size_t fits = columns > 1 ? columns - 1 : 1; /* a full last column would wrap */
    (void)fprintf(stderr, "\r%.*s\033[K", (int)(fits < n ? fits : n), line);
    (void)fflush(stderr);
}

static void print_line(const dr_progress *p, const dr_progress_step *s, double now)
{
    const double elapsed = now - p->started_s;
    const double per_step = seconds_per_step(p, now);
    const double rate = elapsed > 0.0 ? (double)p->n_samples / elapsed : 0.0;
    const double data = s->step_s > 0.0 ? 100.0 * s->data_s / s->step_s : 0.0;
    const long eta = (long)(per_step * (double)(p->n_steps - s->step) + 0.5);
    char memory[64];
    char scale[64];
    char line[384];
    describe_memory(s, memory);
    describe_scale(s, scale);
    (void)snprintf(line, sizeof line,
                   "step %lld/%lld ep %u/%u | loss %.4f ~%.4f | lr %.3g | %.3g img/s %.3g s/it "
                   "(data %.0f%%)%s%s | ETA %02ld:%02ld:%02ld | save in %lld",
                   (long long)s->step, (long long)p->n_steps, s->epoch, p->n_epochs, s->loss,
                   p->smooth_loss, s->lr, rate, per_step, data, memory, scale, eta / 3600,
                   eta / 60 % 60, eta % 60, (long long)s->steps_to_save);
    if (p->rewrite) {
        rewrite_line(line);
    } else {
        (void)fprintf(stderr, "%s\n", line);
        (void)fflush(stderr);
    }
}

void dr_progress_update(dr_progress *p, const dr_progress_step *s)
{
    double now = dr_now_s();
    bool first = p->n_done == 0;
    p->n_done++;
    p->n_samples += s->samples;
    if (!s->skipped) {
        p->smooth_loss =
            p->has_smooth_loss ? p->smooth_loss + smoothing * (s->loss - p->smooth_loss) : s->loss;
        p->has_smooth_loss = true;
    }
    if (p->mode == DR_PROGRESS_JSON) {
        print_json(p, s, now);
        p->faults_before = page_faults();
        return;
    }
    double interval = p->rewrite ? rewrite_interval_s : plain_interval_s;
    if (first || s->step == p->n_steps || now - p->last_print_s >= interval) {
        p->last_print_s = now;
        print_line(p, s, now);
    }
}

void dr_progress_validation(dr_progress *p, const dr_progress_loss *v)
{
    const bool json = p->mode == DR_PROGRESS_JSON;
    dr_str text = {0};
    dr_str_printf(&text,
                  json ? "{\"step\": %lld, \"epoch\": %u, \"validation_loss\": %.9g, \"at\": {"
                       : "validation after step %lld (epoch %u): loss %.6f (",
                  (long long)v->step, v->epoch, v->loss);
    for (int i = 0; i < DR_PROGRESS_TIMESTEPS; i++) {
        dr_str_printf(&text, json ? "%s\"%d\": %.9g" : "%st %d %.6f", i > 0 ? ", " : "",
                      v->timestep[i], v->at[i]);
    }
    if (json) {
        (void)fprintf(stdout, "%s}}\n", dr_str_get(&text));
        (void)fflush(stdout);
    } else {
        dr_progress_end(p);
        dr_info("%s)", dr_str_get(&text));
    }
    dr_str_free(&text);
}

void dr_progress_note(dr_progress *p, const char *text)
{
    if (p->rewrite) {
        rewrite_line(text);
    }
}

void dr_progress_pause(dr_progress *p, double seconds)
{
    p->started_s += seconds;
}

void dr_progress_end(dr_progress *p)
{
    if (p->rewrite && p->n_done > 0) {
        (void)fputc('\n', stderr);
    }
}
