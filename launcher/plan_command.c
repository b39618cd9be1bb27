/* Command lines: mpirun of Open MPI 4 and 5, srun, the agent alone. */
#include "launcher/machines.h"
#include "launcher/plan_internal.h"

#include <stdio.h>
#include <string.h>

static void add_words(dr_launch_plan *p, const char *const *words)
{
    for (size_t i = 0; words[i] != NULL; i++) {
        dr_strv_push(&p->argv, words[i]);
    }
}

static bool user_sets_mca(const dr_launch_plan *p, const dr_launch_facts *f, const char *key)
{
    char name[64];
    (void)snprintf(name, sizeof name, "OMPI_MCA_%s", key);
    const dr_strv *mca = dr_opt_list(&p->settings.options, DR_LAUNCH_mca);
    bool found = dr_env_find(f->env, name) != NULL;
    for (size_t i = 0; i + 1 < mca->n; i += 2) {
        found = found || strcmp(mca->at[i], key) == 0;
    }
    return found;
}

static void add_mca(dr_launch_plan *p, const dr_launch_facts *f, const char *key, const char *value)
{
    if (!user_sets_mca(p, f, key)) {
        add_words(p, (const char *const[]){"--mca", key, value, NULL});
    }
}

/* A setting of the daemons: Open MPI 4 has one kind, 5 hands them to PRRTE under other names. */
static void add_daemon_mca(dr_launch_plan *p, const dr_launch_facts *f, const char *v4,
                           const char *v5, const char *value)
{
    if (!f->mpirun_is_v5) {
        add_mca(p, f, v4, value);
    } else if (v5 != NULL) {
        add_words(p, (const char *const[]){"--prtemca", v5, value, NULL});
    }
}

/* --- one host or several ------------------------------------------------------------------------
 */

static bool is_here(const dr_launch_plan *p, const dr_launch_facts *f)
{
    return p->hosts.n == 0 || (p->hosts.n == 1 && strcmp(p->hosts.at[0].name, f->host) == 0);
}

/* Shared memory alone, no network is looked at; its files lie where the launcher cleans up. */
static void add_one_host(dr_launch_plan *p, const dr_launch_facts *f)
{
    add_mca(p, f, "btl", f->mpirun_is_v5 ? "^tcp" : "^tcp,openib");
    if (f->run_dir != NULL) {
        add_mca(p, f, f->mpirun_is_v5 ? "btl_sm_backing_directory" : "btl_vader_backing_directory",
                f->run_dir);
        add_daemon_mca(p, f, "orte_tmpdir_base", "prte_tmpdir_base", f->run_dir);
    }
}

static void add_hosts(dr_launch_plan *p)
{
    dr_str list = {0};
    for (size_t i = 0; i < p->hosts.n; i++) {
        const dr_host *h = &p->hosts.at[i];
        if (h->ranks > 0) {
            dr_str_printf(&list, "%s%s:%d", list.len > 0 ? "," : "", h->name, h->ranks);
        }
    }
    add_words(p, (const char *const[]){"--host", dr_str_get(&list), NULL});
    dr_str_free(&list);
}

/* The launches on the other machines stand in for ssh. */
static dr_status add_relay(dr_launch_plan *p, const dr_launch_facts *f)
{
    dr_str agent = {0};
    char number[16];
    if (strpbrk(f->bin_dir, " \t") != NULL) {
        DR_FAIL(DR_INVALID,
                "%s: Open MPI cannot start programs on other machines from a folder with a space "
                "in its name; install dreamrun elsewhere",
                f->bin_dir);
    }
    dr_str_printf(&agent, "%s/dreamrun relay", f->bin_dir);
    add_daemon_mca(p, f, "plm_rsh_agent", "plm_ssh_agent", dr_str_get(&agent));
    dr_str_free(&agent);
    (void)snprintf(number, sizeof number, "%d", p->n_machines > 128 ? p->n_machines : 128);
    add_daemon_mca(p, f, "plm_rsh_num_concurrent", "plm_ssh_num_concurrent", number);
    add_daemon_mca(p, f, "plm_rsh_no_tree_spawn", "plm_ssh_no_tree_spawn", "1");
    /* a daemon that stays the relay's child ends with it */
    add_daemon_mca(p, f, "orte_leave_session_attached", "prte_leave_session_attached", "1");
    return DR_OK;
}

static dr_status add_network(dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_optset *o = &p->settings.options;
    const char *interface = dr_opt_str(o, DR_LAUNCH_interface);
    const char *agent = dr_opt_str(o, DR_LAUNCH_rsh_agent);
    if (p->meets) {
        DR_TRY(add_relay(p, f));
        if (interface == NULL && f->machines != NULL && f->machines->network[0] != '\0') {
            interface = f->machines->network;
        }
    }
    if (interface != NULL) {
        add_mca(p, f, "btl_tcp_if_include", interface);
        add_daemon_mca(p, f, "oob_tcp_if_include", "prte_if_include", interface);
    }
    if (agent != NULL) {
        add_daemon_mca(p, f, "plm_rsh_agent", "plm_ssh_agent", agent);
    }
    if (!f->mpirun_is_v5) { /* a host that is cut off is noticed after 6 s instead of never */
        add_mca(p, f, "oob_tcp_keepalive_time", "3");
        add_mca(p, f, "oob_tcp_keepalive_intvl", "1");
        add_mca(p, f, "oob_tcp_keepalive_probes", "3");
    }
    return DR_OK;
}

