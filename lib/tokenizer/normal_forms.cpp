// Decomposition, canonical order and composition (Unicode Standard Annex 15), with the account of
// which character takes the place of which that the library `tokenizers` keeps.
#include "lib/tokenizer/normal_forms.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "lib/tokenizer/unicode.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

#include "lib/tokenizer/unicode_canonical.inl"
#include "lib/tokenizer/unicode_compatible_1.inl"
#include "lib/tokenizer/unicode_compatible_2.inl"
#include "lib/tokenizer/unicode_compositions.inl"

constexpr char32_t kL = 0x1100, kV = 0x1161, kT = 0x11A7, kSyllable = 0xAC00;
constexpr char32_t kLs = 19, kVs = 21, kTs = 28, kSyllables = kLs * kVs * kTs;

using Table = std::unordered_map<char32_t, std::u32string>;

void read_table(std::span<const std::uint32_t> numbers, Table& out) {
  for (std::size_t i = 0; i < numbers.size();) {
    const std::size_t length = numbers[i] & 0xFF;
    const auto first = numbers.begin() + std::ptrdiff_t(i) + 1;
    out[numbers[i] >> 8] = std::u32string(first, first + std::ptrdiff_t(length));
    i += 1 + length;
  }
}

struct Tables {
  Table canonical, compatible;
  std::unordered_map<std::uint64_t, char32_t> composed;
  std::vector<std::uint8_t> combining;  // class of each code point
  std::vector<std::uint8_t> quiet;      // a bit for each form: it leaves such characters alone

  Tables() : combining(0x110000, 0), quiet(0x110000, 0xF) {
    read_table(kCanonical, canonical);
    compatible = canonical;
    read_table(kCompatible1, compatible);
    read_table(kCompatible2, compatible);
    const std::size_t runs = std::size(kCombiningRuns);
    for (std::size_t i = 0; i < runs; ++i) {
      const std::size_t end = i + 1 < runs ? kCombiningRuns[i + 1] >> 8 : combining.size();
      std::fill(combining.begin() + (kCombiningRuns[i] >> 8), combining.begin() + end,
                std::uint8_t(kCombiningRuns[i] & 0xFF));
    }
    for (std::size_t i = 0; i < std::size(kCompositions); i += 3)
      composed[pair(kCompositions[i], kCompositions[i + 1])] = kCompositions[i + 2];
    mark_quiet();
  }

  static std::uint64_t pair(char32_t first, char32_t second) {
    return std::uint64_t(first) << 32 | second;
  }
  static std::uint8_t bit(NormalForm form) {
    return std::uint8_t(1 << int(form));
  }

 private:
  void mark_quiet() {
    const std::uint8_t nfc = bit(NormalForm::nfc);
    const std::uint8_t nfd = bit(NormalForm::nfd);
    const std::uint8_t nfkc = bit(NormalForm::nfkc);
    const std::uint8_t nfkd = bit(NormalForm::nfkd);
    for (std::size_t c = 0; c < combining.size(); ++c) {
      if (combining[c] != 0)
        quiet[c] = 0;
    }
    std::unordered_map<char32_t, bool> result;
    for (const auto& [pair, c] : composed)
      result[c] = true;
    for (const auto& [c, codes] : canonical) {
      quiet[c] = 0;
      if (result.count(c) && combining[c] == 0)
        quiet[c] = compatible.at(c) == codes ? nfc | nfkc : nfc;
    }
    for (const auto& [c, codes] : compatible) {
      if (!canonical.count(c))
        quiet[c] &= std::uint8_t(~(nfkc | nfkd));
    }
    for (const auto& [pair, c] : composed)
      quiet[pair & 0xFFFFFFFF] &= std::uint8_t(~(nfc | nfkc));
    for (char32_t c = kSyllable; c < kSyllable + kSyllables; ++c)
      quiet[c] &= std::uint8_t(~(nfd | nfkd));
    for (char32_t c = kV; c < kT + kTs; ++c)
      quiet[c] &= std::uint8_t(~(nfc | nfkc));
  }
};

const Tables& tables() {
  static const Tables all;
  return all;
}

struct Part {
  char32_t code;
  int change;
  std::uint8_t combining;
};

