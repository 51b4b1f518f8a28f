// Sums of gradients over lanes and ranks: the bits of one rank that adds all lanes, for parameters
// that have an exchange of their own, whose numbers go from where they lie, and for small ones,
// which go together.
#include <catch2/catch.hpp>

#include "lib/backend/backend.h"
#include "lib/comm/threads.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/layer/parameter.h"
#include "lib/model/ownership.h"

using namespace moe;

namespace {

// Two that are large, the second with rows that do not train; small ones before, between, behind.
const std::vector<std::vector<NumberRange>> runs = {{{0, 100}},
                                                    {{0, (1 << 18) + 5}},
                                                    {{0, 40000}},
                                                    {{0, 3}},
                                                    {{0, 1 << 18}, {(1 << 18) + 7, 70000}},
                                                    {{0, 1}}};

class Parameters {
 public:
  explicit Parameters(Backend<float>& backend) : backend_(backend) {
    for (const auto& of_one : runs) {
      const Index numbers = of_one.back().first + of_one.back().count;
      all_.push_back(std::make_unique<Parameter<float>>(
          backend, concat("p", all_.size()), std::vector<Index>{numbers}, ParameterKind::vector));
    }
  }
  std::vector<Trained> trained() {
    std::vector<Trained> out;
    for (std::size_t p = 0; p < runs.size(); ++p)
      out.push_back({all_[p].get(), runs[p]});
    return out;
  }
  // Of some lanes the gradients, summed as far as they are neighbours.
  std::vector<LaneSums::Node> gradients(Lanes lanes, Index of) {
    LaneSums sums(backend_, of);
    for (Index lane = lanes.first; lane < lanes.end(); ++lane) {
      std::vector<Array<float>> gradient;
      for (std::size_t p = 0; p < all_.size(); ++p)
        gradient.emplace_back(backend_, drawn(Index(p) * 100 + lane, all_[p]->size()).view());
      sums.add(lane, std::move(gradient));
    }
    return sums.take();
  }
  Matrix<float> drawn(Index stream, Index numbers) const {
    Rng rng = Rng(5).stream(std::uint64_t(stream));
    Matrix<float> m(1, numbers);
    for (float& v : m.flat())
      v = float(rng.normal());
    return m;
  }
  Parameter<float>& operator[](std::size_t p) {
    return *all_[p];
  }

 private:
  Backend<float>& backend_;
  std::vector<std::unique_ptr<Parameter<float>>> all_;
};

std::vector<Lanes> shared_out(int ranks, Index lanes) {
  std::vector<Lanes> out;
  for (int r = 0; r < ranks; ++r)
    out.push_back(lanes_of_rank(r, ranks, lanes));
  return out;
}

// The sums over all lanes, by parameter.
std::vector<Matrix<float>> expected(Index lanes) {
  const auto backend = make_backend("reference");
  Parameters parameters(*backend);
  std::vector<LaneSums::Node> nodes = parameters.gradients({0, lanes}, lanes);
  std::vector<Matrix<float>> out;
  for (const Array<float>& gradient : nodes.at(0).gradient)
    out.push_back(gradient.to_host());
  return out;
}

bool same_bits(View<const float> a, View<const float> b) {
  return a.size() == b.size() &&
         std::memcmp(a.data, b.data, std::size_t(a.size()) * sizeof(float)) == 0;
}

void compare_run(const Comm& comm, std::size_t p, NumberRange run, View<const float> got,
                 const Matrix<float>& wanted) {
  const View<const float> part{wanted.data() + run.first, 1, run.count};
  if (!same_bits(got, part))
    throw Error(Exit::failed, concat("rank ", comm.rank(), " has other sums of parameter ", p));
}

void sums_on_all(Comm& comm, Index lanes, const std::vector<Matrix<float>>& wanted) {
  const auto backend = make_backend("cpu");
  Parameters parameters(*backend);
  const std::vector<Lanes> of_rank = shared_out(comm.size(), lanes);
  Ownership ownership(comm, *backend, lanes, of_rank, parameters.trained());
  ownership.reduce(parameters.gradients(of_rank[std::size_t(comm.rank())], lanes));
  ownership.share(Ownership::What::gradients);
  for (std::size_t p = 0; p < runs.size(); ++p) {
    for (const NumberRange& run : runs[p]) {
      const View<const float> got{parameters[p].grad().data + run.first, 1, run.count};
      compare_run(comm, p, run, got, wanted[p]);
    }
  }
}

void sums_in_shards(Comm& comm, Index lanes, const std::vector<Matrix<float>>& wanted) {
  const auto backend = make_backend("cpu");
  Parameters parameters(*backend);
  const std::vector<Lanes> of_rank = shared_out(comm.size(), lanes);
  Ownership ownership(comm, *backend, lanes, of_rank, parameters.trained());
  ownership.keep_shards();
  ownership.reduce(parameters.gradients(of_rank[std::size_t(comm.rank())], lanes));
  for (std::size_t p = 0; p < runs.size(); ++p) {
    for (const NumberRange& run : ownership.owned(p))
      compare_run(comm, p, run, ownership.gradient(p, run), wanted[p]);
  }
}

// What each rank stepped, as another number a rank, comes to all.
void values_on_all(Comm& comm) {
  const auto backend = make_backend("cpu");
  Parameters parameters(*backend);
  Ownership ownership(comm, *backend, comm.size(), shared_out(comm.size(), comm.size()),
                      parameters.trained());
  for (std::size_t p = 0; p < runs.size(); ++p) {
    for (const NumberRange& run : ownership.owned(p)) {
      const View<float> own{parameters[p].mutate().data + run.first, 1, run.count};
      std::ranges::fill(own.flat(), float(1 + comm.rank()));
    }
  }
  ownership.share(Ownership::What::values);
  for (std::size_t p = 0; p < runs.size(); ++p) {
    for (int r = 0; r < comm.size(); ++r) {
      for (const NumberRange& run : ownership.owned(r, p)) {
        const View<const float> got{parameters[p].value().data + run.first, 1, run.count};
        const Matrix<float> wanted(1, run.count, float(1 + r));
        if (!same_bits(got, wanted.view()))
          throw Error(Exit::failed, concat("rank ", comm.rank(), " has other values of ", p));
      }
    }
  }
}

}  // namespace

TEST_CASE("gradients are summed over lanes by ranks to the bits of one that has all lanes") {
  for (const Index lanes : {1, 2, 3, 5}) {
    const std::vector<Matrix<float>> wanted = expected(lanes);
    for (int ranks = 1; ranks <= std::min<Index>(lanes, 4); ++ranks) {
      CAPTURE(lanes, ranks);
      CHECK_NOTHROW(as_threads(ranks, [&](Comm& comm) { sums_on_all(comm, lanes, wanted); }));
      CHECK_NOTHROW(as_threads(ranks, [&](Comm& comm) { sums_in_shards(comm, lanes, wanted); }));
    }
  }
}

TEST_CASE("values that ranks own come to all of them") {
  for (const int ranks : {1, 2, 3})
    CHECK_NOTHROW(as_threads(ranks, values_on_all));
}
