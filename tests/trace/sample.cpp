// See sample.h.
#include "tests/trace/sample.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>

#include "lib/core/text.h"

namespace moe::sample {
namespace {

constexpr std::uint64_t batch = 96, sequence = 32;

// Every third sequence begins with a picture of 2 x 2 places, and its last row is of nobody knows
// what.
constexpr SignalGrid picture{2, 2};

SignalGrid grid_of(const Shape& s, std::uint64_t number) {
  return s.fields.modality && number % 3 == 1 ? picture : SignalGrid{};
}
std::uint8_t modality_of(std::uint64_t row) {
  if (row / sequence % 3 != 1)
    return modality::text;
  return row % sequence < picture.places() ? modality::image
         : row % sequence == sequence - 1  ? modality::unknown
                                           : modality::text;
}

// any fixed scrambling will do
std::uint32_t mix(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  std::uint64_t x = a * 0x9E3779B97F4A7C15u + b * 0xBF58476D1CE4E5B9u + c * 0x94D049BB133111EBu + 1;
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBu;
  return std::uint32_t(x >> 32);
}
float exact(std::uint32_t n) {
  return float(n % 512) / 512;
}  // a half float holds it

void resize(LayerRows& r, const Shape& s, Index n) {
  const TraceFields& f = s.fields;
  r.expert = Matrix<int>(n, s.k);
  if (f.weights)
    r.weight = Matrix<float>(n, s.k);
  if (f.dropped)
    r.dropped = Matrix<std::uint8_t>(n, s.k);
  if (f.kept)
    r.kept = Matrix<int>(n, s.k);
  if (f.predicted)
    r.predicted = Matrix<int>(n, 3);
  if (f.logits)
    r.logits = Matrix<float>(n, s.experts);
  if (f.out_norm)
    r.out_norm = Matrix<float>(n, s.k);
}

// The choices of row `row`, number t of these, in layer l.
void fill_choices(LayerRows& r, const Shape& s, std::uint64_t row, Index t, std::uint64_t l) {
  const TraceFields& f = s.fields;
  const int start = int(mix(row, l, 1) % std::uint32_t(s.experts));
  for (int k = 0; k < s.k; ++k) {
    const bool none = k == s.k - 1 && s.k > 1 && row % 11 == 0;
    r.expert(t, k) = none ? -1 : (start + k) % s.experts;
    const bool dropped = !none && mix(row, l, 20 + std::uint64_t(k)) % 7 == 0;
    if (f.weights)
      r.weight(t, k) = none ? 0 : float(512 - 64 * (k % 8)) / 512 - float(k / 8) / 512;
    if (f.dropped)
      r.dropped(t, k) = dropped;
    if (f.kept)
      r.kept(t, k) = dropped ? -1 : r.expert(t, k);
    if (f.out_norm)
      r.out_norm(t, k) = exact(mix(row, l, 3)) * 3.3f;
  }
}

void fill(LayerRows& r, const Shape& s, std::uint64_t first, Index n, int layer) {
  const TraceFields& f = s.fields;
  const auto l = std::uint64_t(layer);
  resize(r, s, n);
  for (Index t = 0; t < n; ++t) {
    const std::uint64_t row = first + std::uint64_t(t);
    fill_choices(r, s, row, t, l);
    for (Index m = 0; m < r.predicted.cols(); ++m)
      r.predicted(t, m) = int((row + std::uint64_t(m)) % std::uint64_t(s.experts));
    for (Index e = 0; e < r.logits.cols(); ++e)
      r.logits(t, e) = exact(mix(row, l, 100 + std::uint64_t(e)));
    if (f.entropy)
      r.entropy.push_back(exact(mix(row, l, 4)));
    if (f.margin)
      r.margin.push_back(exact(mix(row, l, 5)));
    if (f.logsumexp)
      r.logsumexp.push_back(exact(mix(row, l, 6)) * 1.7f);
  }
}

// Names of what differs, separated by commas.
class Differences {
 public:
  template <class A>
  void compare(const std::string& what, const A& a, const A& b) {
    if (!(a == b))
      found_ += (found_.empty() ? "" : ", ") + what;
  }
  void compare_layer(const LayerRows& a, const LayerRows& b, const std::string& at) {
    compare("expert" + at, a.expert, b.expert);
    compare("weight" + at, a.weight, b.weight);
    compare("dropped" + at, a.dropped, b.dropped);
    compare("kept" + at, a.kept, b.kept);
    compare("predicted" + at, a.predicted, b.predicted);
    compare("entropy" + at, a.entropy, b.entropy);
    compare("margin" + at, a.margin, b.margin);
    compare("logsumexp" + at, a.logsumexp, b.logsumexp);
    compare("logits" + at, a.logits, b.logits);
    compare("out_norm" + at, a.out_norm, b.out_norm);
  }
  const std::string& found() const {
    return found_;
  }

