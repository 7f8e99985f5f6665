#include "machine.h"

#include <cuda_fp16.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace {
constexpr size_t GUARD = 4096, STACK = 64 * 1024;
constexpr int LANES = 32, ROWS = 16, DEPTH = 16;   // of a warp's share of a matrix product
}  // namespace

alignas(128) unsigned char shared[machine::SHARED_BYTES + GUARD];

namespace machine {

Dim thread, block, threads, grid;

namespace {

unsigned char beyond[SHARED_BYTES];   // shared memory as bulk copies and matrix instructions see it

std::mt19937_64 chance;

// What a matrix instruction multiplies; d is the calling lane's.
struct Product {
    float* d;
    int columns;
    uint64_t a, b;
    bool add;

    bool same(const Product& other) const {
        return columns == other.columns && a == other.a && b == other.b && add == other.add;
    }
};

// Instructions that a lane committed together, and what their sums held before.
struct Group {
    std::vector<Product> products;
    std::map<float*, std::vector<float>> before;
};

struct Coroutine {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool done = false, fenced = false, begun = false;
    const char* waits_for = "";
    uint32_t which = 0;
    Group open;
    std::vector<std::shared_ptr<Group>> committed;
    size_t finished = 0;   // groups
};

// mbarrier: a phase ends when nothing is pending; the next one begins at once.
struct Barrier {
    uint32_t expected = 0, pending = 0;
    int64_t bytes = 0;
    uint32_t phase = 0;
    std::vector<int> waiting;
};

struct Meeting {
    uint32_t arrived = 0;
    bool fenced = true;
    std::vector<int> waiting;
};

struct Warp {
    std::array<float, LANES> values;
    int arrived = 0;
    std::vector<int> exchanging, multiplying;
    size_t started = 0;                // groups
    std::vector<Product> history;      // all that it issued, without d
};

// Something that the hardware does by itself.
struct Pending {
    int warp;   // that multiplies; -1: a copy
    uint32_t to;
    const void* from;
    uint32_t bytes, barrier;
    uint64_t rank = chance();   // the greatest goes first where it is late
};

// When the hardware does what is pending: at once; when no thread can go on, some of it after all else; at any time.
enum class Haste { AT_ONCE, LATE, ANY };

struct Block {
    std::vector<Coroutine> coroutines;
    std::vector<Warp> warps;
    std::vector<int> ready;
    std::vector<Pending> pending;
    std::map<uint32_t, Barrier> barriers;
    std::map<uint32_t, Meeting> meetings;
    Haste haste;
    bool newest_first;   // of the threads that can go on
};

std::mutex one_at_a_time;
const Launch* launch_;
const std::function<void()>* kernel_;
Block* now;
int running;
ucontext_t scheduler;
std::string error;

uint64_t draw(uint64_t below) { return chance() % below; }

// Goes on when it is this thread's turn again; what the hardware does by itself ends here.
void leave() {
    if (running < 0) setcontext(&scheduler);
    swapcontext(&now->coroutines[running].context, &scheduler);
}

template <class... T>
[[noreturn]] void fail(const T&... parts) {
    std::ostringstream text;
    text << "block " << block.x << "," << block.y << " thread " << running << ": ";
    (text << ... << parts);
    error = text.str();
    leave();
    __builtin_unreachable();
}

void sleep_among(std::vector<int>& waiting, const char* what, uint32_t which) {
    Coroutine& self = now->coroutines[running];
    self.waits_for = what;
    self.which = which;
    waiting.push_back(running);
    leave();
}

void wake(std::vector<int>& waiting) {
    now->ready.insert(now->ready.end(), waiting.begin(), waiting.end());
    waiting.clear();
}

uint32_t offset(uint32_t address, uint32_t bytes, const char* what) {
    if (address < SHARED_START || address - SHARED_START + bytes > launch_->shared)
        fail(what, " at shared address ", address, ", ", bytes, " bytes: the block has ", launch_->shared, " from ",
             SHARED_START);
    return address - SHARED_START;
}

Barrier& barrier_at(uint32_t address) {
    const auto found = now->barriers.find(address);
    if (found == now->barriers.end()) fail("no barrier was made at shared address ", address);
    return found->second;
}

void end_phase_if_complete(Barrier& barrier) {
    if (barrier.pending || barrier.bytes) return;
    ++barrier.phase;
    barrier.pending = barrier.expected;
    wake(barrier.waiting);
}

// ---- matrix instructions ----

const std::vector<float>& halves() {
    static const std::vector<float> table = [] {
        std::vector<float> made(1 << 16);
        for (uint32_t bits = 0; bits < made.size(); ++bits) made[bits] = __half2float(__ushort_as_half(bits));
        return made;
    }();
    return table;
}

// Row r and column k of a matrix of 16 columns, no swizzle, K-major. PTX ISA: cores of 8 rows of 16 bytes lie
// together; `leading` bytes from one to the next along K, `stride` bytes to the next 8 rows.
void read_row(uint64_t descriptor, int r, float* into) {
    const uint32_t start = (descriptor & 0x3FFF) << 4, leading = (descriptor >> 16 & 0x3FFF) << 4;
    const uint32_t stride = (descriptor >> 32 & 0x3FFF) << 4;
    if (descriptor >> 46) fail("a matrix descriptor asks for swizzling or a base offset");
    for (int core = 0; core < 2; ++core) {
        const uint32_t from = offset(start + r / 8 * stride + r % 8 * 16 + core * leading, 16, "a matrix");
        uint16_t bits[8];
        std::memcpy(bits, beyond + from, 16);
        for (int k = 0; k < 8; ++k) into[8 * core + k] = halves()[bits[k]];
    }
}

// PTX ISA, accumulator of m64nNk16: row and column of element i of a lane, within its warp's 16 rows.
int row_of(int lane, int i) { return lane / 4 + 8 * (i / 2 % 2); }
int column_of(int lane, int i) { return 8 * (i / 4) + lane % 4 * 2 + i % 2; }

void multiply_warp(int index) {
    Warp& warp = now->warps[index];
    std::array<Group*, LANES> lanes;
    for (int lane = 0; lane < LANES; ++lane)
        lanes[lane] = now->coroutines[index * LANES + lane].committed[warp.started].get();
    ++warp.started;
    for (size_t i = 0; i < lanes[0]->products.size(); ++i)
        for (const Group* group : lanes)
            if (group->products.size() != lanes[0]->products.size() || !group->products[i].same(lanes[0]->products[i]))
                fail("the lanes of warp ", index, " issued different matrix instructions");
    std::map<float*, std::vector<float>> sums;   // by lane 0's d: 16 rows
    for (size_t i = 0; i < lanes[0]->products.size(); ++i) {
        const Product& product = lanes[0]->products[i];
        const int n = product.columns;
        auto [at, fresh] = sums.try_emplace(product.d, ROWS * n);
        std::vector<float>& sum = at->second;
        if (fresh && product.add)
            for (int lane = 0; lane < LANES; ++lane) {
                const std::vector<float>& before = lanes[lane]->before.at(lanes[lane]->products[i].d);
                for (int e = 0; e < n / 2; ++e) sum[row_of(lane, e) * n + column_of(lane, e)] = before[e];
            }
        if (!product.add) std::fill(sum.begin(), sum.end(), 0.f);
        static float a[DEPTH], row[DEPTH], b[DEPTH * 256];
        for (int c = 0; c < n; ++c) {
            read_row(product.b, c, row);
            for (int k = 0; k < DEPTH; ++k) b[k * n + c] = row[k];
        }
        for (int r = 0; r < ROWS; ++r) {
            read_row(product.a, index % 4 * ROWS + r, a);
            float* into = sum.data() + r * n;
            for (int k = 0; k < DEPTH; ++k)
                for (int c = 0; c < n; ++c) into[c] += a[k] * b[k * n + c];
        }
    }
    for (int lane = 0; lane < LANES; ++lane)
        for (size_t i = 0; i < lanes[lane]->products.size(); ++i) {
            const int n = lanes[0]->products[i].columns;
            const std::vector<float>& sum = sums.at(lanes[0]->products[i].d);
            float* const d = lanes[lane]->products[i].d;
            for (int e = 0; e < n / 2; ++e) d[e] = sum[row_of(lane, e) * n + column_of(lane, e)];
        }
    for (const Product& product : lanes[0]->products)
        warp.history.push_back({nullptr, product.columns, product.a, product.b, product.add});
    for (int lane = 0; lane < LANES; ++lane) {
        Coroutine& coroutine = now->coroutines[index * LANES + lane];
        coroutine.committed[coroutine.finished++].reset();
    }
    wake(warp.multiplying);
}

// ---- scheduling ----

void do_pending() {
    std::vector<Pending>& pending = now->pending;
    auto at = pending.begin() + draw(pending.size());
    if (now->haste == Haste::LATE)
        at = std::max_element(pending.begin(), pending.end(), [](auto& a, auto& b) { return a.rank < b.rank; });
    // What one warp issued stays in order.
    if (at->warp >= 0)
        at = std::find_if(pending.begin(), pending.end(), [&](const Pending& other) { return other.warp == at->warp; });
    const Pending it = *at;
    pending.erase(at);
    if (it.warp >= 0) return multiply_warp(it.warp);
    std::memcpy(beyond + it.to, it.from, it.bytes);
    std::memcpy(shared + it.to, it.from, it.bytes);
    Barrier& barrier = now->barriers.at(it.barrier);
    barrier.bytes -= it.bytes;
    end_phase_if_complete(barrier);
}

void begin() {
    (*kernel_)();
    Coroutine& self = now->coroutines[running];
    if (!self.open.products.empty()) fail("ends with matrix instructions that were not committed");
    if (self.finished < self.committed.size()) fail("ends with matrix instructions that were not waited for");
    self.done = true;
    leave();
}

bool goes_first() {
    if (now->pending.empty()) return false;
    if (now->ready.empty() || now->haste == Haste::AT_ONCE) return true;
    return now->haste == Haste::ANY && draw(2);
}

void run_block() {
    Block it;
    now = &it;
    it.haste = static_cast<Haste>(draw(3));
    it.newest_first = draw(2);
    it.coroutines.resize(launch_->threads);
    it.warps.resize((launch_->threads + LANES - 1) / LANES);
    std::memset(shared, POISON, sizeof shared);
    std::memset(beyond, POISON, sizeof beyond);
    for (int i = 0; i < static_cast<int>(launch_->threads); ++i) {
        Coroutine& coroutine = it.coroutines[i];
        coroutine.stack.reset(new char[STACK]);
        getcontext(&coroutine.context);
        coroutine.context.uc_stack = {coroutine.stack.get(), 0, STACK};
        coroutine.context.uc_link = nullptr;
        makecontext(&coroutine.context, begin, 0);
        it.ready.push_back(i);
    }
    while (error.empty() && (!it.ready.empty() || !it.pending.empty())) {
        running = -1;
        if (goes_first()) {
            // Errors come back here too: the hardware has no stack of its own to leave.
            static ucontext_t hardware;
            static char stack[STACK];
            getcontext(&hardware);
            hardware.uc_stack = {stack, 0, STACK};
            hardware.uc_link = &scheduler;
            makecontext(&hardware, do_pending, 0);
            swapcontext(&scheduler, &hardware);
            continue;
        }
        if (!it.newest_first) std::swap(it.ready[draw(it.ready.size())], it.ready.back());
        running = it.ready.back();
        it.ready.pop_back();
        thread = {static_cast<unsigned>(running), 0, 0};
        swapcontext(&scheduler, &it.coroutines[running].context);
    }
    if (!error.empty()) return;
    std::ostringstream text;
    text << "block " << block.x << "," << block.y << ": ";
    for (size_t i = 0; i < it.coroutines.size(); ++i)
        if (!it.coroutines[i].done) {
            const Coroutine& left = it.coroutines[i];
            text << "thread " << i << " waits for ever for " << left.waits_for << " " << left.which;
            error = text.str();
            return;
        }
    for (size_t i = 0; i < it.warps.size(); ++i) {
        const auto &mine = it.warps[i].history, &first = it.warps[i / 4 * 4].history;
        const auto same = [](const Product& a, const Product& b) { return a.same(b); };
        if (!std::equal(mine.begin(), mine.end(), first.begin(), first.end(), same))
            error = text.str() + "the warps of a warpgroup issued different matrix instructions";
    }
    for (size_t i = launch_->shared; i < sizeof shared; ++i)
        if (shared[i] != POISON)
            error = text.str() + "a store beyond the block's shared memory, at byte " + std::to_string(i);
}

}  // namespace

const char* refuse(const char* why) {
    error = why;
    return error.c_str();
}

const char* run(const Launch& launch, const std::function<void()>& kernel) {
    const std::lock_guard held(one_at_a_time);
    error.clear();
    if (launch.threads == 0 || launch.threads > 1024) return refuse("a block has 1 to 1024 threads");
    if (launch.shared > SHARED_BYTES) return refuse("more shared memory than a block may have");
    launch_ = &launch;
    kernel_ = &kernel;
    chance.seed(launch.seed);
    threads = {launch.threads, 1, 1};
    grid = launch.grid;
    // Blocks run in any order: none may need another.
    std::vector<Dim> blocks;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) blocks.push_back({x, y, z});
    std::shuffle(blocks.begin(), blocks.end(), chance);
    for (const Dim& next : blocks) {
        block = next;
        run_block();
        if (!error.empty()) return error.c_str();
    }
    return nullptr;
}

