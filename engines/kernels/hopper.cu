// nvcc -cubin -gencode=arch=compute_90a,code=sm_90a -std=c++17
//
// The network of engines/architecture.py (stem 64, blocks of six layers of 16, hidden 64) on Hopper.
//
// Activations lie in planes of eight channels, half precision: [plane][row][column][8], with a border of
// zeros on every side that nothing writes to. A convolution is nine matrix products, one a tap: 64 pixels of
// a row, shifted by the tap, times the tap's weights. Rows come into shared memory by bulk copies, each once
// a strip of columns, and stay there for the three rows of output that read them.
//
// A dense block is two kernels. `wide` sums what the block's input gives to all six layers at once, in 96
// columns of one product, which is 71 % of the arithmetic. `tail` adds what the layers give each other.
#include "header.cuh"
#include "wgmma.cuh"

constexpr int BORDER_Y = 6, BORDER_X = 8;
constexpr int PIXELS = 64;                 // of a row that a warpgroup computes at once
constexpr int PLANE = (PIXELS + 2) * 16;   // bytes of a row of eight channels in shared memory
constexpr int WARPGROUP = 128;

extern __shared__ __align__(128) unsigned char shared[];

// Planes of activations in device memory.
struct Planes {
    __half* start;
    int rows, columns;   // with borders

    __device__ __half* at(int plane, int y, int x) const {
        return start + ((static_cast<int64_t>(plane) * rows + y + BORDER_Y) * columns + x + BORDER_X) * 8;
    }
};

__device__ __forceinline__ __half2 rectified(float a, float b) {
    return __floats2half2_rn(fmaxf(a, 0.f), fmaxf(b, 0.f));
}

// ---- from pixels to normalised planes -----------------------------------------------------------------

extern "C" __global__ void normalise(const Header* header, const uint16_t* pixels, int height, int width, int start,
                                     __half* planes, int rows, int columns) {
    const Planes out{planes, rows, columns};
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (x >= width) return;
    __align__(16) __half channels[8];
    for (int c = 0; c < 4; ++c) {
        const float counts = pixels[(static_cast<int64_t>(c) * height + start + y) * width + x];
        channels[c] = __float2half_rn((counts - header->offset[c]) * header->gain[c]);
        channels[c + 4] = __float2half_rn(0.f);
    }
    *reinterpret_cast<uint4*>(out.at(0, y, x)) = *reinterpret_cast<const uint4*>(channels);
}

// ---- what becomes of a row of 64 pixels by N sums ------------------------------------------------------

// The first groups of eight are rectified into one set of planes, the others go into another as they are.
struct IntoPlanes {
    Planes rectified_planes, sum_planes;
    int rectified_groups, width, stretch, phase_y, phase_x;

    template <int N>
    __device__ void operator()(const float (&d)[N / 2], const float* bias, int y, int x, int lane) const {
        const int pair = (lane % 4) * 2;
#pragma unroll
        for (int half_ = 0; half_ < 2; ++half_) {
            const int column = x + half_ * 8;
            if (column >= width) continue;
            const int to_y = y * stretch + phase_y, to_x = column * stretch + phase_x;
#pragma unroll
            for (int j = 0; j < N / 8; ++j) {
                const float a = d[4 * j + 2 * half_] + bias[8 * j + pair], b = d[4 * j + 2 * half_ + 1] + bias[8 * j + pair + 1];
                if (j < rectified_groups)
                    *reinterpret_cast<__half2*>(rectified_planes.at(j, to_y, to_x) + pair) = rectified(a, b);
                else
                    *reinterpret_cast<__half2*>(sum_planes.at(j - rectified_groups, to_y, to_x) + pair) =
                        __floats2half2_rn(a, b);
            }
        }
    }
};

// Softmax over the first five sums into a map of five planes; the four lanes of a pixel share its sums.
struct IntoProbabilities {
    float* map;
    int64_t plane;   // elements
    int width, first;