/* Other hosts get none of our environment by themselves. */
static void add_exports(dr_launch_plan *p)
{
    for (size_t i = 0; i < p->set.n; i++) {
        dr_str name = {0};
        dr_str_add_n(&name, p->set.at[i], strcspn(p->set.at[i], "="));
        /* with a launch on each machine, that chooses its GPUs */
        bool own = p->meets && strcmp(dr_str_get(&name), "CUDA_VISIBLE_DEVICES") == 0;
        if (!own && !dr_str_starts(dr_str_get(&name), "OMPI_")) {
            add_words(p, (const char *const[]){"-x", dr_str_get(&name), NULL});
        }
        dr_str_free(&name);
    }
    static const char *const of_agents[] = {"DREAMRUN_SUPERVISOR", "DREAMRUN_TOKEN"};
    for (size_t i = 0; i < sizeof of_agents / sizeof *of_agents; i++) {
        add_words(p, (const char *const[]){"-x", of_agents[i], NULL});
    }
}

/* --- starters -----------------------------------------------------------------------------------
 */

static dr_status add_mpirun(dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_optset *o = &p->settings.options;
    if (f->mpirun == NULL) {
        DR_FAIL(DR_DEVICE,
                "mpirun is not in PATH, and %d ranks need it; run cluster/install-deps "
                "(Debian: apt install openmpi-bin), or train with --num_processes 1",
                p->n_ranks);
    }
    char number[16];
    (void)snprintf(number, sizeof number, "%d", p->n_ranks);
    add_words(p, (const char *const[]){f->mpirun, "-n", number, "--bind-to", "none", NULL});
    bool here = is_here(p, f);
    if (dr_opt_flag(o, DR_LAUNCH_oversubscribe) || (here && p->n_ranks > f->n_cores)) {
        dr_strv_push(&p->argv, "--oversubscribe");
    }
    if (here) {
        add_one_host(p, f);
    } else {
        add_hosts(p);
        DR_TRY(add_network(p, f));
        add_exports(p);
    }
    add_mca(p, f, "mpi_yield_when_idle",
            "1"); /* a waiting rank leaves its core to computing threads */
    const dr_strv *mca = dr_opt_list(o, DR_LAUNCH_mca);
    for (size_t i = 0; i + 1 < mca->n; i += 2) {
        add_words(p, (const char *const[]){"--mca", mca->at[i], mca->at[i + 1], NULL});
    }
    return DR_OK;
}

static dr_status add_srun(dr_launch_plan *p, const dr_launch_facts *f)
{
    char ranks[32];
    if (f->srun == NULL) {
        DR_FAIL(DR_DEVICE, "srun is not in PATH, and --launcher srun needs it");
    }
    (void)snprintf(ranks, sizeof ranks, "--ntasks=%d", p->n_ranks);
    add_words(p, (const char *const[]){f->srun, "--mpi=pmix", "--overlap", "--no-kill",
                                       "--kill-on-bad-exit=0", "--cpu-bind=none", ranks, NULL});
    if (dr_env_find(f->env, "SLURM_CPUS_PER_TASK") !=
        NULL) { /* srun does not take it over itself */
        char threads[48];
        (void)snprintf(threads, sizeof threads, "--cpus-per-task=%d", p->n_threads);
        dr_strv_push(&p->argv, threads);
    }
    dr_str list = {0};
    size_t used = 0;
    for (size_t i = 0; i < p->hosts.n; i++) {
        const dr_host *h = &p->hosts.at[i];
        if (h->ranks > 0) {
            dr_str_printf(&list, "%s%s", used > 0 ? "," : "--nodelist=", h->name);
            used++;
        }
    }
    if (used > 0) {
        char nodes[32];
        (void)snprintf(nodes, sizeof nodes, "--nodes=%zu", used);
        add_words(p, (const char *const[]){nodes, dr_str_get(&list), NULL});
    }
    dr_str_free(&list);
    return DR_OK;
}

dr_status dr_plan_command(dr_launch_plan *p, const dr_launch_facts *f)
{
    dr_str agent = {0};
    if (!p->supervised) {
        return DR_OK;
    }
    if (p->starter == DR_START_MPIRUN) {
        DR_TRY(add_mpirun(p, f));
    } else if (p->starter == DR_START_SRUN) {
        DR_TRY(add_srun(p, f));
    }
    dr_str_printf(&agent, "%s/dreamrun", f->bin_dir);
    add_words(p, (const char *const[]){dr_str_get(&agent), "agent", NULL});
    dr_str_free(&agent);
    return DR_OK;
}
