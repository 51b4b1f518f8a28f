// Both formats are streams of one or several members (RFC 1952; RFC 8878), each with a checksum
// that its library compares.
#include "lib/files/unpacked.h"

#include <zlib.h>
#include <zstd.h>

#include <array>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::size_t kInputBytes = 1 << 16;
constexpr int kWindowBits = 27;  // 128 MiB, what the program zstd reads without being told more

using std::string_view_literals::operator""sv;
constexpr std::string_view kGzip = "\x1f\x8b"sv, kZstd = "\x28\xb5\x2f\xfd"sv;

}  // namespace

// Compressed bytes in, plain ones out.
class UnpackedFile::Packed {
 public:
  explicit Packed(InputFile& file) : file_(file) {}
  virtual ~Packed() = default;
  Packed(const Packed&) = delete;
  // At least one byte, or 0 at the end.
  virtual std::size_t read(std::span<char> out) = 0;

 protected:
  // Makes sure that there is input; false at the end of the file.
  bool fill() {
    if (at_ < input_.size())
      return true;
    input_.resize(kInputBytes);
    input_.resize(file_.read(input_));
    at_ = 0;
    return !input_.empty();
  }
  std::span<char> input() {
    return std::span(input_).subspan(at_);
  }
  void used(std::size_t bytes) {
    at_ += bytes;
  }
  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(Exit::input, concat(in_quotes(file_.path()), " ", why))
        .hint("download or compress it again");
  }
  [[noreturn]] void cut_off() const {
    refuse("is cut off: its compressed bytes end in the middle");
  }

 private:
  InputFile& file_;
  std::vector<char> input_;
  std::size_t at_ = 0;
};

class UnpackedFile::Gzip final : public Packed {
 public:
  explicit Gzip(InputFile& file) : Packed(file) {
    constexpr int gzip_only = 16;
    if (inflateInit2(&stream_, MAX_WBITS + gzip_only) != Z_OK)
      throw Error(Exit::memory, "zlib finds no memory");
  }
  ~Gzip() override {
    inflateEnd(&stream_);
  }
  std::size_t read(std::span<char> out) override {
    std::size_t written = 0;
    while (written == 0) {
      if (!fill()) {
        if (inside_)
          cut_off();
        return 0;
      }
      written = step(out);
    }
    return written;
  }

 private:
  std::size_t step(std::span<char> out) {
    if (!inside_ && inflateReset(&stream_) != Z_OK)
      refuse("cannot be read by zlib");
    inside_ = true;
    const std::span<char> in = input();
    stream_.next_in = reinterpret_cast<Bytef*>(in.data());
    stream_.avail_in = uInt(in.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = uInt(out.size());
    const int result = inflate(&stream_, Z_NO_FLUSH);
    used(in.size() - stream_.avail_in);
    if (result == Z_STREAM_END)
      inside_ = false;
    else if (result != Z_OK && result != Z_BUF_ERROR)
      refuse(concat("is no whole gzip file: ", stream_.msg ? stream_.msg : "damaged"));
    return out.size() - stream_.avail_out;
  }

  z_stream stream_{};
  bool inside_ = false;  // a member
};

class UnpackedFile::Zstd final : public Packed {
 public:
  explicit Zstd(InputFile& file) : Packed(file), stream_(ZSTD_createDCtx()) {
    if (!stream_)
      throw Error(Exit::memory, "zstd finds no memory");
    ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax, kWindowBits);
  }
  ~Zstd() override {
    ZSTD_freeDCtx(stream_);
  }
  std::size_t read(std::span<char> out) override {
    std::size_t written = 0;
    while (written == 0) {
      // what it still holds comes before the next input
      const bool more = fill();
      if (!more && !inside_)
        return 0;
      written = step(out);
      if (!more && written == 0)
        cut_off();
    }
    return written;
  }

 private:
  std::size_t step(std::span<char> out) {
    const std::span<char> bytes = input();
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    const std::size_t result = ZSTD_decompressStream(stream_, &to, &in);
    used(in.pos);
    if (ZSTD_isError(result))
      refuse(concat("is no whole zstd file: ", ZSTD_getErrorName(result)));
    inside_ = result != 0;
    return to.pos;
  }

  ZSTD_DCtx* stream_;
  bool inside_ = false;  // a frame
};

UnpackedFile::UnpackedFile(const std::filesystem::path& path) : file_(path) {
  std::array<char, 4> first{};
  const std::string_view seen(first.data(), InputFile(path).read(first));
  if (seen.starts_with(kGzip))
    packed_ = std::make_unique<Gzip>(file_);
  else if (seen == kZstd)
    packed_ = std::make_unique<Zstd>(file_);
}

UnpackedFile::~UnpackedFile() = default;

std::size_t UnpackedFile::read_packed(std::span<char> out) {
  constexpr std::size_t most = std::size_t(1) << 30;  // of one call, as zlib counts
  std::size_t written = 0;
  while (written < out.size()) {
    const std::size_t left = std::min(out.size() - written, most);
    const std::size_t more = packed_->read(out.subspan(written, left));
    if (more == 0)
      break;
    written += more;
  }
  return written;
}

std::size_t UnpackedFile::read(std::span<char> out) {
  return packed_ ? read_packed(out) : file_.read(out);
}

std::filesystem::path without_packing(const std::filesystem::path& path) {
  const std::string ending = path.extension();
  return ending == ".gz" || ending == ".zst" ? path.stem() : path.filename();
}

}  // namespace moe
