// Zip files, as NumPy (.npz) and PyTorch (.pt) write them: the list at their end, checked against
// the file, and entries as bytes: stored ones in the mapping, deflated ones inflated up to a limit.
// What is encrypted, split or compressed in another way is refused.
#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/files/file.h"

namespace moe {

// Bytes and who keeps them alive.
struct Bytes {
  std::shared_ptr<const std::byte> owner;
  std::span<const std::byte> span;

  std::string_view text() const {
    return {reinterpret_cast<const char*>(span.data()), span.size()};
  }
};

struct ZipEntry {
  std::string name;
  Index packed = 0, size = 0, header_at = 0;
  int method = 0;  // 0 stored, 8 deflated
  std::uint32_t crc = 0;
};

class ZipFile {
 public:
  static constexpr Index most_inflated = Index(512) << 20;  // bytes, all entries together

  explicit ZipFile(const std::filesystem::path&);  // throws Error(input) in one sentence
  const std::vector<ZipEntry>& entries() const {
    return entries_;
  }
  const ZipEntry* find(std::string_view name) const;
  Bytes read(const ZipEntry&);  // throws Error(input) where its checksum is another
  const std::filesystem::path& path() const {
    return path_;
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const;
  std::uint64_t number(Index at, int bytes) const;
  void find_list();
  void read_list(Index at, Index count);
  Bytes inflated(const ZipEntry&, const Bytes& packed);
  void widen(ZipEntry&, Index extra, Index length) const;

  std::filesystem::path path_;
  Bytes file_;
  std::vector<ZipEntry> entries_;
  Index inflated_ = 0, list_at_ = 0;
};

}  // namespace moe
