// Training a part of a model: the rest stays bit by bit, gets no gradient, and the choice survives
// a checkpoint.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/router/router.h"
#include "lib/run/run_folder.h"

using namespace moe;

namespace {

const std::string fields =
    "custom:vocabulary=11,hidden=8,heads=2,layers=2,width=5,experts=4,context=16,dense_layers=1,"
    "shared_width=3,shared_gate=1,expert_bias=1,router={softmax:k=2,bias=1},balance={bias:rate=0."
    "01}";

Batch batch_of() {
  Batch b;
  b.start = {0, 5, 12};
  for (int t = 0; t < 12; ++t) {
    b.token.push_back(t * 7 % 11);
    b.target.push_back((t * 5 + 3) % 11);
  }
  return b;
}
const auto next = [](std::uint64_t) {
  return batch_of();
};
TrainOptions options(const std::string& trained, const std::string& factor = "") {
  return {.steps = 9,
          .sequences = 1,
          .length = 12,
          .lr = 1e-2,
          .schedule = "constant:warmup=0",
          .trained = trained,
          .lr_factor = factor};
}

struct Run {
  explicit Run(const std::string& backend_name, const TrainOptions& o)
      : backend(make_backend(backend_name)), model(model_config(fields), *backend) {
    model.initialise(2);
    for (auto* p : model.parameters())
      before.push_back(p->to_host());
    trainer.emplace(model, o, solo);
  }
  double change(std::size_t i) {  // largest
    const Matrix<float> now = model.parameters()[i]->to_host();
    double d = 0;
    for (Index n = 0; n < now.size(); ++n)
      d = std::max(d, double(std::abs(now.data()[n] - before[i].data()[n])));
    return d;
  }
  double change_of(std::size_t i, int expert, int experts) {  // the same, of one expert of a layer
    const Matrix<float> now = model.parameters()[i]->to_host();
    const Index each = now.size() / experts;
    double d = 0;
    for (Index n = expert * each; n < (expert + 1) * each; ++n)
      d = std::max(d, double(std::abs(now.data()[n] - before[i].data()[n])));
    return d;
  }
  std::string group(std::size_t i) {
    return model.inventory()[i].group;
  }
  std::unique_ptr<Backend<float>> backend;
  Decoder<float> model;
  Solo solo;
  std::vector<Matrix<float>> before;
  std::optional<Trainer> trainer;
};

}  // namespace

TEST_CASE("what is frozen stays bit by bit and gets no gradient") {
  for (const std::string backend : {"reference", "cpu"}) {
    for (const std::string part : {"router", "experts", "shared", "attention", "dense", "norms",
                                   "embedding", "router;shared"}) {
      INFO(backend << " " << part);
      Run run(backend, options(part));
      for (int i = 0; i < 3; ++i)
        run.trainer->step(next, true);
      const auto all = run.model.parameters();
      for (std::size_t i = 0; i < all.size(); ++i) {
        INFO(all[i]->name());
        const bool mine = (";" + part + ";").find(";" + run.group(i) + ";") != std::string::npos;
        CHECK(all[i]->grad().empty() == !mine);
        if (mine)
          CHECK(run.change(i) > 0);
        else
          CHECK(all[i]->to_host() == run.before[i]);
      }
      const auto beta = run.model.moe_layers()[0]->router().correction_bias();
      CHECK((std::ranges::count(beta, 0.0) == 4) == (part.find("router") == part.npos));
    }
  }
}

TEST_CASE("single experts train alone") {
  for (const std::string backend : {"reference", "cpu"}) {
    Run run(backend, options("experts=1,3"));
    for (int i = 0; i < 5; ++i)
      run.trainer->step(next, false);
    const auto all = run.model.parameters();
    double moved = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      INFO(all[i]->name());
      const Matrix<float> now = all[i]->to_host();
      if (run.group(i) != "experts") {
        CHECK(now == run.before[i]);
        continue;
      }
      const Index each = now.size() / 4;
      for (Index n = 0; n < now.size(); ++n) {
        if (n / each == 1 || n / each == 3)
          moved += std::abs(now.data()[n] - run.before[i].data()[n]);
        else
          REQUIRE(now.data()[n] == run.before[i].data()[n]);
      }
    }
    CHECK(moved > 0);
    CHECK(run.trainer->steps_with_gradient()[0][0] == 0);
    CHECK(run.trainer->steps_with_gradient()[0][1] + run.trainer->steps_with_gradient()[0][3] > 0);
  }
}

TEST_CASE("a group's learning rate is the common one times its factor") {
  Run plain("reference", options("all"));
  Run slow("reference", options("all", "router=0.1,attention=0,experts=2"));
  plain.trainer->step(next, false);
  slow.trainer->step(next, false);
  const auto all = plain.model.parameters();
  for (std::size_t i = 0; i < all.size(); ++i) {
    INFO(all[i]->name());
    const std::string group = plain.group(i);
    const double factor = group == "router"      ? 0.1
                          : group == "attention" ? 0
                          : group == "experts"   ? 2
                                                 : 1;
    CHECK(plain.change(i) > 0);
    CHECK(slow.change(i) == Approx(factor * plain.change(i)).epsilon(1e-3).margin(1e-7));
  }
}

