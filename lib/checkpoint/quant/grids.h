// The tables that the IQ formats choose groups of numbers from. An entry packs its numbers as
// places in a list of levels, the first number in the lowest bits. The tables are data of ggml
// (ggml-common.h, MIT licence, Copyright (c) 2023-2026 The ggml authors).
#pragma once
#include <cstdint>
#include <span>

namespace moe::quant {

// eight numbers, two bits each
inline constexpr std::int8_t iq1_levels[4] = {-1, 0, 1, 0};
inline constexpr std::int8_t iq2_levels[4] = {8, 25, 43, 0};
// four numbers, three bits each
inline constexpr std::int8_t iq3_xxs_levels[8] = {4, 12, 20, 28, 36, 44, 52, 62};
inline constexpr std::int8_t iq3_s_levels[8] = {1, 3, 5, 7, 9, 11, 13, 15};

extern const std::uint16_t iq1_s_grid[2048];
extern const std::uint16_t iq2_xxs_grid[256];
extern const std::uint16_t iq2_xs_grid[512];
extern const std::uint16_t iq2_s_grid[1024];
extern const std::uint16_t iq3_xxs_grid[256];
extern const std::uint16_t iq3_s_grid[512];

}  // namespace moe::quant
