// The registry of patterns, and a trace out of one: sequence by sequence, layers side by side on
// threads.
#include "analysis/synth/synth.h"

#include <cmath>

#include "lib/core/error.h"
#include "lib/core/parallel.h"

namespace moe {

#define PATTERN(name, about, examples) MakePattern make_##name##_pattern;
#include "analysis/synth/patterns.def"
#undef PATTERN

const Registry<MakePattern>& patterns() {
  static const Registry<MakePattern> all("pattern", {
#define PATTERN(name, about, examples) {#name, about, examples, make_##name##_pattern},
#include "analysis/synth/patterns.def"
#undef PATTERN
                                                    });
  return all;
}

namespace {

// of the token ids; layers have the numbers from 0
constexpr std::uint64_t token_stream = 0x746F6B656E73;

void check(const SynthShape& s) {
  if (s.layers < 1 || s.experts < 1 || s.sequence < 1 || s.step < 1 || s.vocabulary < 1 ||
      s.domains < 0 || s.ranks < 0) {
    throw Error(Exit::usage,
                concat("a trace of ", s.layers, " layers, ", s.experts, " experts, sequences of ",
                       s.sequence, " and steps of ", s.step, " rows cannot be"));
  }
  if (s.k < 1 || s.k > s.experts) {
    throw Error(Exit::usage,
                concat("a token cannot take ", s.k, " different experts of ", s.experts))
        .hint("1 <= K <= E");
  }
}

// Of a sequence of n rows, the first of which are a picture; none where the pattern knows none.
std::vector<std::uint8_t> modalities_of(std::size_t n, int picture_rows) {
  std::vector<std::uint8_t> out;
  for (std::size_t t = 0; t < n && picture_rows >= 0; ++t)
    out.push_back(t < std::size_t(picture_rows) ? modality::image : modality::text);
  return out;
}

TraceRows sequence_rows(const Synth& m, std::uint64_t first, std::uint64_t sequence) {
  const SynthShape& s = m.shape;
  const auto n = std::size_t(std::min<std::uint64_t>(std::uint64_t(s.sequence), s.tokens - first));
  TraceRows rows;
  Rng ids = Rng(s.seed).stream(token_stream).stream(sequence);
  for (std::size_t t = 0; t < n; ++t) {
    rows.token_id.push_back(std::uint32_t(ids.below(s.vocabulary)));
    rows.position.push_back(std::uint32_t(t));
  }
  rows.flags.assign(n, 0);
  rows.modality = modalities_of(n, m.pattern->picture_rows());
  if (s.ranks)
    rows.rank.assign(n, std::uint16_t(sequence % std::uint64_t(s.ranks)));
  rows.layer.resize(std::size_t(s.layers));
  parallel_for(s.layers, 1, [&](Index a, Index b) {
    for (Index l = a; l < b; ++l) {
      LayerRows& layer = rows.layer[l];
      layer.expert = Matrix<int>(Index(n), s.k);
      if (s.weights)
        layer.weight = Matrix<float>(Index(n), s.k, 1.0f / float(s.k));
      Rng rng = Rng(s.seed).stream(std::uint64_t(l)).stream(sequence);
      m.pattern->draw({first, sequence, int(n), int(l),
                       s.domains ? int(sequence % std::uint64_t(s.domains)) : -1},
                      rng, layer.expert);
    }
  });
  return rows;
}

template <class T>
std::vector<T> cut(const std::vector<T>& all, std::size_t first, std::size_t count) {
  if (all.empty())
    return {};
  return {all.begin() + std::ptrdiff_t(first), all.begin() + std::ptrdiff_t(first + count)};
}
template <class T>
Matrix<T> cut(const Matrix<T>& all, std::size_t first, std::size_t count) {
  if (all.empty())
    return {};
  Matrix<T> out(Index(count), all.cols());
  std::copy_n(all.data() + Index(first) * all.cols(), out.size(), out.data());
  return out;
}

TraceRows cut(const TraceRows& all, std::size_t first, std::size_t count) {
  TraceRows out;
  out.token_id = cut(all.token_id, first, count);
  out.position = cut(all.position, first, count);
  out.flags = cut(all.flags, first, count);
  out.modality = cut(all.modality, first, count);
  out.rank = cut(all.rank, first, count);
  for (const LayerRows& l : all.layer) {
    out.layer.emplace_back();
    out.layer.back().expert = cut(l.expert, first, count);
    out.layer.back().weight = cut(l.weight, first, count);
  }
  return out;
}

// As near to a square as so many rows can be.
SignalGrid grid_of(int rows) {
  int down = std::max(1, int(std::sqrt(double(rows))));
  while (rows % down != 0)
    --down;
  return {std::uint16_t(down), std::uint16_t(rows / down)};
}

void describe(TraceHeader& h, const SynthShape& s) {
  h.engine = "synthetic";
  h.seed = s.seed;
  h.vocab_size = std::uint32_t(s.vocabulary);
  h.compute_dtype.clear();
  h.order = "unknown";  // nothing ranked these choices
  h.weight_normalized = s.weights;
  h.wide_weights = s.weights;  // 1/K as it is
  h.layers.clear();
  h.domains.clear();
  for (int l = 0; l < s.layers; ++l) {
    TraceLayer layer;
    layer.index = l;
    layer.experts = s.experts;
    layer.top_k = s.k;
    layer.norm_topk = s.weights ? 1 : 255;
    layer.capacity_factor = std::numeric_limits<float>::quiet_NaN();
    h.layers.push_back(layer);
  }
  for (int d = 0; d < s.domains; ++d)
    h.domains.push_back(concat("domain ", d));
}

}  // namespace

Synth make_synth(const std::string& text, const SynthShape& shape) {
  check(shape);
  Spec spec(text);
  Synth out{shape, "", patterns().at(spec.name()).make(spec, shape)};
  spec.done();
  out.resolved = spec.resolved();
  return out;
}

void write_synth(const std::filesystem::path& path, const Synth& m, TraceHeader header,
                 TraceWriterOptions options, const std::function<void(std::uint64_t)>& progress) {
  const SynthShape& s = m.shape;
  describe(header, s);
  const int picture = m.pattern->picture_rows();
  options.fields = {.weights = s.weights,
                    .dropped = false,
                    .kept = false,
                    .entropy = false,
                    .margin = false,
                    .logsumexp = false,
                    .rank = s.ranks > 0,
                    .modality = picture >= 0};
  const SignalGrid grid = picture > 0 ? grid_of(picture) : SignalGrid{};
  TraceWriter writer(path, header, options);
  std::uint64_t sequence = 0;
  const auto step = std::uint64_t(s.step);
  for (std::uint64_t first = 0; first < s.tokens; ++sequence) {
    const TraceRows rows = sequence_rows(m, first, sequence);
    const std::uint64_t end = first + rows.tokens();
    writer.sequence(s.domains ? std::uint16_t(sequence % std::uint64_t(s.domains)) : no_domain,
                    grid);
    for (std::uint64_t at = first; at < end;) {  // pieces of one step
      if (at % step == 0)
        writer.step({std::int64_t(at / step), 0, 0, Phase::eval});
      const std::uint64_t until = std::min(end, (at / step + 1) * step);
      at == first&& until == end ? writer.append(rows)
                                 : writer.append(cut(rows, at - first, until - at));
      at = until;
    }
    first = end;
    if (progress)
      progress(first);
  }
  writer.finish();
}

}  // namespace moe
