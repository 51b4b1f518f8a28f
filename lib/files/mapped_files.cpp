#include "lib/files/mapped_files.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "lib/files/file.h"

namespace moe {
namespace {

constexpr int most = 4096;

struct Mapped {
  std::atomic<std::uintptr_t> begin{0}, end{0};  // 0: free
  char name[512] = {};
};

std::unique_ptr<Mapped[]> first_made() {
  return std::make_unique<Mapped[]>(most);
}
std::atomic<Mapped*> table{nullptr};
std::mutex taking;

Mapped* make_table() {
  static const std::unique_ptr<Mapped[]> all = first_made();
  table.store(all.get());
  return all.get();
}

}  // namespace

int remember_mapped(const void* begin, std::size_t bytes, const std::filesystem::path& path) {
  const std::lock_guard alone(taking);
  Mapped* all = make_table();
  for (int i = 0; i < most; ++i) {
    Mapped& m = all[i];
    if (m.begin.load() != 0)
      continue;
    const std::string name = in_quotes(path);
    m.name[name.copy(m.name, sizeof m.name - 1)] = 0;
    m.end.store(reinterpret_cast<std::uintptr_t>(begin) + bytes);
    m.begin.store(reinterpret_cast<std::uintptr_t>(begin));
    return i;
  }
  return -1;
}

void forget_mapped(int place) {
  if (place < 0)
    return;
  const std::lock_guard alone(taking);
  make_table()[place].begin.store(0);
}

const char* mapped_file_at(const void* address) {
  const Mapped* all = table.load();
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (int i = 0; all && i < most; ++i) {
    const std::uintptr_t begin = all[i].begin.load();
    if (begin != 0 && begin <= at && at < all[i].end.load())
      return all[i].name;
  }
  return nullptr;
}

}  // namespace moe