void meet(uint32_t barrier, uint32_t count) {
    if (barrier >= 16) fail("there are barriers 0 to 15, not ", barrier);
    if (count % LANES) fail("a barrier of ", count, " threads, not whole warps");
    Meeting& meeting = now->meetings[barrier];
    Coroutine& self = now->coroutines[running];
    meeting.fenced &= self.fenced;
    self.fenced = false;
    if (++meeting.arrived < count) return sleep_among(meeting.waiting, "barrier", barrier);
    if (meeting.fenced) std::memcpy(beyond, shared, launch_->shared);
    meeting.arrived = 0;
    meeting.fenced = true;
    wake(meeting.waiting);
}

float exchange(float value, uint32_t mask) {
    Warp& warp = now->warps[running / LANES];
    const int lane = running % LANES;
    // The values stay until all have met again: every lane reads before any lane writes anew.
    for (const bool writes : {true, false}) {
        if (writes) warp.values[lane] = value;
        if (!writes) value = warp.values[lane ^ mask];
        if (++warp.arrived < LANES) {
            sleep_among(warp.exchanging, "the lanes of warp", running / LANES);
        } else {
            warp.arrived = 0;
            wake(warp.exchanging);
        }
    }
    return value;
}

void fence() { now->coroutines[running].fenced = true; }

