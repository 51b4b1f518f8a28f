#include "datasets/samples.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/fnv.h"
#include "lib/core/shuffle.h"
#include "lib/signal/log_mel.h"

namespace moe {
namespace {

constexpr double pixel_mean = 0.5, pixel_deviation = 0.25;

std::vector<int> shuffled(int n, Rng& rng) {
  std::vector<int> out(std::size_t(n), 0);
  std::iota(out.begin(), out.end(), 0);
  shuffle(out, rng);
  return out;
}

// Every value of both properties is in some pair.
bool all_there(const std::vector<HeldPairs::Pair>& pairs, int first, int second) {
  std::vector<bool> a(std::size_t(first), false);
  std::vector<bool> b(std::size_t(second), false);
  for (const auto& [x, y] : pairs) {
    a[std::size_t(x)] = true;
    b[std::size_t(y)] = true;
  }
  return std::ranges::find(a, false) == a.end() && std::ranges::find(b, false) == b.end();
}

}  // namespace

Samples::Samples(const std::string& name, const Tokenizer& tokenizer)
    : tokenizer_(tokenizer), name_(name) {
  if (tokenizer.boundary() < 0) {
    throw Error(Exit::usage, concat("the tokenizer ", tokenizer.id(),
                                    " has no id for the end of a text, with which an answer ends"))
        .hint("--tokenizer bytes, or one with such an id");
  }
  info_.vocabulary = tokenizer.vocabulary();
}

Piece Samples::train_piece(int domain, int tokens, Rng& rng) const {
  return piece_of(train_sample(domain, rng), tokens);
}

std::optional<Piece> Samples::valid_piece(int domain, int tokens, Index piece) const {
  if (piece >= info_.valid_pieces[std::size_t(domain)])
    return std::nullopt;
  return piece_of(valid_sample(domain, piece, Wanted::all), tokens);
}

void Samples::signal_is(std::uint8_t modality, int numbers, int places) {
  info_.signals = {{.modality = modality, .numbers = numbers, .places = places}};
}

void Samples::add_domain(const std::string& name, Index train_tokens, Index valid_samples) {
  const int domain = int(info_.domains.size());
  info_.domains.push_back(name);
  info_.train_tokens.push_back(train_tokens);
  info_.valid_pieces.push_back(valid_samples);
  Index rows = 0;
  for (Index n = 0; n < valid_samples; ++n)
    rows += rows_of(valid_sample(domain, n, Wanted::text));
  info_.valid_tokens.push_back(rows);
}

Index Samples::rows_of(const Sample& s) const {
  return s.row_count +
         Index(tokenizer_.encode(s.question).size() + tokenizer_.encode(s.answer).size());
}

void Samples::refuse_long(Index rows, Index signals, int tokens) const {
  if (rows <= tokens)
    return;
  throw Error(Exit::input, concat("a sample of ", name_, " has ", rows, " rows (", signals,
                                  " of them a signal), and a sequence ", tokens))
      .hint(concat("--length ", rows, " or more, or a smaller size="));
}

namespace {

// Pictures are squares of patches; a sound goes through time, all bands in a row.
SignalGrid grid_of(std::uint8_t kind, Index rows) {
  const auto side = Index(std::lround(std::sqrt(double(rows))));
  if (kind == modality::image && side * side == rows)
    return {std::uint16_t(side), std::uint16_t(side)};
  return {1, std::uint16_t(rows)};
}

}  // namespace

Piece Samples::piece_of(const Sample& s, int tokens) const {
  const std::vector<int> question = tokenizer_.encode(s.question);
  const std::vector<int> answer = tokenizer_.encode(s.answer);
  const std::size_t places = std::size_t(s.row_count);
  Piece out;
  out.token.resize(places);
  std::iota(out.token.begin(), out.token.end(), 0);
  out.token.insert(out.token.end(), question.begin(), question.end());
  // what follows each row, where that is the answer or its end
  out.target.assign(out.token.size() - 1, -1);
  out.target.insert(out.target.end(), answer.begin(), answer.end());
  out.target.push_back(tokenizer_.boundary());
  out.token.insert(out.token.end(), answer.begin(), answer.end());
  refuse_long(Index(out.token.size()), s.row_count, tokens);
  const std::uint8_t kind = info_.signals[0].modality;
  out.modality.assign(out.token.size(), modality::text);
  std::fill_n(out.modality.begin(), places, kind);
  Signal signal{.modality = kind, .row = std::vector<Index>(places), .value = s.rows};
  std::iota(signal.row.begin(), signal.row.end(), Index{0});
  out.signal.push_back(std::move(signal));
  out.grid = grid_of(kind, s.row_count);
  out.question = s.kind;
  return out;
}

bool in_tenth(std::string_view text) {
  const std::uint64_t h = fnv1a(text);
  return (h ^ (h >> 29)) % 10 == 0;
}

std::set<std::string> tenth_of(const std::set<std::string>& names) {
  std::set<std::string> out;
  for (const std::string& name : names) {
    if (in_tenth(name))
      out.insert(name);
  }
  if (out.empty() && names.size() > 1)
    out.insert(*names.rbegin());
  if (out.size() == names.size() && !out.empty())
    out.erase(out.begin());
  return out;
}

PatchRule patch_rule(int patch) {
  return {.patch = patch,
          .mean = std::vector<double>(3, pixel_mean),
          .deviation = std::vector<double>(3, pixel_deviation)};
}

Picture picture_of_rows(View<const float> rows) {
  const int across = int(std::lround(std::sqrt(double(rows.rows))));
  const int patch = int(std::lround(std::sqrt(double(rows.cols) / 3)));
  if (Index(across) * across != rows.rows || Index(patch) * patch * 3 != rows.cols)
    throw Error(Exit::bug, concat(rows.rows, " rows of ", rows.cols, " are no square picture"));
  const int side = across * patch;
  Picture out{.height = side, .width = side, .channels = 3, .pixel = {}};
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      for (int c = 0; c < 3; ++c) {
        const float v =
            rows(y / patch * across + x / patch, (c * patch + y % patch) * patch + x % patch);
        const double light = 255 * (double(v) * pixel_deviation + pixel_mean);
        out.pixel.push_back(std::uint8_t(std::clamp(light + 0.5, 0.0, 255.0)));
      }
    }
  }
  return out;
}