    template <int N>
    __device__ void operator()(const float (&d)[N / 2], const float* bias, int y, int x, int lane) const {
        const int pair = (lane % 4) * 2;
#pragma unroll
        for (int half_ = 0; half_ < 2; ++half_) {
            const float a = pair < 5 ? d[2 * half_] + bias[pair] : -INFINITY;
            const float b = pair + 1 < 5 ? d[2 * half_ + 1] + bias[pair + 1] : -INFINITY;
            float most = fmaxf(a, b);
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
            const float ea = __expf(a - most), eb = __expf(b - most);
            float sum = ea + eb;
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            const int column = x + half_ * 8;
            if (column >= width) continue;
            float* at = map + static_cast<int64_t>(y + first) * width + column;
            if (pair < 5) at[pair * plane] = ea / sum;
            if (pair + 1 < 5) at[(pair + 1) * plane] = eb / sum;
        }
    }
};

// The first four sums into images of four planes.
struct IntoImages {
    float* images;
    int64_t plane;   // elements
    int width, first;

    template <int N>
    __device__ void operator()(const float (&d)[N / 2], const float* bias, int y, int x, int lane) const {
        const int pair = (lane % 4) * 2;
        if (pair >= 4) return;
#pragma unroll
        for (int half_ = 0; half_ < 2; ++half_) {
            const int column = x + half_ * 8;
            if (column >= width) continue;
            float* at = images + static_cast<int64_t>(y + first) * width + column;
            at[pair * plane] = d[2 * half_] + bias[pair];
            at[(pair + 1) * plane] = d[2 * half_ + 1] + bias[pair + 1];
        }
    }
};

// ---- one convolution -----------------------------------------------------------------------------------

// Rows [first, last) of a convolution of CIN channels to N sums, TAPS x TAPS taps that begin at (y, x) + origin.
// A block computes rows of a strip of 64 columns; two warpgroups take them in turn, one thread brings rows in.
// Weights: [tap][CIN / 16 or 1][2][N][8] halves.
template <int CIN, int N, int TAPS, class Into>
__device__ __forceinline__ void convolve(Planes in, const __half* weights, const float* bias, int first, int last,
                                         int rows_a_block, int origin_y, int origin_x, Into into) {
    constexpr int STEPS = CIN < 16 ? 1 : CIN / 16;             // eight channels are summed twice, once by zeros
    constexpr int WEIGHTS = TAPS * TAPS * STEPS * 2 * N * 16;  // bytes
    constexpr int ROW = CIN / 8 * PLANE, HELD = 5, CHUNK = 16384;
    const uint32_t ring = shared_address(shared) + WEIGHTS, barriers = ring + HELD * ROW;
    const uint32_t full = barriers, empty = barriers + 8 * HELD, ready = barriers + 16 * HELD;
    float* const own_bias = reinterpret_cast<float*>(shared + WEIGHTS + HELD * ROW + 16 * HELD + 16);
    const int x0 = blockIdx.x * PIXELS, begin = first + blockIdx.y * rows_a_block, end = min(begin + rows_a_block, last);
    if (threadIdx.x == 0) {
        for (int i = 0; i < HELD; ++i) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 2 * WARPGROUP / 32);
        }
        barrier_init(ready, 1);
        fence_for_matrices();
    }
    if (threadIdx.x < N) own_bias[threadIdx.x] = bias[threadIdx.x];
    __syncthreads();

    if (threadIdx.x >= 2 * WARPGROUP) {
        if (threadIdx.x > 2 * WARPGROUP) return;
        barrier_arrive_expecting(ready, WEIGHTS);
        for (int done = 0; done < WEIGHTS; done += CHUNK)
            bulk_copy(shared_address(shared) + done, reinterpret_cast<const char*>(weights) + done,
                      min(CHUNK, WEIGHTS - done), ready);
        for (int i = 0; i < end - begin + 2; ++i) {
            const int slot = i % HELD;
            if (i >= HELD) barrier_wait(empty + 8 * slot, (i / HELD - 1) & 1);
            barrier_arrive_expecting(full + 8 * slot, ROW);
            for (int plane = 0; plane < CIN / 8; ++plane)
                bulk_copy(ring + slot * ROW + plane * PLANE, in.at(plane, begin - 1 + i, x0 - 1), PLANE, full + 8 * slot);
        }
        return;
    }

    const int group = threadIdx.x / WARPGROUP, lane = threadIdx.x % 32, warp = threadIdx.x % WARPGROUP / 32;
    barrier_wait(ready, 0);
    // Each warpgroup waits for every row and releases it, also one that it does not read: the parity of a row
    // that it left out would be that of the one after the next in its place.
    int arrived = 0, released = 0;
    for (int y = begin + group; y < end; y += 2) {
        const int i = y - begin;
#pragma unroll 1
        for (; arrived < i + 3; ++arrived) barrier_wait(full + 8 * (arrived % HELD), arrived / HELD & 1);
        float d[N / 2];
        matrices_begin();
#pragma unroll
        for (int ty = 0; ty < TAPS; ++ty) {
            const uint32_t row = ring + (i + 1 + origin_y + ty) % HELD * ROW + (1 + origin_x) * 16;
#pragma unroll
            for (int tx = 0; tx < TAPS; ++tx)
#pragma unroll
                for (int step = 0; step < STEPS; ++step)
                    multiply<N>(d, matrix(row + tx * 16 + step * 2 * PLANE, CIN < 16 ? 0 : PLANE, 128),
                                matrix(shared_address(shared) + ((ty * TAPS + tx) * STEPS + step) * 2 * N * 16, N * 16, 128),
                                ty + tx + step > 0);
        }
        matrices_commit();
        matrices_wait(d);
        if (lane == 0)
#pragma unroll 1
            for (; released < i + 2; ++released) barrier_arrive(empty + 8 * (released % HELD), 1);
        into.template operator()<N>(d, own_bias, y, x0 + warp * 16 + lane / 4, lane);
    }
}