void barrier_init(uint32_t barrier, uint32_t arrivals) {
    offset(barrier, 8, "a barrier");
    if (barrier % 8) fail("a barrier at shared address ", barrier, ", not a multiple of 8");
    if (arrivals == 0 || arrivals > MOST_PENDING) fail("a barrier of ", arrivals, " arrivals");
    Barrier& made = now->barriers[barrier] = {};
    made.expected = made.pending = arrivals;
}

void barrier_arrive(uint32_t address, uint32_t arrivals, uint32_t bytes) {
    Barrier& barrier = barrier_at(address);
    if (arrivals == 0 || arrivals > barrier.pending)
        fail(arrivals, " arrivals at the barrier at ", address, ", of which ", barrier.pending, " are pending");
    barrier.bytes += bytes;
    if (barrier.bytes > MOST_PENDING) fail("more bytes than a barrier counts");
    barrier.pending -= arrivals;
    end_phase_if_complete(barrier);
}

// True of a phase's parity once that phase has ended: the one before the current phase, of whose parity the
// phase two before and the phase after the current one are as well.
void barrier_wait(uint32_t address, uint32_t parity) {
    Barrier& barrier = barrier_at(address);
    while ((barrier.phase & 1) == parity)
        sleep_among(barrier.waiting, "the barrier at shared address", address);
}

