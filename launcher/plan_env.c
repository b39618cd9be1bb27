/* The environment of what is started: what is set, what is taken out. */
#include "launcher/plan_internal.h"

#include <stdio.h>
#include <string.h>

/* Left by an MPI job or Slurm step that this process is no rank of: mpirun refuses to nest, and
 * ranks would take these for their own. User settings (OMPI_MCA_btl ...) stay. */
static bool is_stale(const char *entry)
{
    static const char *const keep[] = {"OMPI_ALLOW_RUN_AS_ROOT", "PMIX_MCA_", "PRTE_MCA_"};
    static const char *const mca[] = {"orte_",
                                      "ess",
                                      "pmix=",
                                      "initial_wdir=",
                                      "shmem_RUNTIME_",
                                      "mpi_oversubscribe=",
                                      "rmaps_base_oversubscribe=",
                                      "hwloc_base_binding_policy="};
    static const char *const drop[] = {"OMPI_",         "PMIX_",          "PMI_",         "PRTE_",
                                       "SLURM_PROCID=", "SLURM_LOCALID=", "SLURM_NODEID="};
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        if (dr_str_starts(entry, keep[i])) {
            return false;
        }
    }
    if (dr_str_starts(entry, "OMPI_MCA_")) {
        for (size_t i = 0; i < sizeof mca / sizeof *mca; i++) {
            if (dr_str_starts(entry + strlen("OMPI_MCA_"), mca[i])) {
                return true;
            }
        }
        return false;
    }
    for (size_t i = 0; i < sizeof drop / sizeof *drop; i++) {
        if (dr_str_starts(entry, drop[i])) {
            return true;
        }
    }
    return false;
}

void dr_push_setting(dr_strv *v, const char *name, const char *value)
{
    dr_str s = {0};
    dr_str_printf(&s, "%s=%s", name, value);
    dr_strv_push(v, dr_str_get(&s));
    dr_str_free(&s);
}

static void push_number(dr_strv *v, const char *name, long long number)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%lld", number);
    dr_push_setting(v, name, text);
}

static bool is_set_here(const dr_launch_plan *p, const char *entry)
{
    size_t n = strcspn(entry, "=") + 1;
    for (size_t i = 0; i < p->set.n; i++) {
        if (strncmp(p->set.at[i], entry, n) == 0) {
            return true;
        }
    }
    return false;
}

static void set_threads(dr_launch_plan *p, const dr_launch_facts *f)
{
    push_number(&p->set, "OMP_NUM_THREADS", p->n_threads);
    push_number(&p->set, "DREAMRUN_THREADS", p->n_threads);
    int on_host = p->hosts.n > 1 ? p->hosts.at[0].ranks : p->n_ranks;
    bool crowded = (int64_t)p->n_threads * on_host > f->n_cpus;
    if (crowded && dr_env_find(f->env, "OMP_WAIT_POLICY") == NULL) {
        dr_push_setting(&p->set, "OMP_WAIT_POLICY", "passive"); /* spinning would hold a core */
    }
}

static dr_status check_gpu_ids(const char *ids, int n_gpus)
{
    for (const char *p = ids; *p != '\0';) {
        size_t n = strcspn(p, ",");
        char word[96];
        int64_t index = 0;
        (void)snprintf(word, sizeof word, "%.*s", (int)n, p);
        bool number = dr_parse_i64(word, &index);
        if (n == 0 || (!number && strncmp(p, "GPU-", 4) != 0 && strncmp(p, "MIG-", 4) != 0)) {
            DR_FAIL(DR_INVALID,
                    "--gpu_ids: found '%s', expected all, or numbers or UUIDs such as 0,1", ids);
        }
        if (number && (index < 0 || (n_gpus > 0 && index >= n_gpus))) {
            DR_FAIL(DR_DEVICE, "--gpu_ids: found GPU %lld, but this host has %d (0 to %d)",
                    (long long)index, n_gpus, n_gpus - 1);
        }
        p += n + (p[n] == ',');
    }
    return DR_OK;
}

