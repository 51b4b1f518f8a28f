// Byte pairs by scores: two neighbours merge where their text is a piece, the best score first. As
// a table of pairs: every cut of every piece into two things that can be parts.
#include <algorithm>
#include <unordered_map>

#include "lib/tokenizer/sentencepiece_model.h"
#include "lib/tokenizer/sentencepiece_normalizer.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

constexpr std::int32_t kUnknownPart = -1;

bool is_mergeable(PieceType type) {
  return type == PieceType::normal || type == PieceType::user_defined || type == PieceType::unused;
}

class ScoredBpe final : public SentencePieceModel {
 public:
  ScoredBpe(const std::vector<ScoredPiece>& pieces, const Trie& user_defined, int unknown)
      : pieces_(pieces), user_defined_(user_defined), unknown_(unknown) {
    for (std::size_t id = 0; id < pieces.size(); ++id) {
      if (is_mergeable(pieces[id].type))
        ids_.emplace(pieces[id].text, std::int32_t(id));
    }
    add_characters();
    add_pairs();
  }

  void encode(std::string_view text, SentencePieceWork& work,
              std::vector<Part>& out) const override {
    work.parts.clear();
    for (std::size_t at = 0; at < text.size();) {
      const std::string_view rest = text.substr(at);
      std::size_t bytes = longest_prefix(user_defined_, rest);
      if (bytes > 0) {
        // frozen: a number that no pair has
        work.parts.push_back({-2 - find(rest.substr(0, bytes)), std::uint32_t(bytes)});
      } else {
        bytes =
            std::min(rest.size(), std::size_t(utf8_length(static_cast<unsigned char>(rest[0]))));
        work.parts.push_back({find(rest.substr(0, bytes)), std::uint32_t(bytes)});
      }
      at += bytes;
    }
    merge_parts(work.parts, table_, work.merge);
    for (const Part& part : work.parts)
      put(part, out);
  }

 private:
  std::int32_t find(std::string_view text) const {
    const auto found = ids_.find(text);
    return found == ids_.end() ? kUnknownPart : found->second;
  }

  // Characters that are no piece but the beginning or end of one can be merged too: they get ids
  // behind those of the pieces.
  void add_characters() {
    const auto add = [&](std::string_view character) {
      if (ids_.emplace(character, std::int32_t(pieces_.size() + extra_)).second)
        ++extra_;
    };
    for (const ScoredPiece& piece : pieces_) {
      const std::string_view text = piece.text;
      if (!is_mergeable(piece.type) || text.empty())
        continue;
      const auto bytes = std::size_t(utf8_length(static_cast<unsigned char>(text[0])));
      std::size_t last = text.size() - 1;
      while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80)
        --last;
      if (bytes < text.size())
        add(text.substr(0, bytes));
      if (last > 0)
        add(text.substr(last));
    }
  }

  // Equal scores are equal ranks, so that the leftmost pair wins.
  void add_pairs() {
    std::vector<std::int32_t> order;
    for (std::size_t id = 0; id < pieces_.size(); ++id) {
      if (is_mergeable(pieces_[id].type))
        order.push_back(std::int32_t(id));
    }
    const auto score = [&](std::int32_t id) {
      return pieces_[std::size_t(id)].score;
    };
    std::ranges::stable_sort(order, [&](auto a, auto b) { return score(a) > score(b); });
    std::uint32_t rank = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (i > 0 && score(order[i]) < score(order[i - 1]))
        ++rank;
      add_cuts(order[i], rank);
    }
  }
  void add_cuts(std::int32_t id, std::uint32_t rank) {
    const std::string_view text = pieces_[std::size_t(id)].text;
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const std::int32_t left = find(text.substr(0, cut));
      const std::int32_t right = left < 0 ? -1 : find(text.substr(cut));
      if (right >= 0)
        table_.add(left, right, rank, id);
    }
  }

  // An unused piece is cut again as the two that made it. Which two is decided by the pair that
  // would have been merged first.
  void put(const Part& part, std::vector<Part>& out) const {
    const std::int32_t id = part.id <= -2 ? -2 - part.id : part.id;
    const bool known = id >= 0 && std::size_t(id) < pieces_.size();
    if (!known) {
      out.push_back({unknown_, part.bytes});
      return;
    }
    if (pieces_[std::size_t(id)].type != PieceType::unused || part.id < 0) {
      out.push_back({id, part.bytes});
      return;
    }
    put_halves(id, out);
  }
  void put_halves(std::int32_t id, std::vector<Part>& out) const {
    const std::string_view text = pieces_[std::size_t(id)].text;
    SentencePieceWork work;
    for (std::size_t at = 0; at < text.size();) {
      const auto bytes = std::min(text.size() - at,
                                  std::size_t(utf8_length(static_cast<unsigned char>(text[at]))));
      work.parts.push_back({find(text.substr(at, bytes)), std::uint32_t(bytes)});
      at += bytes;
    }
    if (work.parts.size() < 2) {
      out.push_back({id, std::uint32_t(text.size())});
      return;
    }
    // all merges but the last one give the two halves
    const std::vector<Part> halves = halves_of(work);
    for (const Part& half : halves)
      put(half, out);
  }
  std::vector<Part> halves_of(SentencePieceWork& work) const {
    std::vector<Part>& parts = work.parts;
    while (parts.size() > 2) {
      std::size_t best = 0;
      std::uint64_t rank = FlatMap::none;
      for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
        const std::uint64_t found = table_.find(parts[i].id, parts[i + 1].id);
        if (found != FlatMap::none && (rank == FlatMap::none || found >> 32 < rank >> 32)) {
          rank = found;
          best = i;
        }
      }
      if (rank == FlatMap::none)
        break;
      parts[best] = {std::int32_t(rank), parts[best].bytes + parts[best + 1].bytes};
      parts.erase(parts.begin() + std::ptrdiff_t(best) + 1);
    }
    return parts;
  }

  const std::vector<ScoredPiece>& pieces_;
  const Trie& user_defined_;
  int unknown_;
  std::size_t extra_ = 0;
  std::unordered_map<std::string_view, std::int32_t> ids_;
  MergeTable table_;
};

}  // namespace

std::unique_ptr<SentencePieceModel> make_scored_bpe(const std::vector<ScoredPiece>& pieces,
                                                    const Trie& user_defined, int unknown) {
  return std::make_unique<ScoredBpe>(pieces, user_defined, unknown);
}

}  // namespace moe
