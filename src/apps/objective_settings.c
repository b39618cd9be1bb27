/* --noise_*, --multires_*, --*_snr*, --loss_type and the like as an objective. */
#include "apps/objective_settings.h"

#include "base/log.h"

#include <string.h>

static dr_loss_kind loss_of(const char *name)
{
    return strcmp(name, "l1") == 0          ? DR_LOSS_L1
           : strcmp(name, "huber") == 0     ? DR_LOSS_HUBER
           : strcmp(name, "smooth_l1") == 0 ? DR_LOSS_SMOOTH_L1
                                            : DR_LOSS_L2;
}

static dr_huber_schedule huber_schedule_of(const char *name)
{
    return strcmp(name, "constant") == 0      ? DR_HUBER_CONSTANT
           : strcmp(name, "exponential") == 0 ? DR_HUBER_EXPONENTIAL
                                              : DR_HUBER_SNR;
}

static void advise(const dr_options *o, const dr_objective *j)
{
    static const struct {
        int option, needs;
    } idle[] = {
        {DR_OPT_noise_offset_random_strength, DR_OPT_noise_offset},
        {DR_OPT_ip_noise_gamma_random_strength, DR_OPT_ip_noise_gamma},
        {DR_OPT_multires_noise_discount, DR_OPT_multires_noise_iterations},
    };
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) {
        if (dr_opt_given(o, idle[i].option) && !dr_opt_given(o, idle[i].needs)) {
            dr_warn("--%s changes nothing without --%s",
                    dr_options_table()->specs[idle[i].option].name,
                    dr_options_table()->specs[idle[i].needs].name);
        }
    }
    if (j->zero_terminal_snr && j->prediction != DR_PREDICT_V) {
        dr_warn("--zero_terminal_snr without --v_parameterization: the last timestep holds no "
                "picture, so a network that predicts noise learns nothing there");
    }
    if (j->max_timestep > 0 && j->min_timestep >= j->max_timestep) {
        dr_warn("--min_timestep %d is not below --max_timestep %d: every sample gets timestep %d",
                j->min_timestep, j->max_timestep, j->max_timestep);
    }
}

void dr_settings_objective(const dr_options *o, dr_train_config *c)
{
    dr_objective *j = &c->objective;
    *j = (dr_objective){
        .prediction = dr_opt_flag(o, DR_OPT_v_parameterization) ? DR_PREDICT_V : DR_PREDICT_EPSILON,
        .noise_offset = dr_opt_float_or(o, DR_OPT_noise_offset, 0.0),
        .adaptive_noise_scale = dr_opt_float_or(o, DR_OPT_adaptive_noise_scale, 0.0),
        .noise_offset_random = dr_opt_flag(o, DR_OPT_noise_offset_random_strength),
        .multires_iterations = (int)dr_opt_int_or(o, DR_OPT_multires_noise_iterations, 0),
        .multires_discount = dr_opt_float(o, DR_OPT_multires_noise_discount),
        .ip_noise_gamma = dr_opt_float_or(o, DR_OPT_ip_noise_gamma, 0.0),
        .ip_noise_gamma_random = dr_opt_flag(o, DR_OPT_ip_noise_gamma_random_strength),
        .zero_terminal_snr = dr_opt_flag(o, DR_OPT_zero_terminal_snr),
        .min_timestep = (int)dr_opt_int_or(o, DR_OPT_min_timestep, 0),
        .max_timestep = (int)dr_opt_int_or(o, DR_OPT_max_timestep, 0),
        .min_snr_gamma = dr_opt_float_or(o, DR_OPT_min_snr_gamma, 0.0),
        .scale_v_pred_like_noise_pred = dr_opt_flag(o, DR_OPT_scale_v_pred_loss_like_noise_pred),
        .v_pred_like_loss = dr_opt_float_or(o, DR_OPT_v_pred_like_loss, 0.0),
        .debiased_estimation = dr_opt_flag(o, DR_OPT_debiased_estimation_loss),
        .huber_schedule = huber_schedule_of(dr_opt_str(o, DR_OPT_huber_schedule)),
        .huber_c = dr_opt_float(o, DR_OPT_huber_c),
        .huber_scale = dr_opt_float(o, DR_OPT_huber_scale),
    };
    c->loss = loss_of(dr_opt_str(o, DR_OPT_loss_type));
    dr_log_same_on_all_ranks(true);
    advise(o, j);
    dr_log_same_on_all_ranks(false);
}
