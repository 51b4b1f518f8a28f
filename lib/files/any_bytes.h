// Names of files are bytes, and JSON holds characters: bytes that are none are written as \\xNN, so
// that a run whose data lie under such a name can be resumed.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace moe {

// What is UTF-8 stays; each other byte, and a \\ in front of an x, becomes \\xNN.
std::string escaped(std::string_view bytes);
std::vector<std::string> escaped_all(const std::vector<std::string>&);
std::string unescaped(std::string_view text);

}  // namespace moe