static dr_status set_gpus(dr_launch_plan *p, const dr_launch_facts *f)
{
    const char *ids = dr_opt_str(&p->settings.options, DR_LAUNCH_gpu_ids);
    if (ids == NULL || strcmp(ids, "all") == 0) {
        return DR_OK;
    }
    DR_TRY(check_gpu_ids(ids, p->hosts.n > 1 ? 0 : f->n_gpus));
    dr_push_setting(&p->set, "CUDA_VISIBLE_DEVICES", ids);
    return DR_OK;
}

/* What ranks below an agent are told (launcher/agent.h, train/watchdog.h, base/fault.h). */
static void set_run(dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_optset *o = &p->settings.options;
    const char *inject = dr_opt_str(o, DR_LAUNCH_inject);
    char text[32] = "auto";
    if (dr_opt_has(o, DR_LAUNCH_hang_timeout)) {
        (void)snprintf(text, sizeof text, "%g", dr_opt_float(o, DR_LAUNCH_hang_timeout));
    }
    dr_push_setting(&p->set, "DREAMRUN_HANG_TIMEOUT", text);
    if (dr_opt_given(o, DR_LAUNCH_start_timeout) || dr_opt_given(o, DR_LAUNCH_rdzv_conf)) {
        (void)snprintf(text, sizeof text, "%g", dr_settings_start_timeout(o));
        dr_push_setting(&p->set, "DREAMRUN_START_TIMEOUT", text); /* apps/gpu_plane.c */
    }
    push_number(&p->set, "DREAMRUN_WORLD", p->n_ranks);
    if (p->supervised) {
        push_number(&p->set, "DREAMRUN_ATTEMPT", f->attempt + 1);
    }
    if (inject != NULL) {
        dr_push_setting(&p->set, "DREAMRUN_INJECT", inject);
    }
    bool bind = dr_opt_flag(o, DR_LAUNCH_enable_cpu_affinity) ||
                (f->n_numa > 1 && !dr_opt_flag(o, DR_LAUNCH_no_cpu_affinity));
    if (bind && p->n_ranks > 1) {
        dr_push_setting(&p->set, "DREAMRUN_BIND", p->uses_gpus ? "gpu" : "cores");
    }
}

static void set_debug(dr_launch_plan *p, const dr_launch_facts *f)
{
    if (p->debug && dr_env_find(f->env, "NCCL_DEBUG") == NULL) {
        dr_push_setting(&p->set, "NCCL_DEBUG", "WARN");
    }
    if (dr_opt_has(&p->settings.options, DR_LAUNCH_interface)) {
        dr_push_setting(&p->set, "NCCL_SOCKET_IFNAME",
                        dr_opt_str(&p->settings.options, DR_LAUNCH_interface));
    }
    if (p->starter == DR_START_MPIRUN && f->is_root) {
        dr_push_setting(&p->set, "OMPI_ALLOW_RUN_AS_ROOT", "1");
        dr_push_setting(&p->set, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
}

dr_status dr_plan_environment(dr_launch_plan *p, const dr_launch_facts *f)
{
    if (!p->is_rank) {
        set_threads(p, f);
        DR_TRY(set_gpus(p, f));
        set_run(p, f);
        set_debug(p, f);
    }
    for (size_t i = 0; f->env[i] != NULL; i++) {
        if (!p->is_rank && is_stale(f->env[i])) {
            dr_str name = {0};
            dr_str_add_n(&name, f->env[i], strcspn(f->env[i], "="));
            dr_strv_push(&p->unset, dr_str_get(&name));
            dr_str_free(&name);
        } else if (!is_set_here(p, f->env[i])) {
            dr_strv_push(&p->env, f->env[i]);
        }
    }
    for (size_t i = 0; i < p->set.n; i++) {
        dr_strv_push(&p->env, p->set.at[i]);
    }
    return DR_OK;
}
