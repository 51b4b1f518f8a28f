// `pairs`: lines of two texts with a tab between, what an encoder reads and what its decoder writes
// (translations, questions and answers). A file is a domain; a folder's .tsv files are one each.
#include <fstream>

#include "datasets/dataset.h"
#include "datasets/denoise.h"
#include "datasets/samples.h"
#include "datasets/text_domains.h"
#include "lib/core/error.h"
#include "lib/files/sha256.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

struct Pair {
  TokenIds source, target;
};
struct Domain {
  std::vector<Pair> train, valid;
};

std::vector<fs::path> files_of(const fs::path& path) {
  std::error_code code;
  if (fs::is_regular_file(path, code))
    return {path};
  if (!fs::is_directory(path, code)) {
    throw Error(Exit::input, concat("'", path.native(), "' does not exist"))
        .hint("pairs:path=FILE.tsv, or a folder of such files");
  }
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().extension() == ".tsv")
      out.push_back(entry.path());
  }
  std::ranges::sort(out);
  if (out.empty())
    throw Error(Exit::input, concat("folder '", path.native(), "' holds no .tsv file"))
        .hint("a line for each pair: source, a tab, target");
  return out;
}

class Pairs final : public Dataset {
 public:
  Pairs(Spec& spec, const Tokenizer& tokenizer) : start_(tokenizer.boundary()) {
    const std::string path = spec.get("path", "");
    reversed_ = spec.get("reverse", false);
    const SpecialText special = special_option(spec);
    spec.done();
    if (path.empty()) {
      throw Error(Exit::usage, "the dataset pairs was given no path")
          .hint("pairs:path=FILE.tsv, a line for each pair: source, a tab, target");
    }
    if (start_ < 0) {
      throw Error(Exit::usage, concat("the tokenizer ", tokenizer.id(),
                                      " has no id for the end of a text, with which a target ends"))
          .hint("--tokenizer bytes, or one with such an id");
    }
    info_.spec = spec.resolved();
    info_.vocabulary = tokenizer.vocabulary();
    info_.start = start_;
    for (const fs::path& file : files_of(path))
      add(file, tokenizer, special);
  }
  const DatasetInfo& info() const override {
    return info_;
  }
  Piece train_piece(int domain, int tokens, Rng& rng) const override {
    const auto& all = domain_[std::size_t(domain)].train;
    if (all.empty()) {
      throw Error(Exit::input,
                  concat("domain ", info_.domains[std::size_t(domain)], " has no pair to train on"))
          .hint("more lines");
    }
    return piece_of(all[std::size_t(rng.below(Index(all.size())))], tokens);
  }
  std::optional<Piece> valid_piece(int domain, int tokens, Index piece) const override {
    const auto& all = domain_[std::size_t(domain)].valid;
    if (piece >= Index(all.size()))
      return std::nullopt;
    return piece_of(all[std::size_t(piece)], tokens);
  }

 private:
  void add(const fs::path& file, const Tokenizer& tokenizer, SpecialText special) {
    std::ifstream in(file, std::ios::binary);
    if (!in)
      throw Error(Exit::io, concat("'", file.native(), "' cannot be read"))
          .hint("check its permissions");
    Domain domain;
    Sha256 hash;
    Index number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      if (line.ends_with('\r'))
        line.pop_back();
      if (line.empty())
        continue;
      hash.update({reinterpret_cast<const std::uint8_t*>(line.data()), line.size()});
      // by a pair's text alone, so that copies of it are in one split
      (in_tenth(line) ? domain.valid : domain.train)
          .push_back(
              pair_of(line, concat("'", file.native(), "', line ", number), tokenizer, special));
    }
    if (domain.train.empty() && domain.valid.empty())
      throw Error(Exit::input, concat("'", file.native(), "' holds no pair"))
          .hint("a line for each pair: source, a tab, target");
    describe(file.stem().string(), domain, hash);
    domain_.push_back(std::move(domain));
  }
  Pair pair_of(const std::string& line, const std::string& place, const Tokenizer& tokenizer,
               SpecialText special) const {
    const auto tab = line.find('\t');
    if (tab == line.npos || tab == 0 || tab + 1 == line.size() ||
        line.find('\t', tab + 1) != line.npos) {
      throw Error(Exit::input, concat(place, " is not two texts with a tab between"))
          .hint("a line for each pair: source, a tab, target");
    }
    const auto ids = [&](const std::string& text) {
      return tokenizer.encode(text, {.special = special}).ids;
    };
    Pair out{ids(line.substr(0, tab)), ids(line.substr(tab + 1))};
    if (reversed_)
      std::swap(out.source, out.target);
    return out;
  }
  void describe(const std::string& name, const Domain& d, Sha256& hash) {
    const auto written = [](const std::vector<Pair>& all) {
      Index n = 0;
      for (const Pair& p : all)
        n += Index(p.target.size()) + 1;
      return n;
    };
    info_.domains.push_back(name);
    info_.train_tokens.push_back(written(d.train));
    info_.valid_tokens.push_back(written(d.valid));
    info_.valid_pieces.push_back(Index(d.valid.size()));
    info_.content_hash.push_back(std::stoull(hash.hex().substr(0, 16), nullptr, 16));
  }
  // Longer ones are cut.
  Piece piece_of(const Pair& p, int tokens) const {
    Piece out = shifted(p.target, start_, std::size_t(tokens));
    out.source = p.source;
    out.source.resize(std::min(out.source.size(), std::size_t(tokens)));
    return out;
  }

  int start_;
  bool reversed_ = false;
  DatasetInfo info_;
  std::vector<Domain> domain_;
};

}  // namespace

std::unique_ptr<Dataset> make_pairs_dataset(Spec& spec, const Tokenizer& tokenizer) {
  return std::make_unique<Pairs>(spec, tokenizer);
}

}  // namespace moe
