// Pictures from files: PNG, JPEG and GIF where their libraries were there when this was built, PPM
// and PGM always. What comes in is red, green and blue, whatever the file had.
#pragma once
#include <filesystem>
#include <span>
#include <string>

#include "lib/signal/patches.h"

namespace moe {

// Whether a file is one of pictures by its ending: png, jpg, jpeg, gif, ppm, pgm, in any case.
bool is_picture_name(const std::filesystem::path&);
// Three channels, what is transparent on white. Throws Error(input) naming the file where it is no
// picture, damaged, cut off, a GIF of several frames or larger than 64 million pixels, and
// Error(environment) where this program was built without the library that reads it.
Picture read_picture(const std::filesystem::path&);
// The middle square of a picture, brought to side x side pixels: each the mean of what it covers.
Picture square_of(const Picture&, int side);

// A picture of 1 or 3 channels as the bytes of a PNG. Throws Error(environment) as above.
std::string png_of(const Picture&);

// Of one format, from the bytes of a file; each throws Error(input) that begins with `name`.
Picture read_png(std::span<const std::byte>, const std::string& name);
Picture read_jpeg(std::span<const std::byte>, const std::string& name);
Picture read_netpbm(std::span<const std::byte>, const std::string& name);
// Empty pixels for that many; throws Error(input) that begins with `name` where that are none or
// too many.
Picture picture_of(std::uint64_t width, std::uint64_t height, const std::string& name);
// Ends in Error(input): "'x.png' is no PNG that can be read: WHY".
[[noreturn]] void bad_picture(const std::string& name, const char* format, const std::string& why);

}  // namespace moe
