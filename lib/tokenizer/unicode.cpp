// Tables of characters, unfolded once from their generated runs.
#include "lib/tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <unordered_map>

#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

#include "lib/tokenizer/unicode_categories.inl"
#include "lib/tokenizer/unicode_clusters.inl"
#include "lib/tokenizer/unicode_measured.inl"
#include "lib/tokenizer/unicode_names.inl"
#include "lib/tokenizer/unicode_properties.inl"
#include "lib/tokenizer/unicode_scripts.inl"

constexpr char32_t kEnd = 0x110000;
using Ranges = std::vector<CodeRange>;
using Table = std::span<const std::uint32_t>;

Ranges ranges_of(Table pairs) {
  Ranges out;
  for (std::size_t i = 0; i + 1 < pairs.size(); i += 2)
    out.push_back({pairs[i], pairs[i + 1]});
  return out;
}

// Ranges of each label of a table of runs; label 0 is that of no name.
std::vector<Ranges> labelled(Table runs, std::size_t labels) {
  std::vector<Ranges> out(labels + 1);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const char32_t next = i + 1 < runs.size() ? runs[i + 1] >> 8 : kEnd;
    out[runs[i] & 0xFF].push_back({runs[i] >> 8, next - 1});
  }
  return out;
}

Ranges joined(const std::vector<const Ranges*>& parts) {
  Ranges all;
  for (const Ranges* part : parts)
    all.insert(all.end(), part->begin(), part->end());
  std::ranges::sort(all, {}, &CodeRange::first);
  Ranges out;
  for (const CodeRange& r : all) {
    if (!out.empty() && r.first <= out.back().last + 1)
      out.back().last = std::max(out.back().last, r.last);
    else
      out.push_back(r);
  }
  return out;
}

// Names are compared without case, spaces, hyphens and underscores.
std::string folded(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c != ' ' && c != '-' && c != '_')
      out += c >= 'A' && c <= 'Z' ? char(c + 32) : c;
  }
  return out;
}

using Properties = std::unordered_map<std::string, Ranges>;

// Names that a pattern may write out.
constexpr std::pair<const char*, const char*> kLongNames[] = {{"letter", "l"},
                                                              {"uppercaseletter", "lu"},
                                                              {"lowercaseletter", "ll"},
                                                              {"titlecaseletter", "lt"},
                                                              {"modifierletter", "lm"},
                                                              {"otherletter", "lo"},
                                                              {"mark", "m"},
                                                              {"nonspacingmark", "mn"},
                                                              {"spacingmark", "mc"},
                                                              {"enclosingmark", "me"},
                                                              {"number", "n"},
                                                              {"decimalnumber", "nd"},
                                                              {"letternumber", "nl"},
                                                              {"othernumber", "no"},
                                                              {"punctuation", "p"},
                                                              {"symbol", "s"},
                                                              {"mathsymbol", "sm"},
                                                              {"currencysymbol", "sc"},
                                                              {"modifiersymbol", "sk"},
                                                              {"othersymbol", "so"},
                                                              {"separator", "z"},
                                                              {"spaceseparator", "zs"},
                                                              {"other", "c"},
                                                              {"control", "cc"},
                                                              {"format", "cf"},
                                                              {"digit", "nd"},
                                                              {"cntrl", "cc"}};

void add_categories(Properties& all) {
  const std::vector<Ranges> category = labelled(kCategoryRuns, std::size(kCategoryNames));
  std::map<char, std::vector<const Ranges*>> groups;
  for (std::size_t i = 0; i < std::size(kCategoryNames); ++i) {
    all[folded(kCategoryNames[i])] = category[i + 1];
    groups[kCategoryNames[i][0]].push_back(&category[i + 1]);
  }
  for (const auto& [letter, parts] : groups)
    all[folded(std::string(1, letter))] = joined(parts);
  all["lc"] = joined({&all["lu"], &all["ll"], &all["lt"]});
  for (const auto& [name, code] : kLongNames)
    all[name] = all[code];
}

