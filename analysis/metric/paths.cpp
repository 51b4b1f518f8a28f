// The most travelled paths: a token's first choices through all layers. Counted exactly while the distinct paths fit in
// memory; beyond that by Misra-Gries (1982), which never overstates a path and says by how much it may understate.
#include <unordered_map>

#include "analysis/metric/layout.h"

namespace moe {
namespace {

class Paths final : public Metric {
 public:
  Paths(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o)
      : shape_(trace), top_(spec.get("top", 20, 1)), most_(std::size_t(std::max<std::int64_t>(1024, o.memory / 4 / std::int64_t(96 + 2 * shape_.experts.size())))), first_(shape_.experts.size()) {
    for (std::size_t l = 0; l < first_.size(); ++l) first_[l].assign(std::size_t(shape_.experts[l]), 0);
  }

  TraceFields needs() const override { return no_fields; }

  void observe(const Window& w) override {
    std::u16string path(shape_.experts.size(), u'\0');
    for (const Index t : w.valid) {
      bool whole = !path.empty();
      for (std::size_t l = 0; l < path.size() && whole; ++l) {
        const int e = w.layer[l].first(t);
        whole = e >= 0 && e < 0xFFFF;
        path[l] = char16_t(e);
      }
      if (!whole) continue;
      ++tokens_;
      for (std::size_t l = 0; l < path.size(); ++l) ++first_[l][path[l]];
      ++count_[path];
      if (count_.size() > most_) thin();
    }
  }

  std::vector<MetricValue> values() const override {
    MetricValue v{"path_frequency", {0}, {}};
    for (const auto& [path, n] : sorted()) v.values.push_back(double(n) / double(tokens_));
    v.dims[0] = Index(v.values.size());
    return {v};
  }

  void report(Report&) const override;

 private:
  void thin() {
    ++understated_;
    for (auto at = count_.begin(); at != count_.end();) at = --at->second ? std::next(at) : count_.erase(at);
  }
  std::vector<std::pair<std::u16string, std::int64_t>> sorted() const {  // the `top` first
    std::vector<std::pair<std::u16string, std::int64_t>> all(count_.begin(), count_.end());
    const auto order = [](const auto& a, const auto& b) { return a.second != b.second ? a.second > b.second : a.first < b.first; };
    const std::size_t n = std::min(all.size(), std::size_t(top_));
    std::partial_sort(all.begin(), all.begin() + std::ptrdiff_t(n), all.end(), order);
    all.resize(n);
    return all;
  }

  Shape shape_;
  int top_;
  std::size_t most_;
  std::vector<std::vector<std::int64_t>> first_;  // (L)(E) first choices
  std::unordered_map<std::u16string, std::int64_t> count_;
  std::int64_t tokens_ = 0, understated_ = 0;
};

void Paths::report(Report& r) const {
  if (tokens_ == 0 || shape_.layers() < 2) return;
  double random = 1;
  for (const int e : shape_.experts) random /= e;
  std::vector<std::string> name;
  std::vector<std::int64_t> count;
  std::vector<double> share, null, expected;
  double covered = 0;
  for (const auto& [path, n] : sorted()) {
    std::string text;
    double independent = 1;
    for (std::size_t l = 0; l < path.size(); ++l) {
      text += (l ? "→" : "") + std::to_string(unsigned(path[l]));
      independent *= double(first_[l][path[l]]) / double(tokens_);
    }
    name.push_back(text), count.push_back(n), share.push_back(double(n) / double(tokens_)), null.push_back(random), expected.push_back(independent * double(tokens_));
    covered += share.back();
  }
  Table t{"paths", "The most travelled paths", "A path is a token's first choice in every layer. Random routing gives each path the share 1/E per layer multiplied up; `if independent` is how many tokens would take it "
          "if layers ignored each other but kept their loads.", Chart::none,
          {column({"path", "", "experts from the first to the last MoE layer", ""}, name), column({"tokens", "tokens", "tokens that took it", ""}, count),
           column({"share", "share", "of all tokens", "path_frequency", 5}, share, null), column({"if independent", "tokens", "expected tokens from the layers' first-choice shares alone", "", 1}, expected)}, section::paths, false, {}};
  if (understated_) t.warnings.push_back("more distinct paths than memory allows: each count may be up to " + std::to_string(understated_) + " too low");
  r.tables.push_back(std::move(t));
  r.findings.push_back("The most travelled path, " + name[0] + ", is taken by " + percent(share[0]) + " of the tokens; the " + std::to_string(name.size()) + " busiest of " + (understated_ ? "more than " : "") +
                       std::to_string(count_.size()) + " paths carry " + percent(covered) + " (random routing: " + percent(random * double(name.size())) + ").");
}

}  // namespace

std::unique_ptr<Metric> make_paths_metric(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o) { return std::make_unique<Paths>(spec, trace, o); }

}  // namespace moe
