// What ranks cost: every figure beside its yardstick, in turn, in one program under mpirun. Rank 0
// prints one line of JSON with the best time of each, in seconds; a round is as slow as its slowest
// rank. scripts/ranks.sh --only speed runs it, and says what the figures should be.
//   moe_ranks_speed layer TOKENS HIDDEN WIDTH EXPERTS K ROUNDS [WAY]   a step of a MoE layer with
//   its
//     experts shared out, beside as many processes that hold all experts and know of nobody; WAY: 0
//     these alone, 1 rows that cross as they come, 2 all at once, 3 weights
//   moe_ranks_speed rows BYTES ROUNDS     an exchange: of BYTES a rank, as much for each, beside
//     MPI_Alltoallv
//   moe_ranks_speed sum NUMBERS ROUNDS    gradients summed over lanes, beside MPI_Allreduce
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>

#include "lib/comm/module.h"
#include "lib/core/error.h"
#include "lib/core/pages.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/layer/moe_layer.h"
#include "lib/model/ownership.h"
#include "tests/comm/through.h"

extern "C" moe::Transport* moe_open_transport();

namespace moe {
namespace {

using Times = std::map<std::string, std::vector<double>>;  // of each round

struct Timed {
  std::string name;
  std::function<void()> run;
  std::function<void()> before = [] {
  };  // is not timed
};

// Runs each in turn, so many rounds and one before them; begun together by all ranks.
Times in_turn(Comm& comm, int rounds, const std::vector<Timed>& all) {
  Times out;
  for (int round = -1; round < rounds; ++round) {
    for (const auto& [name, run, before] : all) {
      before();
      comm.any({"begin"}, false);
      const auto start = std::chrono::steady_clock::now();
      run();
      const double mine =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      double slowest = 0;
      for (const auto& of_rank : comm.gather<double>({"times"}, std::span(&mine, 1)))
        slowest = std::max(slowest, of_rank[0]);
      if (round >= 0)
        out[name].push_back(slowest);
    }
  }
  return out;
}

void print(const Comm& comm, const Times& times) {
  if (!comm.first())
    return;
  std::string line;
  for (auto [name, of_rounds] : times) {
    std::ranges::sort(of_rounds);
    line += concat(line.empty() ? "{" : ", ", "\"", name, "\": [", of_rounds.front(), ", ",
                   of_rounds[of_rounds.size() / 2], "]");
  }
  std::printf("%s}\n", line.c_str());
}

// A layer with its batch, forwards and backwards.
class Layer {
 public:
  // `group`: the ranks that share its experts out; null = all are here
  Layer(Backend<float>& b, const LayerConfig& c, Index tokens, int rank, Comm* group, Move move)
      : layer_(c, b), group_(group) {
    for (Index t = 0; t < tokens; ++t)
      batch_.token.push_back(int(t % 251));
    batch_.start = {0, tokens};
    std::vector<Parameter<float>*> parameters;
    layer_.collect(parameters);
    Rng weights(7);
    for (Parameter<float>* p : parameters) {
      const double scale = 1 / std::sqrt(double(p->value().cols));
      p->set(normal(weights, p->value().rows, p->value().cols, scale).view());
    }
    if (group_)
      layer_.share_out(*group_, 0, {.move = move});
    for (Parameter<float>* p : parameters) {
      if (!p->shared_out())
        p->want_grad(b);
    }
    Rng rows = Rng(9).stream(std::uint64_t(rank));
    x_ = Array<float>(b, normal(rows, tokens, c.hidden, 1).view());
    dy_ = Array<float>(b, normal(rows, tokens, c.hidden, 1).view());
    y_ = Array<float>(b, tokens, c.hidden);
    dx_ = Array<float>(b, tokens, c.hidden);
  }
  void step() {
    Rng rng(8);
    MoeTape<float> tape(batch_);
    const Pass pass{.batch = batch_, .training = true, .rng = &rng};
    layer_.forward(pass, std::as_const(x_).view(), y_.view(), tape);
    layer_.backward(pass, tape, std::as_const(x_).view(), std::as_const(dy_).view(), dx_.view());
    if (layer_.crossing() && layer_.crossing()->moves_weights()) {
      layer_.crossing()->send_gradients(std::vector<bool>(std::size_t(group_->size()), true));
    }
  }

  bool same_bytes(const Layer& other) const {
    return y_.to_host() == other.y_.to_host() && dx_.to_host() == other.dx_.to_host();
  }

 private:
  static Matrix<float> normal(Rng& rng, Index rows, Index cols, double scale) {
    Matrix<float> m(rows, cols);
    for (float& v : m.flat())
      v = float(scale * rng.normal());
    return m;
  }

