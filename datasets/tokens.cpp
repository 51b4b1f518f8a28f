// `tokens`: ids that some other tokenizer made, so that any model can be traced, evaluated and
// trained before its tokenizer is here. The split is that of text, by ids in place of bytes; no
// boundary is put in between, for only the ids' maker knows which id that would be.
#include <map>

#include "datasets/ids.h"
#include "datasets/stream.h"
#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/tokenizer/open.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

IdFormat format_of(const std::string& chosen, const fs::path& path) {
  const std::string ending = path.extension();
  if (chosen == "npy" || (chosen == "auto" && ending == ".npy"))
    return IdFormat::npy;
  if (chosen == "jsonl" ||
      (chosen == "auto" && (ending == ".jsonl" || ending == ".json" || ending == ".ndjson"))) {
    return IdFormat::jsonl;
  }
  return IdFormat::text;
}

class Tokens final : public Dataset {
 public:
  explicit Tokens(Spec& spec) {
    const fs::path path = spec.get("path", "");
    const std::string format = spec.choice("format", {"auto", "npy", "text", "jsonl"});
    const std::string domain = spec.get("domain", "");
    const int vocabulary = spec.get("vocabulary", 0, 0);
    whole_ = spec.get("whole", false);
    const std::string pieces = spec.has("pieces") ? spec.get("pieces", "") : "";
    spec.done();
    if (path.empty()) {
      throw Error(Exit::usage, "the dataset tokens was given no path")
          .hint("tokens:path=ids.npy, ids.txt or ids.jsonl");
    }
    info_.spec = spec.resolved();
    info_.vocabulary = vocabulary;
    info_.bare_ids = true;
    const std::string usual = domain.empty() ? path.stem().string() : domain;
    read_ids(path, format_of(format, path), vocabulary, [&](IdDocument&& d) {
      documents_[place(d.domain.empty() || !domain.empty() ? usual : d.domain)].push_back(
          std::move(d));
    });
    for (std::size_t d = 0; d < documents_.size(); ++d)
      cut(d);
    documents_.clear();
    if (!pieces.empty())
      name_ids(path, pieces);
    if (info_.domains.empty() || info_.train_tokens[0] + info_.valid_tokens[0] == 0) {
      throw Error(Exit::input, concat("'", path.native(), "' holds no ids"))
          .hint("ids as a NumPy array, as text, or as JSON lines");
    }
  }
  const DatasetInfo& info() const override {
    return info_;
  }

  Piece train_piece(int domain, int tokens, Rng& rng) const override {
    const TokenStream& stream = train_.at(std::size_t(domain));
    if (stream.size() <= tokens) {
      throw Error(Exit::input, concat("domain '", info_.domains[domain], "' has ", stream.size(),
                                      " training tokens, too few for a piece of ", tokens))
          .hint(whole_ ? "whole=1 keeps all of them for split=valid"
                       : "more ids, or a shorter --length");
    }
    return stream.piece(rng.below(stream.size()), tokens);
  }
  std::optional<Piece> valid_piece(int domain, int tokens, Index piece) const override {
    return valid_.at(std::size_t(domain)).consecutive(tokens, piece);
  }

 private:
  using Documents = std::vector<IdDocument>;

  std::size_t place(const std::string& domain) {  // domains in the order in which they first come
    const auto [at, is_new] = place_.emplace(domain, documents_.size());
    if (is_new) {
      info_.domains.push_back(domain);
      documents_.emplace_back();
    }
    return at->second;
  }
  void cut(std::size_t domain) {
    std::vector<Document> shapes;  // a letter for each id: what the rule of text cuts
    for (const IdDocument& document : documents_[domain]) {
      shapes.push_back({std::string(document.ids.size(), 'x')});
      for (const int id : document.ids)
        highest_ = std::max(highest_, id);
    }
    info_.vocabulary = std::max(info_.vocabulary, highest_ + 1);
    TokenStream train, valid;
    for (const Stretch& s : split_blocks(shapes)) {
      const IdDocument& d = documents_[domain][s.document];
      const auto part = [&](const auto& numbers) {
        const auto begin = numbers.begin();
        return numbers.empty() ? numbers
                               : std::decay_t<decltype(numbers)>(begin + s.first, begin + s.last);
      };
      (whole_ || s.split == Split::valid ? valid : train)
          .add_unfinished(part(d.ids), part(d.marks), whole_ && s.last < Index(d.ids.size()));
    }
    info_.train_tokens.push_back(train.size());
    info_.valid_tokens.push_back(valid.size());
    info_.content_hash.push_back(content_hash(train, valid));
    train_.push_back(std::move(train));
    valid_.push_back(std::move(valid));
  }

  // What the ids stand for. An id that the tokenizer does not have tells that they are another's.
  void name_ids(const fs::path& path, const std::string& pieces) {
    info_.pieces = open_tokenizer(pieces);
    if (highest_ < info_.pieces->vocabulary())
      return;
    throw Error(Exit::input, concat(in_quotes(path), " has the id ", highest_, ", and the ids of ",
                                    in_quotes(pieces), " end at ", info_.pieces->vocabulary() - 1))
        .hint("pieces= names the tokenizer that made the ids");
  }

  DatasetInfo info_;
  int highest_ = -1;  // id
  bool whole_ = false;
  std::vector<Documents> documents_;
  std::map<std::string, std::size_t> place_;
  std::vector<TokenStream> train_, valid_;
};

}  // namespace

std::unique_ptr<Dataset> make_tokens_dataset(Spec& spec, const Tokenizer&) {
  return std::make_unique<Tokens>(spec);
}

namespace {

// Whether a dataset holds ids that were made elsewhere.
bool has_ids(const Spec& spec) {
  constexpr std::string_view all[] = {"tokens", "rows"};
  return std::ranges::find(all, spec.name()) != std::end(all);
}

}  // namespace

bool only_validates(const Spec& spec) {
  return (spec.name() == "rows" && !spec.has("train")) ||
         ((spec.name() == "images" || spec.name() == "sounds") && spec.has("encoder"));
}

bool reads_text(const std::vector<std::string>& specs) {
  return std::ranges::any_of(specs, [](const std::string& spec) { return !has_ids(Spec(spec)); });
}

std::vector<std::string> for_vocabulary(const std::vector<std::string>& specs, int vocabulary) {
  std::vector<std::string> out;
  for (const std::string& text : specs) {
    Spec spec(text);
    if (has_ids(spec) && !spec.has("vocabulary"))
      spec.set("vocabulary", concat(vocabulary));
    out.push_back(has_ids(spec) ? spec.given_text() : text);
  }
  return out;
}

}  // namespace moe