void add_scripts(Properties& all) {
  const std::vector<Ranges> script = labelled(kScriptRuns, std::size(kScriptNames));
  for (std::size_t i = 0; i < std::size(kScriptNames); ++i)
    all[folded(kScriptNames[i])] = script[i + 1];
}

void add_others(Properties& all) {
  all["whitespace"] = all["space"] = ranges_of(kWhiteSpace);
  all["alphabetic"] = all["alpha"] = ranges_of(kAlphabetic);
  all["uppercase"] = all["upper"] = ranges_of(kUppercase);
  all["lowercase"] = all["lower"] = ranges_of(kLowercaseLetters);
  all["word"] = ranges_of(kWord);
  all["alnum"] = joined({&all["alphabetic"], &all["nd"]});
  all["punct"] = ranges_of(kPosixPunct);
  all["blank"] = ranges_of(kPosixBlank);
  all["emoji"] = ranges_of(kEmoji);
  all["extendedpictographic"] = ranges_of(kExtendedPictographic);
  all["ideographic"] = ranges_of(kIdeographic);
  all["xdigit"] = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}};
  all["ascii"] = {{0, 0x7F}};
  all["any"] = {{0, kEnd - 1}};
}

const Properties& properties() {
  static const Properties all = [] {
    Properties made;
    add_categories(made);
    add_scripts(made);
    add_others(made);
    return made;
  }();
  return all;
}

using Bits = std::vector<char_class::Bits>;

void mark(Bits& bits, const Ranges& ranges, char_class::Bits bit) {
  for (const CodeRange& r : ranges) {
    for (char32_t c = r.first; c <= r.last; ++c)
      bits[c] |= bit;
  }
}

// The bits of every code point.
Bits all_bits() {
  static constexpr std::pair<const char*, char_class::Bits> named[] = {
      {"l", char_class::letter}, {"n", char_class::number},      {"whitespace", char_class::space},
      {"m", char_class::mark},   {"p", char_class::punctuation}, {"s", char_class::symbol},
      {"lu", char_class::upper}, {"lt", char_class::upper},      {"lm", char_class::upper},
      {"lo", char_class::upper}, {"m", char_class::upper},       {"ll", char_class::lower},
      {"lm", char_class::lower}, {"lo", char_class::lower},      {"m", char_class::lower},
      {"han", char_class::han},  {"word", char_class::word}};
  Bits bits(kEnd, 0);
  for (const auto& [name, bit] : named)
    mark(bits, properties().at(name), bit);
  mark(bits, ranges_of(kNumeric), char_class::numeric);
  mark(bits, ranges_of(kBertRemoved), char_class::bert_removed);
  mark(bits, ranges_of(kSplitPunctuation), char_class::split_punctuation);
  mark(bits, ranges_of(kAccents), char_class::accent);
  mark(bits, ranges_of(kBertAccents), char_class::bert_accent);
  return bits;
}

// Equal blocks of 256 code points once.
CharTable make_char_table() {
  const Bits bits = all_bits();
  CharTable out;
  std::map<Bits, std::uint16_t> known;
  for (std::size_t at = 0; at < bits.size(); at += 256) {
    const auto begin = bits.begin() + std::ptrdiff_t(at);
    const Bits block(begin, begin + 256);
    const auto [entry, fresh] = known.emplace(block, std::uint16_t(known.size()));
    if (fresh)
      out.bits.insert(out.bits.end(), block.begin(), block.end());
    out.block.push_back(entry->second);
  }
  return out;
}

enum class Cluster : std::uint8_t {
  other,
  cr,
  lf,
  control,
  extend,
  zwj,
  spacing_mark,
  prepend,
  l,
  v,
  t,
  lv,
  lvt,
  regional,
  picture
};