TEST_CASE("experts have learning rates of their own, given or by what they computed") {
  Run plain("reference", options("all"));
  Run own("reference", options("all", "experts=2,experts.0=0,experts.3=0.5"));
  Run by_load("reference", options("all", "experts=load,experts.3=0.5"));
  plain.trainer->step(next, false);
  own.trainer->step(next, false);
  const StepResult r = by_load.trainer->step(next, false);
  // the first layer of experts alone: it has the same gradient in all three
  const std::vector<std::int64_t>& kept = r.layer[0].kept;
  double sum = 0;
  for (const std::int64_t n : kept)
    sum += double(n);
  const auto all = plain.model.parameters();
  const auto layer = plain.model.moe_layers()[0];
  int seen = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    INFO(all[i]->name());
    if (all[i] != &layer->expert_parameters().up && all[i] != &layer->expert_parameters().down) {
      if (plain.group(i) != "experts") {
        CHECK(own.change(i) == plain.change(i));
        CHECK(by_load.change(i) == plain.change(i));
      }
      continue;
    }
    for (int e = 0; e < 4; ++e) {
      INFO("expert " << e);
      const double by_share = std::sqrt(4 * double(kept[std::size_t(e)]) / sum);
      const double before = plain.change_of(i, e, 4);
      CHECK(before > 0);
      CHECK(own.change_of(i, e, 4) == Approx((e == 0   ? 0
                                              : e == 3 ? 0.5
                                                       : 2) *
                                             before)
                                          .epsilon(1e-3)
                                          .margin(1e-7));
      CHECK(by_load.change_of(i, e, 4) ==
            Approx((e == 3 ? 0.5 : by_share) * before).epsilon(1e-3).margin(1e-7));
      ++seen;
    }
  }
  CHECK(seen == 8);
  CHECK(*std::ranges::max_element(kept) > *std::ranges::min_element(kept));
  // factors of 1 for each expert are those of the group
  Run ones("reference", options("all", "experts.0=1,experts.1=1,experts.2=1,experts.3=1"));
  ones.trainer->step(next, false);
  for (std::size_t i = 0; i < all.size(); ++i)
    CHECK(ones.model.parameters()[i]->to_host() == all[i]->to_host());
  CHECK_THROWS_WITH(Run("reference", options("all", "experts.4=1")),
                    "lr-factor has no option 'experts.4'");
  CHECK_THROWS_AS(Run("reference", options("all", "experts=lod")), Error);
}

TEST_CASE("groups stand with commas as with semicolons") {
  Run semicolons("reference", options("router;experts=1,3;shared"));
  Run commas("reference", options("router,experts=1,3,shared"));
  semicolons.trainer->step(next, false);
  commas.trainer->step(next, false);
  for (std::size_t i = 0; i < commas.before.size(); ++i) {
    CHECK(commas.model.parameters()[i]->to_host() == semicolons.model.parameters()[i]->to_host());
  }
  CHECK(trains_group("router,experts=1,3", "experts"));
  CHECK_FALSE(trains_group("router,shared", "experts"));
  CHECK(trains_group("all", "experts"));
}

TEST_CASE("what trains is refused where it is not there") {
  CHECK_THROWS_WITH(Run("reference", options("rooter")), "no group of parameters named 'rooter'");
  CHECK_THROWS_WITH(Run("reference", options("experts=1,4")),
                    "there is no expert '4' among 0 to 3");
  CHECK_THROWS_WITH(Run("reference", options("experts=")), "'experts=' names no expert");
  CHECK_THROWS_WITH(Run("reference", options("all;router")),
                    "--train 'all;router' says all and then less");
  CHECK_THROWS_WITH(Run("reference", options("router=1")),
                    "only experts have numbers, and 'router=1' gives some to the router");
  CHECK_THROWS_WITH(Run("reference", options("all", "ruter=1")), "lr-factor has no option 'ruter'");
}

TEST_CASE(
    "what trains and how fast goes with the checkpoint, and the run goes on to the same bytes") {
  const auto folder =
      std::filesystem::temp_directory_path() /
      ("moe-parts-" +
       std::to_string(
           Rng(std::uint64_t(
                   std::filesystem::file_time_type::clock::now().time_since_epoch().count()))
               .next()));
  const TrainOptions o = options("router;experts=1,3", "router=0.5,experts=load");
  Run whole("reference", o);
  Run half("reference", o);
  for (int i = 0; i < 4; ++i)
    whole.trainer->step(next, false);
  for (int i = 0; i < 2; ++i)
    half.trainer->step(next, false);
  RunState state;
  state.step = 2;
  state.train = half.trainer->options();
  state.model = to_spec(half.model.config());
  state.steps_with_gradient = half.trainer->steps_with_gradient();
  save_checkpoint(folder, half.model, &*half.trainer, state, {.json = "{}", .config_json = "{}"});
  LoadedModel loaded = load_model(folder, *half.backend);
  CHECK(loaded.state->train.trained == o.trained);
  CHECK(loaded.state->train.lr_factor == o.lr_factor);
  Solo solo;
  Trainer trainer(*loaded.model, loaded.state->train, solo);
  load_training(loaded, trainer);
  for (int i = 0; i < 2; ++i)
    trainer.step(next, false);
  const auto a = whole.model.parameters();
  const auto b = loaded.model->parameters();
  for (std::size_t i = 0; i < a.size(); ++i)
    CHECK(a[i]->to_host() == b[i]->to_host());
  std::filesystem::remove_all(folder);
}