 private:
  std::string found_;
};

}  // namespace

Folder::Folder() {
  std::string name = (std::filesystem::temp_directory_path() / "moe-trace-XXXXXX").string();
  path = mkdtemp(name.data());
}
Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

TraceFields every_field() {
  return {true, true, true, true, true, true, true, true, true, true, true, true};
}

TraceHeader header(const Shape& s) {
  TraceHeader h;
  h.engine_version = "0.1";
  h.command = "moe trace runs/a -o a.moetrace.h5";
  h.config = R"({"model": "tiny", "größe": 1})";
  h.model_id = "tiny";
  h.tokenizer_id = "bytes";
  h.created_utc = "2024-01-02T03:04:05Z";
  h.vocab_size = 320;
  h.checkpoint_step = 1200;
  h.seed = 0xFFFFFFFFFFFFFFF0u;
  for (int l = 0; l < s.layers; ++l) {
    TraceLayer layer{2 * l + 1,
                     s.experts,
                     s.k,
                     l,
                     1,
                     1,
                     ScoreFn::softmax,
                     1,
                     0,
                     2.5f,
                     l == 0 ? std::numeric_limits<float>::quiet_NaN() : 1.25f,
                     4096u + unsigned(l)};
    h.layers.push_back(layer);
  }
  h.domains = {"english", "中文", "code"};
  h.pieces = {"a", "b", "é"};
  if (s.fields.predicted)
    h.predicted = 3;
  return h;
}

TraceRows rows(const Shape& s, std::uint64_t first, std::uint64_t count) {
  TraceRows out;
  for (std::uint64_t t = first; t < first + count; ++t) {
    out.token_id.push_back(t % 97 == 5 ? withheld_token : mix(t, 0, 0) % 320);
    out.position.push_back(std::uint32_t(t % sequence));
    out.sequence.push_back(std::uint32_t(t / sequence));
    out.step.push_back(std::uint32_t(t / batch));
    const bool padding = t % 50 == 49 && t % sequence >= picture.places();
    out.flags.push_back(std::uint8_t(padding ? token_flag::padding : token_flag::prompt));
    if (s.fields.modality)
      out.modality.push_back(modality_of(t));
    if (s.fields.rank)
      out.rank.push_back(std::uint16_t(t % 4));
    if (!s.fields.prediction)
      continue;
    out.predicted_id.push_back(mix(t, 1, 0) % 320);
    out.target_id.push_back(mix(t, 2, 0) % 320);
    out.logprob.push_back(-exact(mix(t, 3, 0)) * 1.3f);
  }
  for (int l = 0; l < s.layers; ++l) {
    out.layer.emplace_back();
    fill(out.layer.back(), s, first, Index(count), l);
  }
  return out;
}

void append(TraceWriter& w, const Shape& s, std::uint64_t first, std::uint64_t last) {
  for (std::uint64_t t = first; t < last;) {
    const std::uint64_t end = std::min(last, t / sequence * sequence + sequence);
    if (t % batch == 0)
      w.step({std::int64_t(t / batch * 10), 0, 0, Phase::train});
    if (t % sequence == 0)
      w.sequence(std::uint16_t(t / sequence % 3), grid_of(s, t / sequence));
    w.append(rows(s, t, end - t));
    t = end;
  }
}

void write(const std::filesystem::path& path, const Shape& s, std::uint64_t tokens, bool force) {
  TraceWriterOptions options;
  options.fields = s.fields;
  options.force = force;
  TraceWriter w(path, header(s), options);
  append(w, s, 0, tokens);
  w.finish();
}

std::string difference(const TraceReader& r, const Shape& s, std::uint64_t first,
                       std::uint64_t count) {
  const TraceRows is = r.read(first, count, s.fields);
  const TraceRows want = rows(s, first, count);
  Differences d;
  d.compare("token_id", is.token_id, want.token_id);
  d.compare("position", is.position, want.position);
  d.compare("sequence", is.sequence, want.sequence);
  d.compare("step", is.step, want.step);
  d.compare("flags", is.flags, want.flags);
  d.compare("modality", is.modality, want.modality);
  d.compare("rank", is.rank, want.rank);
  d.compare("predicted_id", is.predicted_id, want.predicted_id);
  d.compare("target_id", is.target_id, want.target_id);
  d.compare("logprob", is.logprob, want.logprob);
  for (const std::uint32_t q : want.sequence)
    d.compare(concat("grid of sequence ", q), r.sequences().at(q).grid, grid_of(s, q));
  for (std::size_t l = 0; l < want.layer.size(); ++l)
    d.compare_layer(is.layer.at(l), want.layer[l], concat(" of layer ", l));
  return d.found();
}

std::string bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void put_bytes(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}
std::string first_difference(const std::filesystem::path& x, const std::filesystem::path& y) {
  const std::string a = bytes(x);
  const std::string b = bytes(y);
  if (a == b)
    return "";
  const auto at =
      std::mismatch(a.begin(), a.begin() + std::ptrdiff_t(std::min(a.size(), b.size())), b.begin())
          .first -
      a.begin();
  return concat("sizes ", a.size(), " and ", b.size(), ", first different byte ", at);
}
int env(const char* name, int fallback) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : fallback;
}

}  // namespace moe::sample
