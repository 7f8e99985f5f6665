// nvcc -ptx -arch=compute_75 -O3
//
// engines/readout.py on the device: the evidence for each base at each position.
#include <cstdint>

#include "header.cuh"

constexpr float READ_SIGMA_PX = 0.6f;
constexpr int FIRST_TAP = -1, TAPS = 4;
constexpr float OUTSIDE_PX = 3.f;

// Row or column at or before a position, and the weights of the taps around it.
struct Taps {
    int first;
    float weights[TAPS];

    // A position that is not a number counts as far outside.
    __device__ Taps(float position, int size) {
        const float near = fminf(fmaxf(position, -OUTSIDE_PX), size - 1 + OUTSIDE_PX), corner = floorf(near);
        first = static_cast<int>(corner) + FIRST_TAP;
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
            const float distance = tap + FIRST_TAP - (near - corner);
            weights[tap] = expf(distance * distance / (-2.f * READ_SIGMA_PX * READ_SIGMA_PX));
        }
    }
};

// probabilities (5, height, width) and positions (4, n, 2) into centres (n, 4), n being the header's number of clusters.
// A thread a cluster and channel; threads beyond n do nothing.
extern "C" __global__ void read_out(const Header* header, const float* probabilities, const float* positions, float* centres,
                                    int height, int width) {
    const int index = blockIdx.x * blockDim.x + threadIdx.x, cluster = index / 4, channel = index % 4;
    if (cluster >= header->clusters) return;
    const float* position = positions + (static_cast<int64_t>(channel) * header->clusters + cluster) * 2;
    const Taps rows(position[0], height), columns(position[1], width);
    const float* plane = probabilities + static_cast<int64_t>(channel + 1) * height * width;
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < TAPS; ++i) {
        const int y = rows.first + i;
        if (y < 0 || y >= height) continue;
#pragma unroll
        for (int j = 0; j < TAPS; ++j) {
            const int x = columns.first + j;
            if (x < 0 || x >= width) continue;
            sum += plane[static_cast<int64_t>(y) * width + x] * rows.weights[i] * columns.weights[j];
        }
    }
    centres[index] = sum;
}
