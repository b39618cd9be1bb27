#include "text/vocabulary.h"

/* Printable bytes in three runs, then the rest in increasing order: three runs again. */
static const struct {
    unsigned first, last;
} runs[] = {{33, 126}, {161, 172}, {174, 255}, {0, 32}, {127, 160}, {173, 173}};
enum { N_PRINTABLE = 188 };

uint16_t dr_vocab_symbol_of_byte(unsigned byte)
{
    unsigned symbol = 0;
    for (unsigned i = 0; i < sizeof runs / sizeof *runs; i++) {
        if (byte >= runs[i].first && byte <= runs[i].last) {
            return (uint16_t)(symbol + byte - runs[i].first);
        }
        symbol += runs[i].last - runs[i].first + 1;
    }
    return 0;
}

uint32_t dr_vocab_codepoint_of_symbol(unsigned symbol)
{
    if (symbol >= N_PRINTABLE) {
        return 0x100 + symbol - N_PRINTABLE;
    }
    for (unsigned i = 0;; i++) {
        unsigned n = runs[i].last - runs[i].first + 1;
        if (symbol < n) {
            return runs[i].first + symbol;
        }
        symbol -= n;
    }
}
