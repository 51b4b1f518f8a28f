// What a row stands for: a piece of text, a patch of a picture, of a frame of a video, a stretch of
// sound. One number a row in batches and traces, one name everywhere a user writes or reads it, and
// options that give something for each: "text:0.04/image:0.02", or one number for all of them.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moe {

namespace modality {
enum : std::uint8_t { text = 0, image = 1, video = 2, audio = 3, unknown = 255 };
}
constexpr int modality_kinds = 4;
constexpr std::string_view text_modality = "text";  // the name of what is no signal

// How the rows of a sequence that are no text lie in its picture: `rows` from the top, `columns`
// from the left, the rows of the batch going through the first row of the picture, then the second,
// and so on; several pictures of one grid follow each other. Of a sound: bands by stretches of
// time. 0 x 0 = it has none, or none is known.
struct SignalGrid {
  std::uint16_t rows = 0, columns = 0;

  std::uint32_t places() const {
    return std::uint32_t(rows) * columns;
  }
  bool operator==(const SignalGrid&) const = default;
};

// "text", "image", "video", "audio": the name of modality m at place m.
const std::vector<std::string>& modality_names();
// Throws Error(usage) that begins with `where` for a name that is none of them.
std::uint8_t modality_of(std::string_view name, const std::string& where);

// "text:0-3/image:4-7" as pairs ("text", "0-3"), ("image", "4-7"). Throws Error(usage) where a part
// has no name or no value.
std::vector<std::pair<std::string, std::string>> parts_by_modality(const std::string& text,
                                                                   const std::string& where);

using ByModality = std::array<double, modality_kinds>;
// "0.04": all of them; "text:0.04/image:0.02": those named, the others `absent`. Throws
// Error(usage) for numbers below `least`.
ByModality numbers_by_modality(const std::string& text, double absent, double least,
                               const std::string& where);

}  // namespace moe
