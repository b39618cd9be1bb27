#include "train/progress.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const double plain_interval_s = 5.0;   /* between plain lines: a log stays readable */
static const double rewrite_interval_s = 0.1; /* a terminal needs no more */
static const double smoothing = 0.05;         /* weight of the newest loss in the average */

void dr_progress_begin(dr_progress *p, dr_progress_mode mode, int64_t n_steps, uint32_t n_epochs,
                       const double *smooth_loss)
{
    *p = (dr_progress){.mode = mode, .n_steps = n_steps, .n_epochs = n_epochs};
    p->rewrite = mode == DR_PROGRESS_AUTO && isatty(STDERR_FILENO);
    p->started_s = dr_now_s();
    p->has_smooth_loss = smooth_loss != NULL;
    p->smooth_loss = smooth_loss != NULL ? *smooth_loss : 0.0;
}

static void print_json(const dr_progress *p, const dr_progress_step *s)
{
    char line[512];
    (void)snprintf(
        line, sizeof line,
        "{\"step\": %lld, \"steps\": %lld, \"epoch\": %u, \"epochs\": %u, \"loss\": %.9g, "
        "\"lr\": %.9g, \"grad_norm\": %.9g, \"samples\": %llu, \"step_s\": %.6f, "
        "\"data_s\": %.6f}\n",
        (long long)s->step, (long long)p->n_steps, s->epoch, p->n_epochs, s->loss, s->lr,
        s->grad_norm, (unsigned long long)s->samples, s->step_s, s->data_s);
    (void)fputs(line, stdout);
    (void)fflush(stdout);
}

static void print_line(const dr_progress *p, const dr_progress_step *s, double now)
{
    double elapsed = now - p->started_s;
    double per_step = elapsed / (double)p->n_done;
    double left = per_step * (double)(p->n_steps - s->step);
    double rate = elapsed > 0.0 ? (double)p->n_samples / elapsed : 0.0;
    double data = s->step_s > 0.0 ? 100.0 * s->data_s / s->step_s : 0.0;
    long eta = (long)(left + 0.5);
    char line[256];
    (void)snprintf(line, sizeof line,
                   "step %lld/%lld ep %u/%u | loss %.4f ~%.4f | lr %.3g | %.3g img/s %.3g s/it "
                   "(data %.0f%%) | ETA %02ld:%02ld:%02ld",
                   (long long)s->step, (long long)p->n_steps, s->epoch, p->n_epochs, s->loss,
                   p->smooth_loss, s->lr, rate, per_step, data, eta / 3600, eta / 60 % 60,
                   eta % 60);
    char text[300];
    (void)snprintf(text, sizeof text, p->rewrite ? "\r%s\033[K" : "%s\n", line);
    (void)fputs(text, stderr);
    (void)fflush(stderr);
}

void dr_progress_update(dr_progress *p, const dr_progress_step *s)
{
    double now = dr_now_s();
    bool first = p->n_done == 0;
    p->n_done++;
    p->n_samples += s->samples;
    p->smooth_loss =
        p->has_smooth_loss ? p->smooth_loss + smoothing * (s->loss - p->smooth_loss) : s->loss;
    p->has_smooth_loss = true;
    if (p->mode == DR_PROGRESS_JSON) {
        print_json(p, s);
        return;
    }
    double interval = p->rewrite ? rewrite_interval_s : plain_interval_s;
    if (first || s->step == p->n_steps || now - p->last_print_s >= interval) {
        p->last_print_s = now;
        print_line(p, s, now);
    }
}

void dr_progress_end(dr_progress *p)
{
    if (p->rewrite && p->n_done > 0) {
        (void)fputc('\n', stderr);
    }
}
