#include "lib/tokenizer/trainer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <queue>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tokenizer/byte_letters.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

using Json = nlohmann::json;
using Pair = std::pair<int, int>;

struct Word {
  std::vector<int> ids;
  std::int64_t count;
};

// Texts of ids in letters, with the merges that made them.
struct Learned {
  std::vector<std::string> texts;
  std::unordered_map<std::string, int> ids;
  std::vector<std::pair<std::string, std::string>> merges;

  int id_of(const std::string& text) {
    const auto [entry, fresh] = ids.emplace(text, int(texts.size()));
    if (fresh)
      texts.push_back(text);
    return entry->second;
  }
};

std::uint64_t key_of(const Pair& p) {
  return std::uint64_t(p.first) << 32 | std::uint32_t(p.second);
}

// How often pairs stand in words, and in which.
class PairCounts {
 public:
  explicit PairCounts(const std::vector<Word>& words) {
    for (std::size_t w = 0; w < words.size(); ++w)
      add(words[w], w, 1);
    push_changed();
  }
  void add(const Word& word, std::size_t place, int sign) {
    for (std::size_t i = 0; i + 1 < word.ids.size(); ++i) {
      const std::uint64_t key = key_of({word.ids[i], word.ids[i + 1]});
      Entry& e = entries_[key];
      e.count += sign * word.count;
      if (sign > 0 && (e.words.empty() || e.words.back() != place))
        e.words.push_back(place);
      if (sign > 0)
        changed_.push_back(key);
    }
  }
  void push_changed() {
    std::ranges::sort(changed_);
    const auto rest = std::ranges::unique(changed_);
    changed_.erase(rest.begin(), rest.end());
    for (const std::uint64_t key : changed_)
      queue_.push({entries_[key].count, key});
    changed_.clear();
  }
  // The pair that is seen most often, with its words; false where none is seen so often.
  bool best(std::int64_t frequency, Pair& pair, std::vector<std::size_t>& words) {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      Entry& e = entries_[top.key];
      if (e.count != top.count) {
        if (e.count > 0)
          queue_.push({e.count, top.key});
        continue;
      }
      if (top.count < std::max<std::int64_t>(frequency, 1))
        return false;
      pair = {int(top.key >> 32), int(top.key & 0xFFFFFFFF)};
      words = std::move(e.words);
      entries_.erase(top.key);
      std::ranges::sort(words);
      const auto rest = std::ranges::unique(words);
      words.erase(rest.begin(), rest.end());
      return true;
    }
    return false;
  }

 private:
  struct Entry {
    std::int64_t count = 0;
    std::vector<std::size_t> words;
  };
  struct Candidate {
    std::int64_t count;
    std::uint64_t key;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : key > other.key;
    }
  };
  std::unordered_map<std::uint64_t, Entry> entries_;
  std::vector<std::uint64_t> changed_;
  std::priority_queue<Candidate> queue_;
};

void merge(std::vector<int>& ids, const Pair& pair, int id) {
  std::size_t to = 0;
  for (std::size_t from = 0; from < ids.size(); ++to) {
    const bool last = from + 1 == ids.size();
    const bool here = !last && ids[from] == pair.first && ids[from + 1] == pair.second;
    ids[to] = here ? id : ids[from];
    from += here ? 2 : 1;
  }
  ids.resize(to);
}

Json split_json(const std::string& pattern) {
  const bool gpt2 = pattern == known_pattern("gpt2");
  const Json level = {{"type", "ByteLevel"},
                      {"add_prefix_space", false},
                      {"trim_offsets", true},
                      {"use_regex", gpt2}};
  if (gpt2)
    return level;
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, level})}};
}

Json special_json(const std::vector<std::string>& special) {
  Json out = Json::array();
  for (std::size_t id = 0; id < special.size(); ++id) {
    out.push_back({{"id", id},
                   {"content", special[id]},
                   {"single_word", false},
                   {"lstrip", false},
                   {"rstrip", false},
                   {"normalized", false},
                   {"special", true}});
  }
  return out;
}

std::string json_of(const Learned& learned, const BpeTraining& training) {
  Json vocabulary = Json::object();
  for (std::size_t id = 0; id < learned.texts.size(); ++id)
    vocabulary[learned.texts[id]] = id;
  Json merges = Json::array();
  for (const auto& [left, right] : learned.merges)
    merges.push_back(Json::array({left, right}));
  const Json decoder = {{"type", "ByteLevel"},
                        {"add_prefix_space", true},
                        {"trim_offsets", true},
                        {"use_regex", true}};
  const Json model = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"ignore_merges", false},
                      {"vocab", vocabulary},
                      {"merges", merges}};
  const Json all = {{"version", "1.0"},
                    {"truncation", nullptr},
                    {"padding", nullptr},
                    {"added_tokens", special_json(training.special)},
                    {"normalizer", nullptr},
                    {"pre_tokenizer", split_json(training.pattern)},
                    {"post_processor", nullptr},
                    {"decoder", decoder},
                    {"model", model}};
  return all.dump(1) + "\n";
}

}  // namespace

BpeTrainer::BpeTrainer(BpeTraining training)
    : training_(std::move(training)), split_(make_split(training_.pattern, "the training", false)) {
  const int least = int(training_.special.size()) + 256;
  if (training_.vocabulary < least) {
    throw Error(Exit::usage, concat("a vocabulary of ", training_.vocabulary,
                                    " has no room for the 256 bytes and ", training_.special.size(),
                                    " special tokens"))
        .hint(concat("at least ", least));
  }
}

void BpeTrainer::add(std::string_view sequence) {
  std::string storage;
  if (!is_valid_utf8(sequence)) {
    storage = whole_text(sequence).text;
    sequence = storage;
  }
  Spans spans{{0, std::uint32_t(sequence.size())}};
  split_->cut(sequence, spans);
  for (const ByteRange& span : spans) {
    const std::string_view word = sequence.substr(span.begin, span.size());
    const auto found = counts_.find(word);
    if (found == counts_.end())
      counts_.emplace(word, 1);
    else
      ++found->second;
  }
}

std::string BpeTrainer::train(const std::function<void(int ids)>& progress) const {
  Learned learned;
  for (const std::string& special : training_.special)
    learned.id_of(special);
  std::vector<char32_t> letters(byte_letters().begin(), byte_letters().end());
  std::ranges::sort(letters);
  for (const char32_t letter : letters)
    learned.id_of(utf8_of(std::u32string(1, letter)));

  std::vector<Word> words;
  words.reserve(counts_.size());
  for (const auto& [text, count] : counts_) {
    Word word{.count = count};
    for (const char c : text)
      word.ids.push_back(learned.id_of(letters_of_bytes(std::string(1, c))));
    words.push_back(std::move(word));
  }
  PairCounts counts(words);
  Pair pair;
  std::vector<std::size_t> places;
  while (int(learned.texts.size()) < training_.vocabulary &&
         counts.best(training_.frequency, pair, places)) {
    const std::string left = learned.texts[std::size_t(pair.first)];
    const std::string right = learned.texts[std::size_t(pair.second)];
    const int id = learned.id_of(left + right);
    learned.merges.emplace_back(left, right);
    for (const std::size_t place : places) {
      counts.add(words[place], place, -1);
      merge(words[place].ids, pair, id);
      counts.add(words[place], place, 1);
    }
    counts.push_changed();
    progress(int(learned.texts.size()));
  }
  return json_of(learned, training_);
}

}  // namespace moe
