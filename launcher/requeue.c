#include "launcher/requeue.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

/* Runs a command line and gives the first bytes of its output; false: it failed. */
static bool run(const char *line, char *text, size_t size)
{
    FILE *f = popen(line, "re");
    size_t n = f != NULL ? fread(text, 1, size - 1, f) : 0;
    text[n] = '\0';
    return f != NULL && pclose(f) == 0;
}

bool dr_requeue(const char *job)
{
    char line[160];
    char text[8192];
    size_t digits = strspn(job, "0123456789_");
    if (digits == 0 || job[digits] != '\0' || digits > 64) {
        return false;
    }
    (void)snprintf(line, sizeof line, "scontrol show job -o %s 2>&1 </dev/null", job);
    bool known = run(line, text, sizeof text);
    /* a cancelled job is COMPLETING as long as its processes are here */
    if (known && strstr(text, "JobState=RUNNING ") == NULL) {
        (void)fprintf(stderr, "dreamrun: job %s was cancelled: it stays out of the queue\n", job);
        return false;
    }
    (void)snprintf(line, sizeof line, "scontrol requeue %s 2>&1 </dev/null", job);
    bool done = known && run(line, text, sizeof text);
    if (done) {
        (void)fprintf(stderr, "dreamrun: job %s goes back into the queue\n", job);
    } else { /* containers may lack scontrol */
        (void)fprintf(stderr,
                      "dreamrun: job %s could not be put back into the queue: run\n"
                      "  scontrol requeue %s\n",
                      job, job);
    }
    return done;
}
