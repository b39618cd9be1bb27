#include "train/model/known_models.h"

#include <string.h>

static const dr_known_model known[] = {
#define X(model, file, bytes, sha256) {model, file, bytes, sha256},
#include "train/model/known_models.def"
#undef X
};

size_t dr_known_model_count(void)
{
    return sizeof known / sizeof *known;
}

const dr_known_model *dr_known_model_at(size_t i)
{
    return &known[i];
}

const dr_known_model *dr_known_model_by_hash(const char *sha256)
{
    for (size_t i = 0; i < dr_known_model_count(); i++) {
        if (strcmp(known[i].sha256, sha256) == 0) {
            return &known[i];
        }
    }
    return NULL;
}
