#include "lib/model/shards.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/parcel.h"
#include "lib/layer/parameter.h"

namespace moe {
namespace {

void unpack(Memory& memory, const float* from, const Shards::Runs& runs, View<float> all) {
  for (const NumberRange& run : runs) {
    memory.to_device(from, all.data + run.first, std::size_t(run.count) * sizeof(float));
    from += run.count;
  }
}

// Returns what follows the numbers there.
float* pack(Memory& memory, View<const float> numbers, float* to) {
  memory.to_host(numbers.data, to, std::size_t(numbers.size()) * sizeof(float));
  return to + numbers.size();
}

}  // namespace

Shards::Shards(Comm& comm, Backend<float>& backend, std::vector<Parameter<float>*> parameters,
               std::vector<std::vector<Runs>> runs, int experts)
    : comm_(comm),
      backend_(backend),
      parameters_(std::move(parameters)),
      runs_(std::move(runs)),
      experts_(experts) {
  for (std::size_t p = 0; p < parameters_.size(); ++p) {
    Array<float> all = parameters_[p]->exchange_value({});
    Array<float>& kept = kept_.emplace_back(backend_, 1, numbers(this->runs(p)));
    Index at = 0;
    for (const NumberRange& run : this->runs(p)) {
      std::vector<float> host(std::size_t(run.count));
      const std::size_t bytes = host.size() * sizeof(float);
      backend_.to_host(all.view().data + run.first, host.data(), bytes);
      backend_.to_device(host.data(), kept.view().data + at, bytes);
      at += run.count;
    }
  }
}

Index Shards::numbers(const Runs& runs) const {
  Index n = 0;
  for (const NumberRange& run : runs)
    n += run.count;
  return n;
}

View<float> Shards::own(std::size_t p, NumberRange part) {
  Index at = 0;
  for (const NumberRange& run : runs(p)) {
    if (part.first >= run.first && part.first + part.count <= run.first + run.count)
      return {kept_[p].view().data + at + part.first - run.first, 1, part.count};
    at += run.count;
  }
  throw Error(Exit::bug, concat("numbers of '", parameters_[p]->name(),
                                "' were wanted of a rank that does not keep them"));
}

bool Shards::finite(std::size_t p) const {
  return kept_[p].empty() || std::isfinite(backend_.sum_squares(kept_[p].view()));
}

// The runs of a rank, of experts those parts that are wanted.
Shards::Runs Shards::asked(int rank, std::size_t p, std::span<const std::uint8_t> wanted) const {
  const Runs& all = runs_[std::size_t(rank)][p];
  if (experts_ == 0)
    return all;
  const Parameter<float>& parameter = *parameters_[p];
  const Index each = parameter.held_rows() * parameter.value().cols / experts_;
  Runs out;
  for (const NumberRange& run : all) {
    for (Index at = run.first; at < run.first + run.count;) {
      const Index expert = at / each;
      const Index end = std::min(run.first + run.count, (expert + 1) * each);
      if (wanted[std::size_t(expert)])
        out.push_back({at, end - at});
      at = end;
    }
  }
  return out;
}

void Shards::bring() {
  bring(std::vector<std::uint8_t>(std::size_t(experts_), 1));
}

void Shards::bring(std::span<const std::uint8_t> wanted) {
  std::vector<std::vector<std::uint8_t>> all(std::size_t(comm_.size()));
  if (experts_ > 0)
    all = comm_.gather<std::uint8_t>({"experts wanted"}, wanted);
  for (std::size_t p = 0; p < parameters_.size(); ++p)
    bring(p, all);
}

void Shards::bring(std::size_t p, const std::vector<std::vector<std::uint8_t>>& wanted) {
  Parameter<float>& parameter = *parameters_[p];
  const auto me = std::size_t(comm_.rank());
  std::vector<Parcel<float>> out(wanted.size());
  std::vector<Parcel<float>> in(wanted.size());
  std::vector<ConstBytes> send;
  for (int r = 0; r < comm_.size(); ++r) {
    const auto at = std::size_t(r);
    const Runs runs_of_rank = asked(comm_.rank(), p, wanted[at]);
    out[at] = Parcel<float>(numbers(runs_of_rank));
    float* to = out[at].span().data();
    for (const NumberRange& run : runs_of_rank)
      to = pack(backend_, own(p, run), to);
    if (at == me) {
      std::swap(in[at], out[at]);
    } else {
      sent_.asked += numbers(runs_of_rank);
      sent_.all += numbers(runs(p));
      in[at] = Parcel<float>(numbers(asked(r, p, wanted[me])));
    }
    send.push_back(out[at].bytes());
  }
  travel(comm_, {"values of a layer"}, std::move(send), in);
  Array<float> all(backend_, parameter.held_rows(), parameter.value().cols);
  for (int r = 0; r < comm_.size(); ++r)
    unpack(backend_, in[std::size_t(r)].span().data(), asked(r, p, wanted[me]), all.view());
  parameter.exchange_value(std::move(all));
}

void Shards::release() {
  for (Parameter<float>* p : parameters_)
    p->exchange_value({});
}

}  // namespace moe