Cluster cluster_of(char32_t c) {
  static const std::vector<Cluster> kind = [] {
    std::vector<Cluster> out(kEnd, Cluster::other);
    for (const CodeRange& r : ranges_of(kPictographic))
      std::fill(out.begin() + r.first, out.begin() + r.last + 1, Cluster::picture);
    const auto sets = labelled(kClusterRuns, 13);
    for (std::size_t label = 1; label < sets.size(); ++label) {
      for (const CodeRange& r : sets[label])
        std::fill(out.begin() + r.first, out.begin() + r.last + 1, Cluster(label));
    }
    return out;
  }();
  return c < kEnd ? kind[c] : Cluster::other;
}

bool is_control(Cluster c) {
  return c == Cluster::cr || c == Cluster::lf || c == Cluster::control;
}

bool hangul_joins(Cluster a, Cluster b) {
  using enum Cluster;
  if (a == l)
    return b == l || b == v || b == lv || b == lvt;
  if (a == lv || a == v)
    return b == v || b == t;
  return (a == lvt || a == t) && b == t;
}

// What came before inside the cluster, as far as the rules look back.
struct ClusterState {
  Cluster last;
  bool picture;  // a picture, then only extending characters
  bool picture_zwj = false;
  int regional_count = 0;

  bool joins(Cluster next) const {
    using enum Cluster;
    if (last == cr)
      return next == lf;
    if (is_control(last) || is_control(next))
      return false;
    if (next == extend || next == zwj || next == spacing_mark || last == prepend)
      return true;
    return hangul_joins(last, next) || (picture_zwj && next == picture) ||
           (regional_count % 2 == 1 && next == regional);
  }
  void add(Cluster next) {
    picture_zwj = picture && next == Cluster::zwj;
    picture =
        next == Cluster::picture || (picture && (next == Cluster::extend || next == Cluster::zwj));
    regional_count = next == Cluster::regional ? regional_count + 1 : 0;
    last = next;
  }
};

int script_label(std::string_view name) {
  return 1 + int(std::ranges::find(kScriptNames, name) - std::begin(kScriptNames));
}

using LowercaseMap = std::unordered_map<char32_t, std::u32string>;

const LowercaseMap& lowercase_map() {
  static const LowercaseMap map = [] {
    LowercaseMap out;
    for (std::size_t i = 0; i < std::size(kLowercase);) {
      const std::size_t length = kLowercase[i] & 3;
      out[kLowercase[i] >> 2] = std::u32string(kLowercase + i + 1, kLowercase + i + 1 + length);
      i += 1 + length;
    }
    return out;
  }();
  return map;
}

}  // namespace

const CharTable& char_table() {
  static const CharTable table = make_char_table();
  return table;
}

const std::vector<CodeRange>* property_ranges(std::string_view name) {
  const auto found = properties().find(folded(name));
  return found == properties().end() ? nullptr : &found->second;
}

int split_script(char32_t c) {
  static const int han = script_label("Han");
  static const int hiragana = script_label("Hiragana");
  static const int katakana = script_label("Katakana");
  if (c == ' ')
    return kAnyScript;
  if (c == 0x30FC)  // the mark of a long vowel
    return han;
  const auto after = std::ranges::upper_bound(kScriptRuns, c << 8 | 0xFF);
  const int script = int(*std::prev(after) & 0xFF);
  return script == hiragana || script == katakana ? han : script;
}

std::u32string lowercase_of(char32_t c) {
  if (c < 0x80)
    return std::u32string(1, c >= 'A' && c <= 'Z' ? c + 32 : c);
  const auto found = lowercase_map().find(c);
  return found == lowercase_map().end() ? std::u32string(1, c) : found->second;
}

std::size_t grapheme_end(std::string_view text, std::size_t at) {
  Utf8Char c = utf8_at(text.data() + at);
  Cluster kind = cluster_of(c.code);
  ClusterState state{.last = kind,
                     .picture = kind == Cluster::picture,
                     .regional_count = kind == Cluster::regional};
  at += std::size_t(c.bytes);
  while (at < text.size()) {
    c = utf8_at(text.data() + at);
    kind = cluster_of(c.code);
    if (!state.joins(kind))
      break;
    state.add(kind);
    at += std::size_t(c.bytes);
  }
  return at;
}

}  // namespace moe