  MoeLayer<float> layer_;
  Comm* group_;
  Batch batch_;
  Array<float> x_, dy_, y_, dx_;
};

Times layer(const std::shared_ptr<Transport>& mpi, Comm& comm, const std::vector<Index>& o) {
  LayerConfig c{.hidden = o[1], .width = o[2], .experts = int(o[3])};
  c.router = concat("softmax:k=", o[4]);
  const auto backend = make_backend("cpu");
  Comm blocking(std::make_shared<test::AtOnce>(mpi));
  struct Way {
    const char* name;
    Comm* group;
    Move move;
  };
  std::vector<Way> ways = {{"alone", nullptr, Move::tokens},
                           {"shared out", &comm, Move::tokens},
                           {"moved at once", &blocking, Move::tokens},
                           {"weights move", &comm, Move::weights}};
  if (o.size() == 7)
    ways = {ways.at(std::size_t(o[6]))};
  std::vector<std::unique_ptr<Layer>> layers;
  std::vector<Timed> steps;
  for (const Way& way : ways) {
    Layer& layer = *layers.emplace_back(
        std::make_unique<Layer>(*backend, c, o[0], comm.rank(), way.group, way.move));
    steps.push_back({way.name, [&layer] {
                       layer.step();
                     }});
  }
  const Times times = in_turn(comm, int(o[5]), steps);
  for (const auto& other : layers) {
    if (!layers[0]->same_bytes(*other))
      throw Error(Exit::failed, concat("rank ", comm.rank(), " has other bytes than alone"));
  }
  return times;
}

Times rows(Comm& comm, const std::vector<Index>& o) {
  const auto ranks = std::size_t(comm.size());
  const std::vector<std::byte> out(static_cast<std::size_t>(o[0]), std::byte{1});
  std::vector<std::byte> in(out.size());
  std::vector<ConstBytes> send;
  std::vector<Bytes> receive;
  const std::size_t each = out.size() / ranks;
  for (std::size_t r = 0; r < ranks; ++r) {
    send.push_back(ConstBytes(out).subspan(r * each, each));
    receive.push_back(Bytes(in).subspan(r * each, each));
  }
  const std::vector<int> counts(ranks, int(each));
  std::vector<int> places;
  for (std::size_t r = 0; r < ranks; ++r)
    places.push_back(int(r * each));
  const auto exchange = [&] {
    comm.exchange({"rows"}, send, receive);
  };
  const auto library = [&] {
    MPI_Alltoallv(out.data(), counts.data(), places.data(), MPI_BYTE, in.data(), counts.data(),
                  places.data(), MPI_BYTE, MPI_COMM_WORLD);
  };
  return in_turn(comm, int(o[1]), {{"exchange", exchange}, {"MPI_Alltoallv", library}});
}

Times sum(Comm& comm, const std::vector<Index>& o) {
  const auto backend = make_backend("cpu");
  Parameter<float> parameter(*backend, "p", {o[0]}, ParameterKind::vector);
  std::vector<Lanes> lanes;
  for (int r = 0; r < comm.size(); ++r)
    lanes.push_back(lanes_of_rank(r, comm.size(), comm.size()));
  Ownership ownership(comm, *backend, comm.size(), lanes, {{&parameter, {{0, o[0]}}}});
  std::vector<float> whole(static_cast<std::size_t>(o[0]), 1);
  std::vector<float> all(whole.size());
  std::vector<LaneSums::Node> nodes;
  const auto fill = [&] {
    nodes.clear();
    nodes.push_back({lanes[std::size_t(comm.rank())], {}});
    nodes.back().gradient.push_back(Array<float>::zeros(*backend, 1, o[0]));
  };
  const auto reduce = [&] {
    ownership.reduce(std::move(nodes));
    ownership.share(Ownership::What::gradients);
  };
  const auto library = [&] {
    MPI_Allreduce(whole.data(), all.data(), int(whole.size()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  };
  return in_turn(comm, int(o[1]), {{"tree of lanes", reduce, fill}, {"MPI_Allreduce", library}});
}

int run(int argc, char** argv) {
  const std::shared_ptr<Transport> mpi(moe_open_transport());
  Comm comm(mpi);
  set_threads(1);
  std::vector<Index> o;
  for (int i = 2; i < argc; ++i)
    o.push_back(std::atoll(argv[i]));
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "layer" && (o.size() == 6 || o.size() == 7))
    print(comm, layer(mpi, comm, o));
  else if (what == "rows" && o.size() == 2)
    print(comm, rows(comm, o));
  else if (what == "sum" && o.size() == 2)
    print(comm, sum(comm, o));
  else
    std::fprintf(stderr, "layer, rows or sum: see tests/ranks/speed.cpp\n");
  mpi->finish();
  return 0;
}

}  // namespace
}  // namespace moe

int main(int argc, char** argv) {
  moe::keep_pages_of_passes();  // as moe does
  try {
    return moe::run(argc, argv);
  } catch (const moe::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    MPI_Abort(MPI_COMM_WORLD, int(e.code()));
  }
}
