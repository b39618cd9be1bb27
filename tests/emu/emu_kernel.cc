/*
 * tests/emu/emu_kernel.cc - one kernel launch: blocks one after another, the threads of a block as
 * fibers that stop at barriers and shuffles only.
 *
 * Found: a barrier that not all threads of the block reach, or reach at different places; a shuffle
 * that not all lanes of the warp reach; shared memory out of bounds, read before written, or
 * touched by two threads between barriers with one of them writing. Blocks and threads run in a
 * random order (emu_seed), so that results that depend on the order show.
 */
#include "emu.h"
#include "emu_internal.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <vector>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

dim3 emu_thread_idx, emu_block_idx, emu_block_dim, emu_grid_dim;

namespace
{
enum state { RUN, AT_BARRIER, AT_WARP, DONE };
constexpr size_t STACK_BYTES = 128 << 10;
constexpr unsigned MAX_THREADS = 1024, WARP = 32;

struct fiber {
    void *sp; /* saved stack pointer while it does not run */
    char *stack;
#ifndef __x86_64__
    ucontext_t context;
#endif
    state st;
    const char *file; /* where it waits */
    int line;
};

struct word { /* last accesses of 4 bytes of shared memory, by (thread + 1); 0: nobody */
    uint32_t writer, write_epoch, write_warp_epoch;
    uint32_t reader, read_epoch, read_warp_epoch;
    bool many_readers, written;
};

struct warp_state {
    unsigned arrived;
    unsigned phase;
    uint32_t epoch;
    uint64_t value[2][WARP];
};

fiber fibers[MAX_THREADS];
warp_state warps[MAX_THREADS / WARP];
std::vector<char> shared_memory;
std::vector<word> shadow;
size_t shared_bytes_now;
unsigned n_threads, current;
uint32_t epoch;
bool failed;
std::string *failure;
const char *kernel_name;
const std::function<void()> *kernel_body;
uint64_t order_seed = 1, launches;
#ifdef __x86_64__
void *scheduler_sp;
#else
ucontext_t scheduler_context;
#endif
#ifdef __SANITIZE_ADDRESS__
void *scheduler_fake;
const void *scheduler_bottom;
size_t scheduler_size;
#endif

void split(unsigned t, unsigned *x, unsigned *y, unsigned *z)
{
    *x = t % emu_block_dim.x;
    *y = t / emu_block_dim.x % emu_block_dim.y;
    *z = t / (emu_block_dim.x * emu_block_dim.y);
}

#ifdef __x86_64__
extern "C" void emu_switch(void **save, void *load);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch,@function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch,.-emu_switch
)");
#endif

void to_scheduler()
{
    fiber *f = &fibers[current];
#ifdef __SANITIZE_ADDRESS__
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(f->st == DONE ? nullptr : &fake, scheduler_bottom,
                                   scheduler_size);
#endif
#ifdef __x86_64__
    emu_switch(&f->sp, scheduler_sp);
#else
    swapcontext(&f->context, &scheduler_context);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void enter()
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
    (*kernel_body)();
    fibers[current].st = DONE;
    to_scheduler();
    abort(); /* a finished fiber is never resumed */
}

void resume(unsigned t)
{
    fiber *f = &fibers[t];
    current = t;
    split(t, &emu_thread_idx.x, &emu_thread_idx.y, &emu_thread_idx.z);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&scheduler_fake, f->stack, STACK_BYTES);
#endif
#ifdef __x86_64__
    emu_switch(&scheduler_sp, f->sp);
#else
    swapcontext(&scheduler_context, &f->context);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

void prepare(fiber *f)
{
    if (f->stack == nullptr) {
        void *p =
            mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            abort();
        }
        f->stack = static_cast<char *>(p);
    }
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(f->stack, STACK_BYTES); /* a failed launch left its frames */
#endif
#ifdef __x86_64__
    void **top = reinterpret_cast<void **>(f->stack + STACK_BYTES);
    *--top = nullptr; /* keeps the alignment that a call leaves */
    *--top = reinterpret_cast<void *>(enter);
    for (int i = 0; i < 6; i++) {
        *--top = nullptr;
    }
    f->sp = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f->context, enter, 0);
#endif
    f->st = RUN;
}

std::string describe(unsigned t)
{
    unsigned x, y, z;
    char text[256];
    split(t, &x, &y, &z);
    snprintf(text, sizeof text, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u)", kernel_name,
             emu_block_idx.x, emu_block_idx.y, emu_block_idx.z, x, y, z);
    return text;
}

std::string place(const fiber *f)
{
    const char *slash = strrchr(f->file, '/');
    return std::string(slash != nullptr ? slash + 1 : f->file) + ":" + std::to_string(f->line);
}

