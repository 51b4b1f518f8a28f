// A decoder among other micro-batches and other ranks: experts that are shared out, and balance
// losses over the counts of a whole step.
#include "lib/core/error.h"
#include "lib/core/profile.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"

namespace moe {

template <class S>
void Decoder<S>::share_out(Comm& group, const CrossingWay& way) {
  int number = 0;
  for (MoeLayer<S>* layer : moe_layers())
    layer->share_out(group, number++, way);
}

template <class S>
std::vector<CrossingTape<S>> Decoder<S>::serve(bool training) {
  const TimeSpan time("experts for other ranks");
  std::vector<CrossingTape<S>> tapes(blocks_.size());
  hear(of_no_layer, At::before_forward);
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    hear(int(l), At::before_forward);
    if (blocks_[l].moe)
      blocks_[l].moe->serve(training, tapes[l]);
    hear(int(l), At::after_forward);
  }
  hear(of_no_layer, At::after_forward);
  return tapes;
}

template <class S>
void Decoder<S>::serve_backward(const std::vector<CrossingTape<S>>& tapes) {
  const TimeSpan time("experts for other ranks backward");
  hear(of_no_layer, At::before_backward);
  for (std::size_t l = tapes.size(); l-- > 0;) {
    hear(int(l), At::before_backward);
    if (blocks_[l].moe)
      blocks_[l].moe->serve_backward(tapes[l]);
    hear(int(l), At::after_backward);
  }
  hear(of_no_layer, At::after_backward);
}

template <class S>
bool Decoder<S>::counts_whole_step() {
  const auto layers = moe_layers();
  return !layers.empty() && layers[0]->step_balancers() > 0;
}

template <class S>
std::vector<std::int64_t> Decoder<S>::step_counts(const Pass& pass, const Tape& tape) const {
  std::vector<std::int64_t> out;
  for (std::size_t l = 0; l < tape.block.size(); ++l) {
    if (!tape.block[l].moe)
      continue;
    const auto counts = blocks_[l].moe->step_counts(pass, *tape.block[l].moe);
    out.insert(out.end(), counts.begin(), counts.end());
  }
  return out;
}

template <class S>
void Decoder<S>::balance_step(const Pass& pass, std::span<const std::int64_t> others, Tape& tape) {
  const TimeSpan time(TimePart::routing, "balance losses of a whole step");
  Pass mine = pass;
  mine.layers = {.count = config_->moe_layers(), .losses_follow = true};
  for (std::size_t l = 0; l < tape.block.size(); ++l) {
    if (!tape.block[l].moe)
      continue;
    MoeLayer<S>& layer = *blocks_[l].moe;
    const std::size_t own = std::size_t(layer.step_balancers()) * layer.config().experts;
    layer.balance_step(mine, others.first(own), *tape.block[l].moe);
    others = others.subspan(own);
  }
}

#define MEMBERS(S)                                                                            \
  template void Decoder<S>::share_out(Comm&, const CrossingWay&);                             \
  template std::vector<CrossingTape<S>> Decoder<S>::serve(bool);                              \
  template void Decoder<S>::serve_backward(const std::vector<CrossingTape<S>>&);              \
  template bool Decoder<S>::counts_whole_step();                                              \
  template std::vector<std::int64_t> Decoder<S>::step_counts(const Pass&, const Tape&) const; \
  template void Decoder<S>::balance_step(const Pass&, std::span<const std::int64_t>, Tape&);
MEMBERS(float)
MEMBERS(double)
#undef MEMBERS

}  // namespace moe
