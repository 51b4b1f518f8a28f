// Local headers, data descriptors and the list at the end: PKWARE's APPNOTE 6.3, sections 4.3 and
// 4.5.3. See zip_write.h.
#include "lib/files/zip_write.h"

#include <zlib.h>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::uint64_t in_extra = 0xFFFFFFFF;  // the number stands in the extra field
constexpr int has_descriptor = 8;               // flag: checksum and sizes follow the bytes
constexpr int date = 0x21;                      // 1980-01-01: the same trace gives the same bytes

std::string little(std::uint64_t v, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i)
    out += char(v >> (8 * i) & 255);
  return out;
}

int version_of(bool wide) {
  return wide ? 45 : 20;
}

// What local header and list have in common, from the version on.
std::string common(bool wide, std::uint32_t crc, std::uint64_t size, const std::string& name,
                   std::size_t extra) {
  return little(version_of(wide), 2) + little(has_descriptor, 2) + little(0, 2) + little(0, 2) +
         little(date, 2) + little(crc, 4) + little(size, 4) + little(size, 4) +
         little(name.size(), 2) + little(extra, 2);
}

}  // namespace

void ZipWriter::begin(const std::string& name, Index bytes) {
  end_entry();
  Entry e{name, bytes, out_.written(), 0, false};
  e.wide = bytes > narrow_ || e.at > narrow_;
  std::string extra;
  if (e.wide)
    extra = little(1, 2) + little(16, 2) + little(std::uint64_t(bytes), 8) +
            little(std::uint64_t(bytes), 8);
  out_.write("PK\x03\x04" + common(e.wide, 0, e.wide ? in_extra : 0, name, extra.size()) + name +
             extra);
  left_ = bytes;
  open_ = true;
  entries_.push_back(std::move(e));
}

void ZipWriter::write(std::span<const std::byte> bytes) {
  if (!open_ || Index(bytes.size()) > left_)
    throw Error(Exit::bug, "an entry of a zip file got more bytes than were said");
  std::uint32_t& crc = entries_.back().crc;
  for (std::size_t done = 0; done < bytes.size();) {
    const std::size_t n = std::min<std::size_t>(bytes.size() - done, 1 << 30);
    crc = std::uint32_t(crc32(crc, reinterpret_cast<const Bytef*>(bytes.data() + done), uInt(n)));
    done += n;
  }
  out_.write(bytes);
  left_ -= Index(bytes.size());
}

void ZipWriter::end_entry() {
  if (!open_)
    return;
  if (left_ != 0) {
    throw Error(Exit::bug, concat("an entry of a zip file lacks ", left_, " of its ",
                                  entries_.back().size, " bytes"));
  }
  const Entry& e = entries_.back();
  const int width = e.wide ? 8 : 4;
  const auto size = std::uint64_t(e.size);
  out_.write("PK\x07\x08" + little(e.crc, 4) + little(size, width) + little(size, width));
  open_ = false;
}

std::string ZipWriter::list_entry(const Entry& e) const {
  const auto size = std::uint64_t(e.size);
  std::string extra;
  if (e.wide)
    extra = little(1, 2) + little(24, 2) + little(size, 8) + little(size, 8) +
            little(std::uint64_t(e.at), 8);
  return "PK\x01\x02" + little(version_of(e.wide), 2) +
         common(e.wide, e.crc, e.wide ? in_extra : size, e.name, extra.size()) + little(0, 2) +
         little(0, 2) + little(0, 2) + little(0, 4) +
         little(e.wide ? in_extra : std::uint64_t(e.at), 4) + e.name + extra;
}

void ZipWriter::finish() {
  end_entry();
  const Index at = out_.written();
  std::string list;
  for (const Entry& e : entries_)
    list += list_entry(e);
  const auto count = std::uint64_t(entries_.size());
  const auto bytes = std::uint64_t(list.size());
  const bool wide = at > narrow_;
  if (wide) {
    const Index end = at + Index(bytes);
    list += "PK\x06\x06" + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 4) +
            little(0, 4) + little(count, 8) + little(count, 8) + little(bytes, 8) +
            little(std::uint64_t(at), 8);
    list += "PK\x06\x07" + little(0, 4) + little(std::uint64_t(end), 8) + little(1, 4);
  }
  list += "PK\x05\x06" + little(0, 4) + little(count, 2) + little(count, 2) + little(bytes, 4) +
          little(wide ? in_extra : std::uint64_t(at), 4) + little(0, 2);
  out_.write(list);
}

}  // namespace moe