#define CONVOLUTION(NAME, CIN, N, TAPS, INTO)                                                                          \
    extern "C" __global__ void __launch_bounds__(2 * WARPGROUP + 32, 1)                                                \
        NAME(const __half* in, int rows, int columns, const __half* weights, const float* bias, int first, int last,   \
             int rows_a_block, INTO##_PARAMETERS) {                                                                    \
        convolve<CIN, N, TAPS>(Planes{const_cast<__half*>(in), rows, columns}, weights, bias, first, last, rows_a_block, \
                               INTO##_ARGUMENTS);                                                                      \
    }

#define PLANES_PARAMETERS __half* rectified_planes, __half* sum_planes, int rectified_groups, int width
#define PLANES_ARGUMENTS \
    -1, -1, IntoPlanes { Planes{rectified_planes, rows, columns}, Planes{sum_planes, rows, columns}, rectified_groups, width, 1, 0, 0 }
CONVOLUTION(stem, 8, 64, 3, PLANES)
CONVOLUTION(wide_first, 64, 96, 3, PLANES)
CONVOLUTION(wide, 96, 96, 3, PLANES)
CONVOLUTION(hidden, 96, 64, 3, PLANES)

#define PROBABILITIES_PARAMETERS float *map, int64_t plane, int width, int shift
#define PROBABILITIES_ARGUMENTS -1, -1, IntoProbabilities { map, plane, width, shift }
CONVOLUTION(call, 64, 8, 3, PROBABILITIES)

// One of the four phases of a transposed convolution of 4 x 4 taps and stride 2.
#define UPSAMPLED_PARAMETERS __half *fine, int fine_rows, int fine_columns, int width, int phase_y, int phase_x
#define UPSAMPLED_ARGUMENTS \
    phase_y - 1, phase_x - 1, IntoPlanes { Planes{fine, fine_rows, fine_columns}, Planes{}, 8, width, 2, phase_y, phase_x }
CONVOLUTION(upsample, 96, 64, 2, UPSAMPLED)

#define IMAGES_PARAMETERS float *images, int64_t plane, int width, int shift
#define IMAGES_ARGUMENTS -1, -1, IntoImages { images, plane, width, shift }
CONVOLUTION(reconstruct, 64, 8, 3, IMAGES)

// ---- what the layers of a block give each other ---------------------------------------------------------

// Layers 1 to 5 of a block: y_l = max(0, sum_l + the convolution of y_0 ... y_(l-1)), 16 channels each.
// A block of threads walks down a strip of 56 columns. In a step each layer computes one row of 64 columns, two
// rows behind the layer before it, so that a step needs nothing of itself; of the 64 columns each layer spoils
// one to each side. Three warpgroups share the layers by cost: 5, 4 + 1, 3 + 2.
constexpr int LAYER_ROW = 2 * PLANE, KEPT = PIXELS - 8, CONSUMERS = 3 * WARPGROUP;

// Rows that are kept of y_0 ... y_4, powers of two: from the row being written to the oldest that layer 5 reads.
__device__ constexpr int kept_rows(int layer) { return layer < 2 ? 16 : layer < 4 ? 8 : 4; }
__device__ constexpr int ring_start(int layer) { return layer == 0 ? 0 : ring_start(layer - 1) + kept_rows(layer - 1) * LAYER_ROW; }
__device__ constexpr int weights_start(int layer) { return 9 * 512 * (layer - 1) * layer / 2; }
constexpr int TAIL_WEIGHTS = 9 * 512 * 15, RINGS = 52 * LAYER_ROW, Y0_ROWS = 16;

struct Block {
    Planes features, sums;   // y_0 ... y_5, and what the input gives to layers 1 ... 5
    int height, width, x0, begin, end;
    uint32_t weights, rings;
    int lane, pixel;         // this thread's, of its warpgroup and of 64

    template <int L>
    __device__ bool works(int row) const { return row >= begin - (5 - L) && row < end + (5 - L); }

    // What the block's input gives to this thread's pixels.
    template <int L>
    __device__ void fetch(__half2 (&given)[4], int row) const {
        const int pair = (lane % 4) * 2;
#pragma unroll
        for (int half_ = 0; half_ < 2; ++half_) {
            const int x = x0 - 4 + pixel + half_ * 8;
            const bool there = works<L>(row) && row >= 0 && row < height && x >= 0 && x < width;
#pragma unroll
            for (int j = 0; j < 2; ++j)
                given[2 * j + half_] = there ? *reinterpret_cast<const __half2*>(sums.at(2 * (L - 1) + j, row, x) + pair) : __half2{};
        }
    }

    template <int L>
    __device__ void sum(float (&d)[8], int row) const {
#pragma unroll
        for (int ty = 0; ty < 3; ++ty)
#pragma unroll
            for (int j = 0; j < L; ++j) {
                const uint32_t from = rings + ring_start(j) + ((row - 1 + ty) & (kept_rows(j) - 1)) * LAYER_ROW;
#pragma unroll
                for (int tx = 0; tx < 3; ++tx)
                    multiply<16>(d, matrix(from + tx * 16, PLANE, 128),
                                 matrix(weights + weights_start(L) + ((ty * 3 + tx) * L + j) * 512, 256, 128), ty + tx + j > 0);
            }
    }

    template <int L>
    __device__ void keep(const float (&d)[8], const __half2 (&given)[4], int row) const {
        if (!works<L>(row)) return;
        const int pair = (lane % 4) * 2;
#pragma unroll
        for (int half_ = 0; half_ < 2; ++half_) {
            const int m = pixel + half_ * 8, x = x0 - 4 + m;
            const bool inside = row >= 0 && row < height && x >= 0 && x < width;
            const bool own = row >= begin && row < end && x >= x0 && x < min(x0 + KEPT, width);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float2 more = __half22float2(given[2 * j + half_]);
                const __half2 y = inside ? rectified(d[4 * j + 2 * half_] + more.x, d[4 * j + 2 * half_ + 1] + more.y) : __half2{};
                if (L < 5)
                    *reinterpret_cast<__half2*>(shared + TAIL_WEIGHTS + ring_start(L) + (row & (kept_rows(L) - 1)) * LAYER_ROW +
                                                j * PLANE + (m + 1) * 16 + pair * 2) = y;
                if (own) *reinterpret_cast<__half2*>(features.at(2 * L + j, row, x) + pair) = y;
            }
        }
    }

    // One row of one or two layers; row(L) = step + 1 - 2 L.
    template <int L, int M>
    __device__ void step(int at) const {
        float d[8], e[8];
        __half2 given[4], also[4];
        fetch<L>(given, at + 1 - 2 * L);
        if (M) fetch<M ? M : 1>(also, at + 1 - 2 * M);
        matrices_begin();
        sum<L>(d, at + 1 - 2 * L);
        if (M) sum<M ? M : 1>(e, at + 1 - 2 * M);
        matrices_commit();
        if constexpr (M)
            matrices_wait(d, e);
        else
            matrices_wait(d);
        keep<L>(d, given, at + 1 - 2 * L);
        if (M) keep<M ? M : 1>(e, also, at + 1 - 2 * M);
    }
};