Matrix<float> as_floats(const Matrix<double>& m) {
  Matrix<float> out(m.rows(), m.cols());
  std::ranges::transform(m.flat(), out.data(), [](double v) { return float(v); });
  return out;
}

Matrix<float> joined_frames(const std::vector<float>& samples, int bands, int join) {
  constexpr double mean = 0.25;
  constexpr double deviation = 0.5;
  const Matrix<double> mel = log_mel(samples, bands);
  Matrix<float> out(mel.rows() / join, Index(join) * bands);
  for (Index i = 0; i < out.size(); ++i)
    out.data()[i] = float((mel.data()[i] - mean) / deviation);
  return out;
}

HeldPairs::HeldPairs(int first, int second, int hold, Rng rng, const std::string& where) {
  const std::vector<int> a = shuffled(first, rng);
  const std::vector<int> b = shuffled(second, rng);
  // along diagonals: no value of either property loses many of its pairs
  for (int k = 0; k < first * second; ++k) {
    const int x = k % first;
    const int y = (x + k / first) % second;
    (k < hold ? held_ : seen_).push_back({a[std::size_t(x)], b[std::size_t(y)]});
  }
  if (!all_there(seen_, first, second)) {
    throw Error(Exit::usage, concat(where, ": hold=", hold, " of ", first * second,
                                    " pairs leaves something with none to learn it from"))
        .hint(concat("hold=", std::min(first, second)));
  }
}

std::vector<std::string> with_unseen_pairs(std::vector<std::string> kinds) {
  const std::size_t n = kinds.size();
  for (std::size_t k = 0; k < n; ++k)
    kinds.push_back(kinds[k] + ", unseen pair");
  return kinds;
}

}  // namespace moe
