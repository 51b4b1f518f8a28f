// Who sums which numbers of each trained parameter over lanes and ranks, and what ranks send each
// other for it. Numbers are cut into pieces of 2^15, which the ranks that hold a parameter share
// out; the owner of a piece gets it from every one of them, adds in the tree of lanes
// (lib/model/lanes.h), and gives the sum back. The gradient norm is the sum over pieces, in their
// order, of squares: so neither depends on who owns what.
#pragma once
#include <vector>

#include "lib/core/parcel.h"
#include "lib/model/lanes.h"

namespace moe {

template <class S>
class Parameter;

struct NumberRange {  // numbers of a parameter, counted along its rows
  Index first = 0, count = 0;
};
struct Trained {
  Parameter<float>* parameter;
  std::vector<NumberRange> rows;  // of numbers that train, in order
};

class Ownership {
 public:
  // `of_rank`: the lanes whose gradients each rank has
  Ownership(Comm&, Backend<float>&, Index lanes, std::vector<Lanes> of_rank, std::vector<Trained>);

  // Of parameter p the numbers that a rank owns.
  const std::vector<NumberRange>& owned(int rank, std::size_t p) const {
    return owned_[std::size_t(rank)][p];
  }
  const std::vector<NumberRange>& owned(std::size_t p) const {  // this rank's
    return owned(comm_.rank(), p);
  }
  // (ranks)(parameters)
  const std::vector<std::vector<std::vector<NumberRange>>>& owned_by_all() const {
    return owned_;
  }
  // From now on parameters have no summed gradient: this rank keeps what it owns of it (ZeRO-2).
  void keep_shards() {
    sharded_ = !comm_.alone();
  }
  // From the sums of this rank's lanes to the sum over all lanes: into the gradients of what this
  // rank owns.
  void reduce(std::vector<LaneSums::Node> nodes);
  // Of that a part of one of the runs that this rank owns.
  View<float> gradient(std::size_t p, NumberRange part);
  // Gives every rank what others own of the gradients, where there are no shards, or of the values.
  enum class What { gradients, values };
  void share(What);
  // Squares of the summed gradient, piece by piece, for each parameter; the same on every rank.
  std::vector<std::vector<double>> squares();

 private:
  struct Piece {
    std::size_t parameter;
    Index first, count;
    int owner;
  };
  // parameters first .. last of the list, exchanged at once
  struct Bundle {
    std::size_t first, last;
  };
  struct Parts {
    std::vector<Parcel<float>> copies;  // where they do not lie in one place
    std::vector<std::span<float>> of_rank;
  };
  Parts parts_by_rank(const Bundle&, std::vector<LaneSums::Node>&);
  void cut(std::size_t p);
  void bundle();
  void reduce(const Bundle&, std::vector<LaneSums::Node>&);
  void share(const Bundle&, What);
  void share_in_place(std::size_t p, What);
  View<float> all_of(std::size_t p, What);
  std::vector<Lanes> nodes_of(int rank) const {
    return nodes_inside(lanes_, of_rank_[std::size_t(rank)]);
  }
  Index owned_in(const Bundle&, int rank) const;
  // Of a bundle that is one parameter in the host's memory, of which every rank owns one stretch:
  // numbers go from where they lie, and come to where they belong.
  bool in_place(const Bundle&) const;

  Comm& comm_;
  Backend<float>& backend_;
  bool on_host_;
  Index lanes_;
  std::vector<Lanes> of_rank_;
  std::vector<Trained> trained_;
  std::vector<Piece> pieces_;  // by parameter, then along its numbers
  std::vector<std::vector<std::vector<NumberRange>>> owned_;  // (ranks)(parameters)
  std::vector<Bundle> bundles_;
  bool sharded_ = false;
  std::vector<Array<float>> shard_;  // (parameters) what this rank owns of the summed gradient
};

}  // namespace moe
