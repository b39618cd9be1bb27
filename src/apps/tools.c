/*
 * dreamrun_tools NAME ...: the tools behind `dreamrun NAME ...`. Results go to stdout, messages to
 * stderr; the exit code is that of the tool's status.
 */
#include "apps/tool_check.h"
#include "apps/tool_convert.h"
#include "apps/tool_extract_lora.h"
#include "apps/tool_init_model.h"
#include "apps/tool_inspect.h"
#include "apps/tool_make_pictures.h"
#include "apps/tool_merge_lora.h"
#include "apps/tool_resize_lora.h"
#include "apps/tool_sample.h"
#include "apps/tool_states.h"
#include "apps/tool_tokenize.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    dr_status (*run)(int argc, const char *const *argv);
    const char *what;
} tools[] = {
    {"check", dr_tool_check, "looks at a dataset before it is trained on"},
    {"convert", dr_tool_convert, "writes a model in another form or precision"},
    {"extract_lora", dr_tool_extract_lora, "writes the LoRA between two models"},
    {"init_model", dr_tool_init_model, "writes a model with random weights"},
    {"inspect", dr_tool_inspect, "shows what a model file or directory holds"},
    {"make_pictures", dr_tool_make_pictures, "draws a small dataset to try a trainer with"},
    {"merge_lora", dr_tool_merge_lora, "puts LoRAs into a model, or several into one"},
    {"resize_lora", dr_tool_resize_lora, "writes a LoRA with smaller ranks"},
    {"sample", dr_tool_sample, "draws pictures from prompts"},
    {"status", dr_tool_status, "what became of a run, and its states"},
    {"tokenize", dr_tool_tokenize, "captions on stdin, token ids on stdout"},
    {"verify", dr_tool_verify, "whether every byte of training states is as it was saved"},
};
enum { N_TOOLS = sizeof tools / sizeof *tools };

static void print_usage(FILE *to)
{
    (void)fputs("Usage: dreamrun TOOL [options]; dreamrun TOOL --help\n\n", to);
    for (int i = 0; i < N_TOOLS; i++) {
        (void)fprintf(to, "  %-14s %s\n", tools[i].name, tools[i].what);
    }
}

static dr_status run_tool(const char *name, int argc, const char *const *argv)
{
    for (int i = 0; i < N_TOOLS; i++) {
        if (strcmp(tools[i].name, name) == 0) {
            return tools[i].run(argc, argv);
        }
    }
    int best = 0;
    for (int i = 1; i < N_TOOLS; i++) {
        if (dr_edit_distance(tools[i].name, name) < dr_edit_distance(tools[best].name, name)) {
            best = i;
        }
    }
    DR_FAIL(DR_INVALID, "dreamrun: there is no tool '%s'; did you mean '%s'?", name,
            tools[best].name);
}

int main(int argc, char **argv)
{
    const char *const *words = (const char *const *)argv + 1;
    if (argc < 2 || strcmp(words[0], "--help") == 0 || strcmp(words[0], "-h") == 0) {
        print_usage(argc < 2 ? stderr : stdout);
        return dr_status_exit_code(argc < 2 ? DR_INVALID : DR_OK);
    }
    dr_file_take_limits();
    dr_status st = dr_fault_setup(NULL, 0);
    if (st == DR_OK) {
        st = run_tool(words[0], argc - 2, words + 1);
    }
    if (st == DR_OK && fflush(stdout) != 0) {
        st = dr_error_set(DR_IO, __FILE__, __LINE__, "stdout: cannot write: %s", strerror(errno));
    }
    if (st != DR_OK) {
        dr_log_error_record();
    }
    return dr_status_exit_code(st);
}
