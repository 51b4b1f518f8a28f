// Experts read from their files when rows need them, so that a model larger than memory runs. For
// looking on: what is loaded this way does not train.
#pragma once
#include <functional>
#include <optional>

#include "lib/checkpoint/stored.h"

namespace moe {

template <class S>
class Decoder;
template <class S>
class Parameter;
struct Names;

// For a decoder made with Storage::elsewhere: says where its experts' numbers lie and gives it a
// cache of `bytes`. Shapes are checked now, numbers that are not finite are refused when they are
// read. `asked` hears of every tensor.
void experts_from(const Weights&, Decoder<float>&, const Names&, Index bytes,
                  const std::function<void(const StoredRows&)>& asked);

// For the same: experts stay in few bits, in their mapped files, and their rows are made each time
// products read them. Their matrices are frozen. With as_stored, numbers that are not finite are
// refused now; with in_place when rows are first read. With in_place_int8 products round
// activations where that is possible.
void experts_made_when_read(const Weights&, Decoder<float>&, const Names&, Index expert_limit,
                            const std::function<void(const StoredRows&)>& asked);

// Of a model that looks on, before its numbers are loaded: matrices that products read as they lie
// in their files part with their numbers, to be made when they are read.
void leave_in_files(const Weights&, Decoder<float>&, const Names&);

// What the file holds of the matrix (rows, cols) whose rows begin at `first` of a parameter that is
// made when read, under the name `as`, and in which format; nothing where it is no tensor of its
// own.
struct MatrixInFile {
  std::vector<NamedTensor> tensors;
  std::optional<FewBitsFormat> format;  // none: plain numbers
};
std::optional<MatrixInFile> matrix_in_file(const Parameter<float>&, Index first, const Dims&,
                                           const std::string& as);

Index machine_bytes();  // how much memory this machine has

}  // namespace moe
