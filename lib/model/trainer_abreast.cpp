// Steps with balance losses over all their micro-batches (switch:scope=global). What experts get in
// the step is known when its micro-batches have been routed, so lanes go abreast: the n-th
// micro-batch of every lane goes forward, then ranks add up what all of them count, then they go
// backward. A loss sees the counts of this round and of the rounds before (arXiv 2501.11873 buffers
// them likewise), which with one micro-batch a lane is the whole step.
#include "lib/core/profile.h"
#include "lib/model/trainer.h"

namespace moe {

Trainer::AtWork& Trainer::at_work(std::vector<AtWork>& all, const Micro& micro) const {
  const Index each = options_.accumulate / options_.lanes;
  const Lanes mine = lanes_of_rank(comm_.rank(), comm_.size(), options_.lanes);
  return all[std::size_t(micro.number - mine.first * each)];
}

std::vector<Trainer::MicroFigures> Trainer::run_abreast(const NextBatch& next,
                                                        const Observe& observe, StepResult& r) {
  const Index rounds = options_.accumulate / options_.lanes;
  const Lanes mine = lanes_of_rank(comm_.rank(), comm_.size(), options_.lanes);
  std::vector<AtWork> all(std::size_t(mine.count * rounds));
  begin_gradients();
  counted_.clear();
  for (Index round = 0; round < rounds; ++round) {
    forward_abreast(round, next, all);
    balance_round(round, all);
    backward_abreast(round, observe != nullptr, r, all);
  }
  reduce();
  r.gradient_norm = norm_of_gradients();
  return figures_abreast(observe, r, all);
}

void Trainer::forward_abreast(Index round, const NextBatch& next, std::vector<AtWork>& all) {
  served_.clear();
  for (Index turn = round * most_lanes(); turn < (round + 1) * most_lanes(); ++turn) {
    const auto micro = micro_of(comm_.rank(), turn);
    if (!micro) {
      if (serves())
        served_.push_back(model_.serve(true));
      continue;
    }
    const TimeSpan time("micro-batch", int(micro->number));
    AtWork& work = at_work(all, *micro);
    begin(std::uint64_t(done_ * options_.accumulate + micro->number), next, work);
    model_.forward(pass_of(work), work.tape, Decoder<float>::ReadLosses::later);
  }
}

// Losses from the counts of all micro-batches of this round and of those before.
void Trainer::balance_round(Index round, std::vector<AtWork>& all) {
  std::vector<AtWork*> mine;
  std::vector<std::vector<std::int64_t>> own;
  std::vector<std::int64_t> sum;
  for (Index turn = round * most_lanes(); turn < (round + 1) * most_lanes(); ++turn) {
    const auto micro = micro_of(comm_.rank(), turn);
    if (!micro)
      continue;
    AtWork& work = *mine.emplace_back(&at_work(all, *micro));
    own.push_back(model_.step_counts(pass_of(work), work.tape));
    sum.resize(own.back().size());
    for (std::size_t i = 0; i < sum.size(); ++i)
      sum[i] += own.back()[i];
  }
  comm_.sum({"counts of a round"}, sum);
  counted_.resize(sum.size());
  for (std::size_t i = 0; i < sum.size(); ++i)
    counted_[i] += sum[i];
  for (std::size_t n = 0; n < mine.size(); ++n) {
    for (std::size_t i = 0; i < sum.size(); ++i)
      own[n][i] = counted_[i] - own[n][i];
    model_.balance_step(pass_of(*mine[n]), own[n], mine[n]->tape);
  }
}

// Gradients of lanes go on where their last turn left them.
void Trainer::take_up(Index turn) {
  const auto mine = micro_of(comm_.rank(), turn);
  const auto found = [](std::map<Index, Gradients>& aside, const std::optional<Micro>& micro) {
    return micro ? aside.extract(micro->lane) : std::map<Index, Gradients>::node_type{};
  };
  for (Summed& s : summed_) {
    if (auto node = found(s.aside, mine)) {
      if (crosses(s))
        exchange_home(s, std::move(node.mapped()));
      for (std::size_t k = 0; !crosses(s) && k < s.parameters.size(); ++k)
        parameters_[s.parameters[k]]->exchange_grad(std::move(node.mapped()[k]));
    }
    for (int r = 0; crosses(s) && r < group_->size(); ++r) {
      if (auto node = found(s.crossed_aside, micro_of(first_of_group() + r, turn)))
        give_crossed(s, r, std::move(node.mapped()));
    }
  }
}

void Trainer::backward_abreast(Index round, bool observed, const StepResult& r,
                               std::vector<AtWork>& all) {
  std::size_t served = 0;
  for (Index turn = round * most_lanes(); turn < (round + 1) * most_lanes(); ++turn) {
    turn_ = turn;
    take_up(turn);
    if (const auto micro = micro_of(comm_.rank(), turn)) {
      AtWork& work = at_work(all, *micro);
      if (observed)
        model_.read_losses({&work.tape, 1});
      if (work.tape.loss_on_device.empty()) {
        StepResult so_far = r;
        add(figures_of(work.tape), so_far);
        refuse_nonfinite(so_far, work.tape);
      }
      if (observed)
        model_.fetch_routing(work.tape);
      model_.backward(pass_of(work), work.tape);
    } else if (serves()) {
      model_.serve_backward(served_[served++]);
    }
    turn_done(turn);
  }
}

// In the order of micro-batches, whatever the order of turns was.
std::vector<Trainer::MicroFigures> Trainer::figures_abreast(const Observe& observe, StepResult& r,
                                                            std::vector<AtWork>& all) {
  std::vector<Decoder<float>::Tape> tapes;
  for (AtWork& work : all)
    tapes.push_back(std::move(work.tape));
  model_.read_losses(tapes);
  std::vector<MicroFigures> figures;
  for (std::size_t n = 0; n < all.size(); ++n) {
    figures.push_back(figures_of(tapes[n]));
    add(figures.back(), r);
    if (observe) {
      const TimeSpan record("record");
      observe(*all[n].batch, tapes[n]);
    }
  }
  return figures;
}

}  // namespace moe