void fail_with(const std::string &text)
{
    if (!failed) {
        failed = true;
        *failure = text;
    }
}

/* Ends the launch from inside a thread. */
[[noreturn]] void fail_here(const std::string &text)
{
    fail_with(describe(current) + ": " + text);
    fibers[current].st = DONE;
    to_scheduler();
    abort();
}

/* No thread can run: all wait at the same barrier (released), or something is wrong. */
bool release_barrier()
{
    int first = -1;
    for (unsigned t = 0; t < n_threads; t++) {
        const fiber *f = &fibers[t];
        if (f->st == AT_WARP) {
            fail_with(describe(t) + ": waits at " + place(f) +
                      " for lanes of its warp that never come");
            return false;
        }
        if (f->st == AT_BARRIER && first < 0) {
            first = static_cast<int>(t);
        }
    }
    if (first < 0) {
        return false; /* all done */
    }
    for (unsigned t = 0; t < n_threads; t++) {
        const fiber *f = &fibers[t];
        if (f->st == DONE) {
            fail_with(describe(t) + ": ended, while thread " + std::to_string(first) +
                      " waits at the barrier " + place(&fibers[first]));
            return false;
        }
        if (f->line != fibers[first].line || strcmp(f->file, fibers[first].file) != 0) {
            fail_with(describe(t) + ": waits at the barrier " + place(f) + ", thread " +
                      std::to_string(first) + " at another one, " + place(&fibers[first]));
            return false;
        }
    }
    for (unsigned t = 0; t < n_threads; t++) {
        fibers[t].st = RUN;
    }
    epoch++;
    return true;
}

uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/* An order of 0..n-1: i -> (a i + b) mod n with a coprime to n. */
struct order {
    uint64_t n, a, b;
    order(uint64_t n_, uint64_t key) : n(n_), a(mix(key) % n_ | 1), b(mix(key + 1) % n_)
    {
        while (gcd(a, n) != 1) {
            a += 2;
        }
    }
    static uint64_t gcd(uint64_t x, uint64_t y)
    {
        return y == 0 ? x : gcd(y, x % y);
    }
    unsigned at(uint64_t i) const
    {
        return static_cast<unsigned>((a * i + b) % n);
    }
};

void run_block(const order &threads)
{
    memset(warps, 0, sizeof warps);
    memset(shared_memory.data(), 0xff, shared_bytes_now);
    std::fill(shadow.begin(), shadow.end(), word{});
    epoch = 1;
    for (unsigned t = 0; t < n_threads; t++) {
        prepare(&fibers[t]);
    }
    do {
        for (bool progress = true; progress && !failed;) {
            progress = false;
            for (unsigned i = 0; i < n_threads && !failed; i++) {
                const unsigned t = threads.at(i);
                if (fibers[t].st == RUN) {
                    resume(t);
                    progress = true;
                }
            }
        }
    } while (!failed && release_barrier());
}

/* Without fibers; a thread that waits all the same has nobody to wait for. */
void run_alone(const order &threads)
{
    epoch = 0;
    for (unsigned i = 0; i < n_threads; i++) {
        current = threads.at(i);
        split(current, &emu_thread_idx.x, &emu_thread_idx.y, &emu_thread_idx.z);
        (*kernel_body)();
    }
}

void check_may_meet()
{
    if (epoch == 0) {
        fprintf(stderr, "emulated GPU: %s: waits or shares in a launch by DR_LAUNCH_ALONE\n",
                describe(current).c_str());
        abort();
    }
}

/* All lanes of the warp must come; true for the last one, which wakes the others. */
void meet(const char *file, int line)
{
    check_may_meet();
    const unsigned w = current / WARP;
    fiber *f = &fibers[current];
    if (n_threads % WARP != 0) {
        fail_here("a warp operation in a block whose size is no multiple of 32");
    }
    f->file = file;
    f->line = line;
    if (++warps[w].arrived < WARP) {
        f->st = AT_WARP;
        to_scheduler();
        return;
    }
    for (unsigned t = w * WARP; t < (w + 1) * WARP; t++) {
        if (t != current && (fibers[t].st != AT_WARP || fibers[t].line != line ||
                             strcmp(fibers[t].file, file) != 0)) {
            fail_here("reaches " + place(f) + ", lane " + std::to_string(t % WARP) +
                      " is elsewhere");
        }
        fibers[t].st = RUN;
    }
    warps[w].arrived = 0;
    warps[w].phase ^= 1;
}

bool ordered(uint32_t other, uint32_t at_epoch, uint32_t at_warp_epoch)
{
    const unsigned t = other - 1;
    return other == 0 || t == current || at_epoch != epoch ||
           (t / WARP == current / WARP && at_warp_epoch != warps[current / WARP].epoch);
}
} // namespace

