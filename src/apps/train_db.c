/*
 * train_db - DreamBooth training.
 */
#include "apps/trainer.h"

int main(int argc, char **argv)
{
    return dr_trainer_main(DR_PROGRAM_TRAIN_DB, argc, argv);
}