void add_decomposed(char32_t c, const Tables& t, bool compatible, std::vector<Part>& out) {
  auto add = [&, first = true](char32_t code) mutable {
    out.push_back({code, first ? 0 : 1, t.combining[code]});
    first = false;
  };
  if (c >= kSyllable && c < kSyllable + kSyllables) {
    const char32_t s = c - kSyllable;
    add(kL + s / (kVs * kTs));
    add(kV + s % (kVs * kTs) / kTs);
    if (s % kTs != 0)
      add(kT + s % kTs);
    return;
  }
  const Table& table = compatible ? t.compatible : t.canonical;
  const auto found = table.find(c);
  if (found == table.end()) {
    add(c);
    return;
  }
  for (const char32_t code : found->second)
    add(code);
}

std::vector<Part> decomposed(std::string_view text, const Tables& t, bool compatible) {
  std::vector<Part> out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Char c = utf8_at(text.data() + at);
    add_decomposed(c.code, t, compatible, out);
    at += std::size_t(c.bytes);
  }
  // marks in order of their classes between characters that begin something
  for (auto first = out.begin(); first != out.end();) {
    if (first->combining == 0) {
      ++first;
      continue;
    }
    const auto last =
        std::find_if(first, out.end(), [](const Part& p) { return p.combining == 0; });
    std::stable_sort(first, last,
                     [](const Part& a, const Part& b) { return a.combining < b.combining; });
    first = last;
  }
  return out;
}

char32_t composition(const Tables& t, char32_t a, char32_t b) {
  if (a >= kL && a < kL + kLs && b >= kV && b < kV + kVs)
    return kSyllable + ((a - kL) * kVs + (b - kV)) * kTs;
  const bool open = a >= kSyllable && a < kSyllable + kSyllables && (a - kSyllable) % kTs == 0;
  if (open && b > kT && b < kT + kTs)
    return a + (b - kT);
  const auto found = t.composed.find(Tables::pair(a, b));
  return found == t.composed.end() ? 0 : found->second;
}

// Joins marks to the character that began before them.
class Composer {
 public:
  explicit Composer(const Tables& t) : tables_(t) {}

  void add(const Part& p) {
    if (!starter_) {
      begin(p);
      return;
    }
    const bool blocked = last_ && *last_ >= p.combining;
    const char32_t joined = blocked ? 0 : composition(tables_, starter_->code, p.code);
    if (joined != 0) {
      starter_ = Change{joined, starter_->change + p.change - 1};
    } else if (p.combining == 0) {
      flush();
      starter_ = Change{p.code, p.change};
    } else {
      pending_.push_back({p.code, p.change});
      last_ = p.combining;
    }
  }
  std::vector<Change> finish() {
    flush();
    return std::move(out_);
  }

 private:
  void begin(const Part& p) {
    if (p.combining == 0)
      starter_ = Change{p.code, p.change};
    else
      out_.push_back({p.code, p.change});
  }
  void flush() {
    if (starter_)
      out_.push_back(*starter_);
    out_.insert(out_.end(), pending_.begin(), pending_.end());
    pending_.clear();
    starter_.reset();
    last_.reset();
  }

  const Tables& tables_;
  std::optional<Change> starter_;
  std::optional<std::uint8_t> last_;  // class of the mark that was not joined
  std::vector<Change> pending_, out_;
};

}  // namespace

bool is_normal(std::string_view text, NormalForm form) {
  const Tables& t = tables();
  const std::uint8_t bit = Tables::bit(form);
  for (std::size_t at = 0; at < text.size();) {
    const unsigned char first = static_cast<unsigned char>(text[at]);
    if (first < 0x80) {
      ++at;
      continue;
    }
    const Utf8Char c = utf8_at(text.data() + at);
    if (!(t.quiet[c.code] & bit))
      return false;
    at += std::size_t(c.bytes);
  }
  return true;
}

std::vector<Change> normal_changes(std::string_view text, NormalForm form) {
  const Tables& t = tables();
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const std::vector<Part> parts = decomposed(text, t, compatible);
  if (form == NormalForm::nfd || form == NormalForm::nfkd) {
    std::vector<Change> out;
    for (const Part& p : parts)
      out.push_back({p.code, p.change});
    return out;
  }
  Composer composer(t);
  for (const Part& p : parts)
    composer.add(p);
  return composer.finish();
}

}  // namespace moe
