// Half precision for a compiler without it: what the kernels use, rounded to nearest even.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

struct __half {
    uint16_t bits;
};

inline __half __float2half_rn(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint16_t sign = bits >> 16 & 0x8000;
    const float magnitude = std::fabs(value);
    if (std::isnan(value)) return {0x7fff};
    if (magnitude >= 65520.f) return {static_cast<uint16_t>(sign | 0x7c00)};
    if (magnitude == 0.f) return {sign};
    int exponent = 0;
    std::frexp(magnitude, &exponent);
    if (exponent < -13) exponent = -13;  // below, steps stay as they are
    const float steps = std::nearbyint(std::ldexp(magnitude, 11 - exponent));
    return {static_cast<uint16_t>(sign + (static_cast<uint16_t>(exponent + 13) << 10) + static_cast<int>(steps))};
}
