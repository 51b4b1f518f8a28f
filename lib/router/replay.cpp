// Routes as they were recorded (routing replay): token by token, the experts that a trace names.
// weights=live weighs them by the rule of the inner router, from the logits of now, with its
// gradient; weights=trace takes the recorded weights, which have none. This file reads no trace:
// whoever opens the model hands over the rows.
#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/excludes_experts.h"
#include "lib/router/replays_routes.h"
#include "lib/router/router.h"

namespace moe {
namespace {

class Replay final : public Router, public ReplaysRoutes, public ExcludesExperts {
 public:
  Replay(int experts, std::string file, bool live, std::unique_ptr<Router> inner)
      : Router(experts), file_(std::move(file)), live_(live), inner_(std::move(inner)) {
    temperature = inner_->temperature;
    temperature_schedule = inner_->temperature_schedule;
  }
  // Of the recorded routes; how the inner router would have chosen does not count.
  RouterFacts facts() const override {
    const RouterFacts inner = inner_->facts();
    return {.k = inner.k,
            .bias = inner.bias,
            .bias_on_logit = inner.bias_on_logit,
            .needs_recorded_routes = true};
  }
  std::vector<Projection> projections() const override {
    return inner_->projections();
  }
  std::span<double> correction_bias() override {
    return inner_->correction_bias();
  }
  void exclude(const std::vector<std::uint8_t>& out) override {
    exclude_experts(*inner_, out);
  }
  std::string recording() const override {
    return file_;
  }
  void replay(Recorded rows) override {
    rows_ = std::move(rows);
    next_ = 0;
  }
  void rewind() override {
    next_ = 0;
  }

  Routing route(const RouterInput& in) override {
    GivenNoise given = in.given ? *in.given : GivenNoise{};
    const Index first = next_;
    const Index tokens = in.tokens();
    follow(in.batch);
    given.expert = Matrix<int>(tokens, choices(), -1);
    for (Index t = 0; t < tokens; ++t) {
      if (in.batch.is_valid(t))
        std::ranges::copy(rows_.expert.row(first + t), given.expert.row(t).begin());
    }
    RouterInput mine = in;
    mine.given = &given;
    Routing r = inner_->facts().takes_routes
                    ? inner_->route(mine)
                    : Routing{.expert = given.expert, .weight = Matrix<double>(tokens, choices())};
    if (live_)
      return r;
    for (Index t = 0; t < tokens; ++t) {
      for (Index j = 0; j < r.choices(); ++j)
        r.weight(t, j) = r.expert(t, j) < 0 ? 0 : double(rows_.weight(first + t, j));
    }
    return r;
  }
  Matrix<double> probabilities(const RouterInput& in, const Routing& r) const override {
    return inner_->probabilities(in, r);
  }
  void backward(const RouterInput& in, const Routing& r, const Matrix<double>& dweight,
                const Matrix<double>& dprob, std::vector<Matrix<double>>& dscores) const override {
    inner_->backward(in, r, live_ ? dweight : Matrix<double>{}, dprob, dscores);
  }

 private:
  // The batch must be what was recorded, token by token and sequence by sequence.
  void follow(const Batch& batch) {
    if (!rows_.token) {
      throw Error(Exit::usage, concat("replay: the routes of '", file_, "' have not been read"))
          .hint("moe eval RUN --router replay:trace=FILE");
    }
    for (Index q = 0; q < batch.sequences(); ++q) {
      const Index past = batch.past.empty() ? 0 : batch.past[q];
      const Index first = batch.start[q];
      for (Index t = first; t < batch.start[std::size_t(q) + 1]; ++t, ++next_) {
        if (next_ >= Index(rows_.token->size()) || batch.is_valid(t))
          compare(std::uint32_t(batch.token[t]), std::uint32_t(past + t - first));
      }
    }
  }
  void compare(std::uint32_t token, std::uint32_t position) const {
    const auto refuse = [](const std::string& what) {
      throw Error(Exit::input, what)
          .hint(
              "the --data, --tokens, --length, --batch, --order and --seed that the trace was made "
              "with; --order "
              "domain for traces older than that option");
    };
    const auto row = std::size_t(next_);
    if (row >= rows_.token->size()) {
      refuse(concat("the trace '", file_, "' holds ", rows_.token->size(),
                    " tokens and the data goes on"));
    }
    if ((*rows_.token)[row] != token) {
      refuse(concat("row ", row, " of the trace '", file_, "' is token ", (*rows_.token)[row],
                    " and the data has ", token));
    }
    if (rows_.position && (*rows_.position)[row] != position) {
      refuse(concat("row ", row, " of the trace '", file_, "' is token ", (*rows_.position)[row],
                    " of its sequence and of the data's token ", position));
    }
  }
  std::string file_;
  bool live_;
  std::unique_ptr<Router> inner_;
  Recorded rows_;
  Index next_ = 0;
};

}  // namespace

std::string with_inner_router(const std::string& text, const std::string& own) {
  Spec spec(text);
  if (spec.name() != "replay" || spec.has("router"))
    return text;
  spec.set("router", own);
  return spec.given_text();
}

std::unique_ptr<Router> make_replay_router(Spec& spec, int experts) {
  const std::string file = spec.get("trace", "");
  if (file.empty()) {
    throw Error(Exit::usage, "replay: trace= is missing: which routes?")
        .hint("replay:trace=a.moetrace.h5");
  }
  const bool live = spec.choice("weights", {"live", "trace"}) == "live";
  const std::string name = spec.get("router", "softmax:k=2");
  auto inner = make_router(name, experts);
  const RouterFacts facts = inner->facts();
  if (facts.needs_recorded_routes) {
    throw Error(Exit::usage,
                "replay: router= is the router whose weights are computed, and it cannot be a "
                "replay itself");
  }
  if (!facts.takes_routes && (live || !inner->projections().empty())) {
    throw Error(Exit::usage, concat("replay: the weights of ", name,
                                    " do not follow from the scores of given experts"))
        .hint(
            "routers that can be replayed: softmax, sigmoid, cosine, gshard, top_p, dense, "
            "expert_choice, sinkhorn, base; those without scores with weights=trace");
  }
  return std::make_unique<Replay>(experts, file, live, std::move(inner));
}

}  // namespace moe