void emu_syncthreads(const char *file, int line)
{
    check_may_meet();
    fibers[current].file = file;
    fibers[current].line = line;
    fibers[current].st = AT_BARRIER;
    to_scheduler();
}

void emu_syncwarp(const char *file, int line)
{
    const unsigned w = current / WARP;
    const bool last = warps[w].arrived == WARP - 1;
    meet(file, line);
    if (last) {
        warps[w].epoch++;
    }
}

unsigned emu_lane()
{
    return current % WARP;
}

uint64_t emu_shuffle(uint64_t value, unsigned from_lane, const char *file, int line)
{
    warp_state *w = &warps[current / WARP];
    uint64_t *slot = w->value[w->phase]; /* two sets: nobody writes one that is still read */
    slot[current % WARP] = value;
    meet(file, line);
    return slot[from_lane % WARP];
}

void emu_fail(const char *what, const char *name, size_t index, size_t limit)
{
    fail_here(std::string(what) + ": " + name + "[" + std::to_string(index) + "] of " +
              std::to_string(limit));
}

void emu_shared_declare(size_t offset, size_t bytes, const char *name)
{
    check_may_meet();
    if (offset % 8 != 0 || offset + bytes > shared_bytes_now) {
        fail_here(std::string("shared array ") + name + " ends at byte " +
                  std::to_string(offset + bytes) + ", the launch gave " +
                  std::to_string(shared_bytes_now));
    }
}

void *emu_shared_access(size_t offset, size_t bytes, bool write, const char *name)
{
    const uint32_t me = current + 1;
    const uint32_t my_warp_epoch = warps[current / WARP].epoch;
    for (size_t i = offset / 4; i < (offset + bytes) / 4; i++) {
        word *s = &shadow[i];
        const bool clear_of_writer = ordered(s->writer, s->write_epoch, s->write_warp_epoch);
        const bool clear_of_readers = s->many_readers
                                          ? s->read_epoch != epoch
                                          : ordered(s->reader, s->read_epoch, s->read_warp_epoch);
        if (!clear_of_writer || (write && !clear_of_readers)) {
            const uint32_t other = clear_of_writer ? s->reader : s->writer;
            fail_here(std::string("a race on shared array ") + name + ": thread " +
                      std::to_string(other - 1) + (clear_of_writer ? " reads" : " writes") +
                      " and this " + (write ? "writes" : "reads") + " byte " +
                      std::to_string(4 * i) + " without a barrier between them");
        }
        if (write) {
            s->writer = me;
            s->write_epoch = epoch;
            s->write_warp_epoch = my_warp_epoch;
            s->written = true;
        } else {
            if (!s->written) {
                fail_here(std::string("reads byte ") + std::to_string(4 * i) + " of shared array " +
                          name + ", which nobody wrote");
            }
            s->many_readers = s->reader != 0 && s->reader != me && s->read_epoch == epoch;
            s->reader = me;
            s->read_epoch = epoch;
            s->read_warp_epoch = my_warp_epoch;
        }
    }
    return shared_memory.data() + offset;
}

bool emu_run_kernel(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                    bool threads_meet, const std::function<void()> &body, std::string *reason)
{
    n_threads = block.x * block.y * block.z;
    const uint64_t n_blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    if (n_threads == 0 || n_threads > MAX_THREADS || block.z > 64 || n_blocks == 0 ||
        grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffU || shared_bytes > 48 * 1024) {
        *reason = std::string("kernel ") + kernel + ": a launch of " + std::to_string(n_blocks) +
                  " blocks x " + std::to_string(n_threads) + " threads with " +
                  std::to_string(shared_bytes) + " bytes of shared memory is outside CUDA's limits";
        return false;
    }
    kernel_name = kernel;
    kernel_body = &body;
    failure = reason;
    failed = false;
    emu_block_dim = block;
    emu_grid_dim = grid;
    shared_bytes_now = shared_bytes;
    shared_memory.resize(shared_bytes + 8);
    shadow.resize(shared_bytes / 4 + 1);
    launches++;
    const order blocks(n_blocks, order_seed + 2 * launches);
    const order threads(n_threads, ~order_seed + 2 * launches);
    for (uint64_t i = 0; i < n_blocks && !failed; i++) {
        const unsigned b = blocks.at(i);
        emu_block_idx = dim3(b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y));
        if (threads_meet) {
            run_block(threads);
        } else {
            run_alone(threads);
        }
    }
    return !failed;
}

void emu_seed(uint64_t seed)
{
    order_seed = seed;
}

uint64_t emu_total_launches(void)
{
    return launches;
}
