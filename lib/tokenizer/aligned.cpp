#include "lib/tokenizer/aligned.h"

#include "lib/tokenizer/utf8.h"

namespace moe {

Aligned::Aligned(std::string_view text, std::uint32_t from, bool tracked)
    : text_(text), tracked_(tracked) {
  if (!tracked)
    return;
  origin_.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const int bytes = utf8_length(static_cast<unsigned char>(text[at]));
    const ByteRange whole{from + std::uint32_t(at),
                          from + std::uint32_t(at) + std::uint32_t(bytes)};
    origin_.insert(origin_.end(), std::size_t(bytes), whole);
    at += std::size_t(bytes);
  }
}

ByteRange Aligned::origin(std::size_t begin, std::size_t end) const {
  if (begin >= end)
    return begin < origin_.size() ? ByteRange{origin_[begin].begin, origin_[begin].begin}
                                  : ByteRange{};
  return {origin_[begin].begin, origin_[end - 1].end};
}

void Aligned::append(std::string_view bytes, ByteRange origin) {
  text_ += bytes;
  if (tracked_)
    origin_.insert(origin_.end(), bytes.size(), origin);
}

void Aligned::append(char32_t code, ByteRange origin) {
  const std::size_t before = text_.size();
  append_utf8(text_, code);
  if (tracked_)
    origin_.insert(origin_.end(), text_.size() - before, origin);
}

void Aligned::append(const Aligned& other, std::size_t begin, std::size_t end) {
  text_.append(other.text_, begin, end - begin);
  if (tracked_) {
    origin_.insert(origin_.end(), other.origin_.begin() + std::ptrdiff_t(begin),
                   other.origin_.begin() + std::ptrdiff_t(end));
  }
}

void Aligned::transform(std::span<const Change> changes, int removed) {
  Aligned out(tracked_);
  std::size_t at = 0;  // in the old text
  const auto skip = [&](int characters) {
    for (; characters > 0 && at < text_.size(); --characters)
      at += std::size_t(utf8_length(static_cast<unsigned char>(text_[at])));
  };
  skip(removed);
  for (const Change& c : changes) {
    ByteRange from{};
    if (tracked_ && c.change > 0)
      from = at > 0 ? origin_[at - 1] : ByteRange{};
    else if (tracked_ && at < origin_.size())
      from = origin_[at];
    if (c.change <= 0)
      skip(1 - c.change);
    out.append(c.code, from);
  }
  *this = std::move(out);
}

}  // namespace moe