void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
    const uint32_t at = offset(to, bytes, "a bulk copy");
    const uint64_t start = reinterpret_cast<uint64_t>(from);
    if (to % 16 || start % 16 || bytes % 16 || bytes == 0)
        fail("a bulk copy of ", bytes, " bytes from ", from, " to ", to, ": not all multiples of 16");
    const Range* const end = launch_->memory + launch_->ranges;
    const auto holds = [&](const Range& r) { return start >= r.start && start + bytes <= r.start + r.size; };
    if (std::none_of(launch_->memory, end, holds))
        fail("a bulk copy of ", bytes, " bytes from ", from, ", which is not all in one piece of device memory");
    barrier_at(barrier);
    // Whoever still reads what was there, or reads too early what will be there, reads this.
    std::memset(beyond + at, POISON, bytes);
    std::memset(shared + at, POISON, bytes);
    now->pending.push_back({-1, at, from, bytes, barrier});
}

void matrices_begin() { now->coroutines[running].begun = true; }

void multiply(float* d, int columns, uint64_t a, uint64_t b, bool add) {
    Coroutine& self = now->coroutines[running];
    if (!self.begun) fail("a matrix instruction without a fence before it");
    if (self.open.before.try_emplace(d, d, d + columns / 2).second)
        std::memset(d, POISON, columns / 2 * sizeof *d);
    self.open.products.push_back({d, columns, a, b, add});
}

void matrices_commit() {
    Coroutine& self = now->coroutines[running];
    self.committed.push_back(std::make_shared<Group>(std::move(self.open)));
    self.open = {};
    // A warp's share begins when all its lanes have come to it.
    const size_t group = self.committed.size();
    const int warp = running / LANES;
    for (int lane = 0; lane < LANES; ++lane)
        if (now->coroutines[warp * LANES + lane].committed.size() < group) return;
    now->pending.push_back({warp, 0, nullptr, 0, 0});
}

void matrices_wait() {
    Coroutine& self = now->coroutines[running];
    while (self.finished < self.committed.size())
        sleep_among(now->warps[running / LANES].multiplying, "matrix instructions of warp", running / LANES);
    self.begun = false;
}

}  // namespace machine
