// Zip files: the directory at the end (with its 64-bit form), local headers, and entries.
#include "lib/files/zip.h"

#include <zlib.h>

#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr Index end_bytes = 22, longest_comment = 65535, list_entry = 46, local_header = 30;
constexpr std::uint32_t end_mark = 0x06054b50, end64_mark = 0x06064b50, end64_place = 0x07064b50,
                        list_mark = 0x02014b50, local_mark = 0x04034b50;
constexpr Index most_entries = 1 << 20;

}  // namespace

void ZipFile::refuse(const std::string& why) const {
  throw Error(Exit::input, concat(in_quotes(path_), " ", why))
      .hint("the zip file as NumPy or PyTorch wrote it; unzip -t says more");
}

std::uint64_t ZipFile::number(Index at, int bytes) const {
  if (at < 0 || at > Index(file_.span.size()) - bytes)
    refuse("is a zip file that points outside itself");
  std::uint64_t v = 0;
  std::memcpy(&v, file_.span.data() + at, std::size_t(bytes));
  return v;
}

ZipFile::ZipFile(const std::filesystem::path& path) : path_(path) {
  const InputFile file(path);
  file_.owner = file.map();
  file_.span = {file_.owner.get(), std::size_t(file.size())};
  find_list();
}

void ZipFile::find_list() {
  const auto size = Index(file_.span.size());
  const Index last = std::max<Index>(0, size - end_bytes - longest_comment);
  for (Index at = size - end_bytes; at >= last; --at) {
    if (number(at, 4) != end_mark || at + end_bytes + Index(number(at + 20, 2)) != size)
      continue;
    auto count = Index(number(at + 10, 2));
    list_at_ = Index(number(at + 16, 4));
    if (at >= 20 && number(at - 20, 4) == end64_place) {
      const auto wide = Index(number(at - 12, 8));
      if (number(wide, 4) != end64_mark)
        refuse("is a zip file whose 64-bit directory is not where it says");
      count = Index(number(wide + 32, 8));
      list_at_ = Index(number(wide + 48, 8));
    }
    return read_list(list_at_, count);
  }
  refuse("is a zip file that is cut short, or no zip file: it has no list of entries at its end");
}

// Sizes and offsets that do not fit 32 bits stand in an extra field.
void ZipFile::widen(ZipEntry& e, Index extra, Index length) const {
  const Index end = extra + length;
  while (extra + 4 <= end) {
    const std::uint64_t id = number(extra, 2);
    const auto bytes = Index(number(extra + 2, 2));
    Index at = extra + 4;
    if (id == 1) {
      for (Index* value : {&e.size, &e.packed, &e.header_at}) {
        if (*value == 0xFFFFFFFF && at + 8 <= extra + 4 + bytes) {
          *value = Index(number(at, 8));
          at += 8;
        }
      }
    }
    extra += 4 + bytes;
  }
}

void ZipFile::read_list(Index at, Index count) {
  if (count < 0 || count > most_entries)
    refuse(concat("is a zip file of ", count, " entries, more than this reader takes"));
  for (Index i = 0; i < count; ++i) {
    if (number(at, 4) != list_mark)
      refuse(concat("is a zip file whose list ends before entry ", i + 1, " of ", count));
    ZipEntry e;
    const std::uint64_t flags = number(at + 8, 2);
    e.method = int(number(at + 10, 2));
    e.crc = std::uint32_t(number(at + 16, 4));
    e.packed = Index(number(at + 20, 4));
    e.size = Index(number(at + 24, 4));
    const auto name = Index(number(at + 28, 2));
    const auto extra = Index(number(at + 30, 2));
    const auto comment = Index(number(at + 32, 2));
    e.header_at = Index(number(at + 42, 4));
    if (at + list_entry + name + extra + comment > Index(file_.span.size()))
      refuse("is a zip file whose list is cut short");
    e.name = file_.text().substr(std::size_t(at + list_entry), std::size_t(name));
    widen(e, at + list_entry + name, extra);
    if (flags & 1)
      refuse(concat("is a zip file in which ", in_quotes(e.name), " is encrypted"));
    entries_.push_back(std::move(e));
    at += list_entry + name + extra + comment;
  }
}

const ZipEntry* ZipFile::find(std::string_view name) const {
  for (const ZipEntry& e : entries_) {
    if (e.name == name)
      return &e;
  }
  return nullptr;
}

Bytes ZipFile::read(const ZipEntry& e) {
  if (e.header_at < 0 || e.packed < 0 || e.size < 0 || number(e.header_at, 4) != local_mark)
    refuse(concat("is a zip file in which ", in_quotes(e.name), " is not where the list says"));
  const Index at = e.header_at + local_header + Index(number(e.header_at + 26, 2)) +
                   Index(number(e.header_at + 28, 2));
  const auto size = Index(file_.span.size());
  if (at > size || e.packed > size - at)
    refuse(concat("is a zip file in which ", in_quotes(e.name), " is cut short"));
  Bytes out{file_.owner, file_.span.subspan(std::size_t(at), std::size_t(e.packed))};
  if (e.method == 8)
    out = inflated(e, out);
  else if (e.method != 0 || e.packed != e.size)
    refuse(concat("is a zip file in which ", in_quotes(e.name), " is packed by method ", e.method));
  std::uint32_t crc = 0;
  for (std::size_t done = 0; done < out.span.size();) {
    const std::size_t n = std::min<std::size_t>(out.span.size() - done, 1 << 30);
    crc =
        std::uint32_t(crc32(crc, reinterpret_cast<const Bytef*>(out.span.data() + done), uInt(n)));
    done += n;
  }
  if (crc != e.crc)
    refuse(concat("is a zip file in which the checksum of ", in_quotes(e.name), " is wrong"));
  return out;
}

Bytes ZipFile::inflated(const ZipEntry& e, const Bytes& packed) {
  inflated_ += e.size;
  if (e.size > most_inflated || inflated_ > most_inflated) {
    refuse(concat("is a zip file whose compressed entries take more than ",
                  bytes_text(double(most_inflated)), " (numpy.savez writes them uncompressed)"));
  }
  auto text = std::make_shared<std::vector<std::byte>>(std::size_t(e.size));
  z_stream stream{};
  if (inflateInit2(&stream, -15) != Z_OK)
    throw Error(Exit::memory, "no memory to inflate a file");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.span.data()));
  stream.avail_in = uInt(std::min<std::size_t>(packed.span.size(), UINT32_MAX));
  stream.next_out = reinterpret_cast<Bytef*>(text->data());
  stream.avail_out = uInt(e.size);
  const int result = inflate(&stream, Z_FINISH);
  const bool whole = result == Z_STREAM_END && stream.avail_out == 0;
  inflateEnd(&stream);
  if (!whole)
    refuse(concat("is a zip file in which ", in_quotes(e.name), " does not inflate to its size"));
  const std::span<const std::byte> span(*text);
  return {{text, text->data()}, span};
}

}  // namespace moe