extern "C" __global__ void __launch_bounds__(CONSUMERS + 32, 1)
    tail(__half* features, const __half* sums, int rows, int columns, const __half* weights, int height, int width,
         int rows_a_block) {
    const int begin = blockIdx.y * rows_a_block;
    Block block{Planes{features, rows, columns}, Planes{const_cast<__half*>(sums), rows, columns}, height, width,
                static_cast<int>(blockIdx.x) * KEPT, begin, min(begin + rows_a_block, height), shared_address(shared),
                shared_address(shared) + TAIL_WEIGHTS, static_cast<int>(threadIdx.x) % 32,
                static_cast<int>(threadIdx.x) % WARPGROUP / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4};
    const uint32_t full = block.rings + RINGS, empty = full + 8 * Y0_ROWS, ready = empty + 8 * Y0_ROWS;
    if (threadIdx.x == 0) {
        for (int i = 0; i < Y0_ROWS; ++i) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 1);
        }
        barrier_init(ready, 1);
    }
    // Columns that no layer writes are read, for sums that are thrown away.
    for (int i = threadIdx.x; i < RINGS / 16; i += blockDim.x) reinterpret_cast<uint4*>(shared + TAIL_WEIGHTS)[i] = uint4{};
    fence_for_matrices();
    __syncthreads();

    const int oldest = block.begin - 5;   // row of y_0
    if (threadIdx.x >= CONSUMERS) {
        if (threadIdx.x > CONSUMERS) return;
        barrier_arrive_expecting(ready, TAIL_WEIGHTS);
        for (int done = 0; done < TAIL_WEIGHTS; done += TAIL_WEIGHTS / 5)
            bulk_copy(shared_address(shared) + done, reinterpret_cast<const char*>(weights) + done, TAIL_WEIGHTS / 5, ready);
        for (int y = oldest; y < block.end + 5; ++y) {
            const int slot = y & (Y0_ROWS - 1), used = (y - oldest) / Y0_ROWS;
            if (used) barrier_wait(empty + 8 * slot, (used - 1) & 1);
            barrier_arrive_expecting(full + 8 * slot, LAYER_ROW);
            for (int j = 0; j < 2; ++j)
                bulk_copy(block.rings + slot * LAYER_ROW + j * PLANE, block.features.at(j, y, block.x0 - 5), PLANE, full + 8 * slot);
        }
        return;
    }

    const int group = threadIdx.x / WARPGROUP;
    const auto arrived = [&](int y) { barrier_wait(full + 8 * (y & (Y0_ROWS - 1)), ((y - oldest) / Y0_ROWS) & 1); };
    barrier_wait(ready, 0);
    arrived(oldest);
    arrived(oldest + 1);
    for (int at = block.begin - 3; at < block.end + 9; ++at) {
        if (at < block.end + 5) arrived(at);
        if (group == 0)
            block.step<5, 0>(at);
        else if (group == 1)
            block.step<4, 1>(at);
        else
            block.step<3, 2>(at);
        fence_for_matrices();
        group_sync(1, CONSUMERS);
        if (threadIdx.x == 0 && at - 10 >= oldest) barrier_arrive(empty + 8 * ((at - 10) & (Y0_ROWS - 1)), 1);
    }
}
