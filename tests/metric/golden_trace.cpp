#include "tests/metric/golden_trace.h"

#include <map>

#include "lib/core/text.h"

using namespace moe;

namespace {

template <class T>
std::vector<T> column_of(const GoldenFile& f, const std::string& name, std::size_t tokens) {
  std::vector<T> out(tokens, T{});
  if (!f.has(name)) return out;
  const auto values = f.integers(name).values;
  for (std::size_t t = 0; t < tokens; ++t) out[t] = T(values[t]);
  return out;
}

template <class T>
void slice(const GoldenFile& f, const std::string& name, Index l, Matrix<T>& into) {
  if (!f.has(name)) return;
  const auto all = f.reals(name);  // [T,L,n]
  into = Matrix<T>(all.dims[0], all.dims[2]);
  for (Index t = 0; t < all.dims[0]; ++t)
    for (Index j = 0; j < all.dims[2]; ++j) into(t, j) = T(all.values[std::size_t((t * all.dims[1] + l) * all.dims[2] + j)]);
}

LayerRows layer_of(const GoldenFile& f, const std::string& g, Index l, Index layers) {
  LayerRows r;
  slice(f, g + "expert_ids", l, r.expert), slice(f, g + "weights", l, r.weight), slice(f, g + "logits", l, r.logits);
  slice(f, g + "out_norm", l, r.out_norm), slice(f, g + "predicted_ids", l, r.predicted);
  if (f.has(g + "dropped")) {
    const auto bits = f.integers(g + "dropped").values;
    r.dropped = Matrix<std::uint8_t>(r.expert.rows(), r.expert.cols());
    for (Index t = 0; t < r.expert.rows(); ++t)
      for (Index j = 0; j < r.expert.cols(); ++j) r.dropped(t, j) = bits[std::size_t(t * layers + l)] >> j & 1;
  }
  return r;
}

// The cases label tokens; a trace labels sequences: one sequence for every run of one (sequence, domain).
void sequences_of(TraceRows& rows, const std::vector<int>& domain, bool has_sequences, std::vector<TraceSequence>& out) {
  const auto before = rows.sequence;
  for (std::size_t t = 0; t < rows.tokens(); ++t) {
    if (t == 0 || (has_sequences && before[t] != before[t - 1]) || domain[t] != domain[t - 1])
      out.push_back({t, 0, domain[t] < 0 ? no_domain : std::uint16_t(domain[t])});
    ++out.back().length;
    rows.sequence[t] = std::uint32_t(out.size() - 1);
  }
}

Matrix<float> cosines(const std::vector<std::vector<double>>& rows) {
  Matrix<float> out{Index(rows.size()), Index(rows.size())};
  const auto dot = [&](std::size_t a, std::size_t b) { return std::inner_product(rows[a].begin(), rows[a].end(), rows[b].begin(), 0.0); };
  for (std::size_t a = 0; a < rows.size(); ++a)
    for (std::size_t b = 0; b < rows.size(); ++b) out(Index(a), Index(b)) = float(dot(a, b) / std::sqrt(dot(a, a) * dot(b, b)));
  return out;
}

// What `moe trace` would have stored beside the rows: router rows and the pair matrices that are plain cosines.
void experts_of(const GoldenFile& f, TraceHeader& h) {
  if (!f.has("router/weight")) return;
  const auto w = f.reals("router/weight");
  Matrix<float> rows(w.dims[0], w.dims[1]);
  std::copy(w.values.begin(), w.values.end(), rows.data());
  h.router_weight = {rows};
  std::vector<std::vector<double>> all(std::size_t(w.dims[0]));
  for (const char* part : {"experts/gate", "experts/up", "experts/down"}) {
    const auto p = f.reals(part);
    const std::size_t each = p.values.size() / all.size();
    for (std::size_t e = 0; e < all.size(); ++e) all[e].insert(all[e].end(), p.values.begin() + std::ptrdiff_t(e * each), p.values.begin() + std::ptrdiff_t((e + 1) * each));
  }
  h.pairs = {{"expert_weight_cosine", {cosines(all)}}};
}

}  // namespace

MemoryTrace golden_trace(const GoldenFile& f, const char* group) {
  const std::string g = std::string(group) + "/";
  const auto ids = f.integers(g + "expert_ids");
  const std::size_t tokens = std::size_t(ids.dims[0]);
  TraceHeader h;
  for (Index l = 0; l < ids.dims[1]; ++l) {
    TraceLayer layer;
    layer.index = int(l), layer.experts = int(f.integer("num_experts")), layer.top_k = int(f.integer("top_k"));
    h.layers.push_back(layer);
  }
  if (f.has(g + "domain"))
    for (int d = 0; d < f.integer("param_num_domains"); ++d) h.domains.push_back("d" + std::to_string(d));
  experts_of(f, h);
  TraceRows rows;
  rows.token_id = column_of<std::uint32_t>(f, g + "token_id", tokens);
  rows.position = column_of<std::uint32_t>(f, g + "position", tokens);
  rows.sequence = column_of<std::uint32_t>(f, g + "sequence", tokens);
  rows.step = column_of<std::uint32_t>(f, g + "step", tokens);
  if (f.has(g + "rank")) rows.rank = column_of<std::uint16_t>(f, g + "rank", tokens);
  for (const int valid : column_of<int>(f, g + "valid", tokens)) rows.flags.push_back(valid ? 0 : std::uint8_t(token_flag::padding));
  for (Index l = 0; l < ids.dims[1]; ++l) rows.layer.push_back(layer_of(f, g, l, ids.dims[1]));
  std::vector<int> domain(tokens, -1);
  if (f.has(g + "domain")) domain = column_of<int>(f, g + "domain", tokens);
  std::vector<TraceSequence> sequences;
  sequences_of(rows, domain, f.has(g + "sequence"), sequences);
  return MemoryTrace(std::move(h), std::move(sequences), {}, std::move(rows));
}

std::vector<std::string> golden_specs(const GoldenFile& f) {
  const std::map<std::string, std::vector<std::string>> options = {
      {"load", {"topn", "tile_sizes"}}, {"drops", {"capacity_factors"}}, {"context", {"position_bucket"}}, {"vocabulary", {"min_count"}},
      {"repeats", {"lags", "batch_sizes"}}, {"cache", {"cache_sizes"}}, {"prefetch", {"prefetch_sizes"}}, {"ranks", {"ep_size", "num_nodes"}}};
  std::vector<std::string> out;
  for (const std::string& name : metrics().names()) {
    std::string spec = name;
    if (const auto at = options.find(name); at != options.end())
      for (const std::string& key : at->second) {
        std::vector<std::string> list;
        for (const double v : f.real_list("param_" + key)) list.push_back(number_text(v));
        spec += (spec == name ? ":" : ",") + key + "={" + join(list, ",") + "}";
      }
    out.push_back(spec);
  }
  return out;
}
