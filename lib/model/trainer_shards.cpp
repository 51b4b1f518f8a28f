// What a rank keeps of gradients and values where it keeps its shards alone (ZeRO-2 and 3, arXiv
// 1910.02054): gradients go to their owners as soon as a layer's backward pass is done, values come
// before a layer computes and go after it; experts' when it has routed.
#include <algorithm>
#include <cmath>

#include "lib/core/profile.h"
#include "lib/model/trainer.h"

namespace moe {

// The experts of a layer.
class Trainer::Loan final : public ExpertLoan {
 public:
  Loan(Shards& values, int experts) : values_(values), experts_(experts) {}
  void bring(std::span<const std::int64_t> rows) override {
    const TimeSpan time(TimePart::ranks, "weights of experts");
    std::vector<std::uint8_t> wanted(std::size_t(experts_), 0);
    for (std::size_t e = 0; e < rows.size(); ++e)
      wanted[e] = rows[e] > 0;
    values_.bring(wanted);
  }
  void release() override {
    values_.release();
  }

 private:
  Shards& values_;
  int experts_;
};

namespace {

// What each rank owns, and numbers between that do not train: the first rank keeps those.
std::vector<std::vector<Shards::Runs>> with_frozen(
    std::vector<std::vector<Shards::Runs>> owned,
    const std::vector<Parameter<float>*>& parameters) {
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    Shards::Runs all;
    for (const auto& of_rank : owned)
      all.insert(all.end(), of_rank[p].begin(), of_rank[p].end());
    std::ranges::sort(all, {}, &NumberRange::first);
    all.push_back({parameters[p]->held_rows() * parameters[p]->value().cols, 0});
    Index at = 0;
    for (const NumberRange& run : all) {
      if (run.first > at)
        owned[0][p].push_back({at, run.first - at});
      at = run.first + run.count;
    }
  }
  return owned;
}

int experts_here(MoeLayer<float>& layer, const Comm* group) {
  if (!group)
    return layer.config().experts;
  return layer.crossing()->first_expert(group->rank() + 1) -
         layer.crossing()->first_expert(group->rank());
}

}  // namespace

void Trainer::keep_shards() {
  if (!shards_gradients())
    return;
  const auto layers = model_.moe_layers();
  for (Summed& s : summed_) {
    s.owners->keep_shards();
    const Comm& ranks = s.experts && replicas_ ? *replicas_ : comm_;
    if (!shards_values() || ranks.alone())
      continue;
    std::vector<Parameter<float>*> parameters;
    for (const std::size_t i : s.parameters)
      parameters.push_back(parameters_[i]);
    const int experts =
        s.experts ? experts_here(*layers[std::size_t(s.moe_layers.front())], group_.get()) : 0;
    s.values = std::make_unique<Shards>(s.experts && replicas_ ? *replicas_ : comm_,
                                        model_.backend(), parameters,
                                        with_frozen(s.owners->owned_by_all(), parameters), experts);
    const auto all = model_.parameters();
    for (Parameter<float>* p : parameters) {
      const auto i = std::size_t(std::ranges::find(all, p) - all.begin());
      p->lie_elsewhere([this, i](Index first, View<float> out) { borrow_rows(i, first, out); });
    }
    if (s.experts) {
      loans_.push_back(std::make_unique<Loan>(*s.values, experts));
      layers[std::size_t(s.moe_layers.front())]->borrow(loans_.back().get());
    }
  }
  model_.watch([this](int layer, Decoder<float>::At at) { hear(layer, at); });
}

void Trainer::begin_gradients() {
  if (!shards_gradients()) {
    model_.want_grads();
    model_.clear_grads();
    return;
  }
  for (auto* p : parameters_)
    p->exchange_grad({});
}

void Trainer::hear(int layer, Decoder<float>::At at) {
  using At = Decoder<float>::At;
  const TimeSpan time(TimePart::ranks, "shards of a layer");
  const bool works = micro_of(comm_.rank(), turn_).has_value();
  for (Summed& s : summed_) {
    if (s.layer != layer)
      continue;
    const bool whole = s.values && !s.experts;
    if (whole && (at == At::before_forward || at == At::before_backward))
      s.values->bring();
    for (std::size_t k = 0; at == At::before_backward && k < s.parameters.size(); ++k) {
      if (works && !crosses(s))
        parameters_[s.parameters[k]]->want_grad(model_.backend());
    }
    if (at == At::after_backward) {
      lane_through(s, turn_);
      if (turn_ + 1 == turns())
        s.owners->reduce(s.sums->take());
    }
    if (whole && (at == At::after_forward || at == At::after_backward))
      s.values->release();
  }
}

std::string Trainer::first_not_finite() const {
  for (Parameter<float>* p : model_.parameters()) {
    if (p->made_when_read())
      continue;  // frozen, and looked at when it was loaded
    const auto at = std::ranges::find(parameters_, p);
    const auto [summed, k] = at == parameters_.end()
                                 ? std::pair<const Summed*, std::size_t>{}
                                 : place_of(std::size_t(at - parameters_.begin()));
    const bool finite = summed && summed->values
                            ? summed->values->finite(k)
                            : std::isfinite(model_.backend().sum_squares(p->held()));
    if (!finite)
      return p->name();
  }
  return {};
}

Shards::Sent Trainer::lent_experts() const {
  Shards::Sent out;
  for (const Summed& s : summed_) {
    if (!s.values || !s.experts)
      continue;
    out.asked += s.values->sent().asked;
    out.all += s.values->sent().all;
  }
  return out;
}

}  // namespace moe
