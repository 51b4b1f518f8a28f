// How many lines a batch has: see line_batch.h.
#include "lib/import/line_batch.h"

namespace moe {
namespace {

constexpr std::size_t most_lines = 32;
constexpr std::size_t most_bytes = std::size_t(4) << 20;

}  // namespace

ParseThreads::ParseThreads() {
  for (int i = 1; i < threads(); ++i)
    workers_.push_back(std::make_unique<Worker>());
}

void ParseThreads::give(std::function<void()> work) {
  workers_[next_++ % workers_.size()]->give(std::move(work));
}

std::vector<JsonText> next_batch(MappedLines& lines) {
  std::vector<JsonText> out;
  const std::size_t most = lines.lasting() ? most_lines : 1;
  std::size_t bytes = 0;
  std::string_view text;
  while (out.size() < most && bytes < most_bytes && lines.next(text)) {
    if (text.find_first_not_of(" \t") == text.npos)
      continue;
    bytes += text.size();
    out.push_back({text, lines.where(), lines.unfinished()});
  }
  return out;
}

}  // namespace moe
