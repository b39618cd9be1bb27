#include "ops/embedding.h"

#include "ops/ops_internal.h"

static void check_embedding(const dr_context *cx, const char *op, const dr_tensor *ids,
                            const dr_tensor *tokens, const dr_tensor *positions, const dr_tensor *y)
{
    dr_ops_check_activation(cx, op, "y", y);
    DR_CHECK(y->rank == 3, "%s: tokens are (N,S,C)", op);
    dr_ops_check_shape(op, "ids", ids, DR_I32, 2, y->dim);
    DR_CHECK(tokens == NULL || (tokens->rank == 2 && tokens->dim[1] == y->dim[2]),
             "%s: the table has %lld columns", op, tokens != NULL ? (long long)tokens->dim[1] : 0);
    DR_CHECK(positions == NULL || (positions->rank == 2 && positions->dim[1] == y->dim[2] &&
                                   positions->dim[0] >= y->dim[1]),
             "%s: positions are too few", op);
}

dr_status dr_embedding(dr_context *cx, const dr_embedding_args *a)
{
    DR_CHECK(a->tokens != NULL && a->positions != NULL, "embedding: a table is missing");
    check_embedding(cx, "embedding", a->ids, a->tokens, a->positions, a->y);
    DR_DISPATCH(cx, embedding, a);
}

dr_status dr_embedding_backward(dr_context *cx, const dr_embedding_backward_args *a)
{
    check_embedding(cx, "embedding_backward", a->ids, a->dtokens, a->dpositions, a->dy);
    DR_DISPATCH(cx, embedding_backward, a);
}

dr_status dr_timestep_embedding(dr_context *cx, const dr_timestep_embedding_args *a)
{
    dr_ops_check_activation(cx, "timestep_embedding", "y", a->y);
    DR_CHECK(a->y->rank == 2 && a->y->dim[1] % 2 == 0, "timestep_embedding: y is (N,C), C even");
    dr_ops_check_shape("timestep_embedding", "t", a->t, DR_F32, 1, a->y->dim);
    DR_DISPATCH(cx, timestep_embedding, a);
}
