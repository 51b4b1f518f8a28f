// What ranks give rank 0 while it writes: moments, and rows of parameters that lie elsewhere.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "lib/core/error.h"
#include "lib/model/trainer.h"

namespace moe {

namespace {

constexpr const char* wanted = "numbers wanted";

}  // namespace

// Each rank gives its runs, and rank 0 puts them in their places.
void Trainer::gather_parts(const std::vector<Part>& mine, View<float> whole) {
  std::vector<std::byte> bytes;
  const auto put = [&](const void* from, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(from);
    bytes.insert(bytes.end(), first, first + size);
  };
  for (const Part& part : mine) {
    put(&part.run, sizeof(NumberRange));
    put(part.numbers, std::size_t(part.run.count) * sizeof(float));
  }
  std::vector<ConstBytes> send(std::size_t(comm_.size()));
  send[0] = bytes;
  for (const auto& theirs : comm_.exchange({"numbers of parameters"}, send)) {
    for (std::size_t at = 0; at < theirs.size();) {
      NumberRange run;
      std::memcpy(&run, theirs.data() + at, sizeof(NumberRange));
      at += sizeof(NumberRange);
      std::memcpy(whole.data + run.first, theirs.data() + at,
                  std::size_t(run.count) * sizeof(float));
      at += std::size_t(run.count) * sizeof(float);
    }
  }
}

// Runs of this rank's moments of parameter i, as they are in `held`, on the host. Of ranks that
// hold the same, the first ones give them.
std::vector<Trainer::Part> Trainer::moment_parts(std::size_t i, const Matrix<float>& held) const {
  const Index before = parameters_[i]->first_held() * parameters_[i]->value().cols;
  std::vector<Part> out;
  if (!owns_moments()) {
    if (comm_.rank() < ranks_.expert_ranks && held.size() > 0)
      out.push_back({{before, held.size()}, held.data()});
    return out;
  }
  for (const Stepped& s : stepped(i))
    out.push_back({{before + s.run.first, s.run.count}, held.data() + s.moment});
  return out;
}

Matrix<float> Trainer::lend_moments(std::size_t i, char which) {
  Matrix<float> whole;
  if (comm_.first())
    whole = Matrix<float>(parameters_[i]->value().rows, parameters_[i]->value().cols);
  const Matrix<float> held = moments(i, which).to_host();
  gather_parts(moment_parts(i, held), whole.view());
  return whole;
}

// Rows of a parameter of the model that do not lie here, for rank 0, while the others lend().
void Trainer::borrow_rows(std::size_t i, Index first, View<float> out) {
  if (!comm_.first()) {
    throw Error(Exit::bug, concat("rows of '", model_.parameters()[i]->name(),
                                  "' are wanted by a rank that nobody lends them to"));
  }
  comm_.from_first({wanted}, concat("p", i, " ", first, " ", out.rows));
  lend_parts(i, first, out.rows, {out.data - first * out.cols, out.rows, out.cols});
}

// This rank's share of rows of a parameter of the model; on rank 0 with those of the others, where
// they stand in the whole of it.
void Trainer::lend_parts(std::size_t i, Index first, Index count, View<float> whole) {
  const Parameter<float>& p = *model_.parameters()[i];
  const Index cols = p.value().cols;
  const Index before = p.first_held() * cols;
  const auto trained = std::ranges::find(parameters_, &p);
  const auto [summed, k] = trained == parameters_.end()
                               ? std::pair<const Summed*, std::size_t>{}
                               : place_of(std::size_t(trained - parameters_.begin()));
  std::vector<NumberRange> runs;  // here, along the rows here
  if (summed && summed->values)
    runs = summed->values->runs(k);
  else if (comm_.rank() < ranks_.expert_ranks && !comm_.first())  // rank 0 reads its own itself
    runs = {{0, p.held_rows() * cols}};
  std::vector<Matrix<float>> numbers;
  std::vector<Part> mine;
  for (const NumberRange& run : runs) {
    const Index from = std::max(first * cols, before + run.first);
    const Index end = std::min((first + count) * cols, before + run.first + run.count);
    if (from >= end)
      continue;
    Matrix<float>& host = numbers.emplace_back(1, end - from);
    const NumberRange part{from - before, end - from};
    const float* here =
        summed && summed->values ? summed->values->own(k, part).data : p.held().data + part.first;
    model_.backend().to_host(here, host.data(), std::size_t(part.count) * sizeof(float));
    mine.push_back({{from, part.count}, host.data()});
  }
  gather_parts(mine, whole);
}

void Trainer::lend() {
  while (group_ || owns_moments()) {
    const std::string text = comm_.from_first({wanted}, "");
    if (text.empty())
      return;
    std::size_t i = 0;
    Index first = 0;
    Index count = 0;
    std::sscanf(text.c_str() + 1, "%zu %ld %ld", &i, &first, &count);
    if (text[0] == 'p')
      lend_parts(i, first, count, {});
    else
      lend_moments(i, text[0]);
  }
}

void Trainer::end_reading() {
  if (group_ || owns_moments())
    comm_.from_first({wanted}, "");
}

void Trainer::set_moments(std::size_t i, View<const float> host, char which) {
  Array<float>& moments = (which == 'm' ? m_ : v_)[i];
  const Parameter<float>& p = *parameters_[i];
  const float* from = host.data + p.first_held() * p.value().cols;
  if (!owns_moments())
    return moments.set({from, moments.rows(), moments.cols()});
  for (const Stepped& s : stepped(i)) {
    model_.backend().to_device(from + s.run.first, moments.view().data + s.moment,
                               std::size_t(s.run.count) * sizeof(float));
  }
}

std::vector<Trainer::Moment> Trainer::moments() {
  std::vector<Moment> out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    for (const char which : {'m', 'v'}) {
      const auto read = [this, i, which] {
        if (!lends_moments(i))
          return moments(i, which).to_host();
        comm_.from_first({wanted}, concat(which, i));
        return lend_moments(i, which);
      };
      const auto set = [this, i, which](View<const float> host) {
        set_moments(i, host, which);
      };
      out.push_back(
          {concat(parameters_[i]->name(), ".", which), &parameters_[i]->dims(), read, set});
    }
  }
  return out;
}

}  // namespace moe
