// Lines out of a mapping or out of a gzip stream: see mapped_lines.h.
#include "lib/files/mapped_lines.h"

#include <zlib.h>

#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::size_t block = 1 << 18, longest_line = std::size_t(256) << 20;
constexpr std::ptrdiff_t keep_behind = 64 << 20;  // bytes read before pages are given back

bool is_gzip(std::string_view bytes) {
  return bytes.size() > 2 && bytes.substr(0, 2) == "\x1f\x8b";
}

}  // namespace

struct MappedLines::Inflater {
  const std::filesystem::path& path;
  z_stream stream{};
  std::string text;  // inflated, from `used` on not yet given out
  std::size_t used = 0;
  bool ended = false;

  Inflater(const std::filesystem::path& name, const char* at, Index size) : path(name) {
    if (inflateInit2(&stream, 15 + 16) != Z_OK)
      throw Error(Exit::memory, "no memory to inflate a file");
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(at));
    left = size;
  }
  Inflater(const Inflater&) = delete;
  ~Inflater() {
    inflateEnd(&stream);
  }
  Index left = 0;

  [[noreturn]] void refuse(const char* why) const {
    throw Error(Exit::input, concat(in_quotes(path), " ", why)).hint("gzip -t says more");
  }
  // More text behind what there is; false at the end.
  bool more() {
    if (ended)
      return false;
    text.erase(0, used);
    used = 0;
    if (text.size() > longest_line)
      refuse("has a line of more than 256 MiB");
    const std::size_t had = text.size();
    text.resize(had + block);
    stream.next_out = reinterpret_cast<Bytef*>(text.data() + had);
    stream.avail_out = block;
    while (stream.avail_out > 0 && !ended)
      step();
    text.resize(had + block - stream.avail_out);
    return text.size() > had;
  }
  void step() {
    if (stream.avail_in == 0) {
      stream.avail_in = uInt(std::min<Index>(left, 1 << 30));
      left -= stream.avail_in;
      if (stream.avail_in == 0)
        refuse("ends inside its gzip stream");
    }
    const int r = inflate(&stream, Z_NO_FLUSH);
    if (r == Z_STREAM_END && (stream.avail_in > 0 || left > 0)) {
      if (inflateReset(&stream) != Z_OK)
        refuse("has a damaged gzip stream");
      return;
    }
    ended = r == Z_STREAM_END;
    if (r != Z_OK && r != Z_STREAM_END)
      refuse("has a damaged gzip stream");
  }
};

MappedLines::MappedLines(const std::filesystem::path& path) : file_(path) {
  if (file_.size() == 0)
    return;
  bytes_ = file_.map();
  at_ = kept_ = reinterpret_cast<const char*>(bytes_.get());
  end_ = at_ + file_.size();
  if (is_gzip({at_, std::size_t(file_.size())}))
    inflater_ = std::make_unique<Inflater>(file_.path(), at_, file_.size());
}
MappedLines::~MappedLines() = default;

std::string MappedLines::where() const {
  return concat(in_quotes(file_.path()), " line ", number_);
}

bool MappedLines::next(std::string_view& line) {
  unfinished_ = false;
  if (inflater_)
    return next_inflated(line);
  if (at_ == end_)
    return false;
  if (at_ - kept_ > keep_behind) {
    forget_pages({reinterpret_cast<const std::byte*>(kept_), std::size_t(at_ - kept_)});
    kept_ = at_;
  }
  ++number_;
  const auto* stop = static_cast<const char*>(std::memchr(at_, '\n', std::size_t(end_ - at_)));
  unfinished_ = !stop;
  line = {at_, std::size_t((stop ? stop : end_) - at_)};
  at_ = stop ? stop + 1 : end_;
  if (line.ends_with('\r'))
    line.remove_suffix(1);
  return true;
}

bool MappedLines::next_inflated(std::string_view& line) {
  Inflater& in = *inflater_;
  std::size_t looked = in.used;
  std::size_t stop = in.text.find('\n', looked);
  while (stop == in.text.npos) {
    const std::size_t rest = in.text.size() - in.used;
    if (!in.more()) {
      unfinished_ = in.text.size() > in.used;
      stop = in.text.size();
      break;
    }
    looked = rest;
    stop = in.text.find('\n', looked);
  }
  if (stop == in.text.size() && !unfinished_)
    return false;
  ++number_;
  line = std::string_view(in.text).substr(in.used, stop - in.used);
  in.used = std::min(stop + 1, in.text.size());
  if (line.ends_with('\r'))
    line.remove_suffix(1);
  return true;
}

std::string first_bytes(const std::filesystem::path& path, std::size_t count) {
  InputFile file(path);
  std::string out(count, '\0');
  out.resize(file.read(out));
  if (!is_gzip(out))
    return out;
  std::string text(count, '\0');
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 16) != Z_OK)
    throw Error(Exit::memory, "no memory to inflate a file");
  stream.next_in = reinterpret_cast<Bytef*>(out.data());
  stream.avail_in = uInt(out.size());
  stream.next_out = reinterpret_cast<Bytef*>(text.data());
  stream.avail_out = uInt(count);
  inflate(&stream, Z_SYNC_FLUSH);
  text.resize(count - stream.avail_out);
  inflateEnd(&stream);
  return text;
}

}  // namespace moe
