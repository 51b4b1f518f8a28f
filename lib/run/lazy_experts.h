// Experts read from their files when rows need them, so that a model larger than memory runs. For
// looking on: what is loaded this way does not train.
#pragma once
#include <functional>
#include <optional>

#include "lib/checkpoint/stored.h"
#include "lib/run/run_folder.h"

namespace moe {

template <class S>
class Decoder;
template <class S>
class Parameter;
struct Names;

// For a decoder made with Storage::elsewhere: says where its experts' numbers lie and gives it a
// cache of the bytes that `holding` names. Shapes are checked now, numbers that are not finite are
// refused when they are read. `asked` hears of every tensor.
void experts_from(const Weights&, Decoder<float>&, const Names&, const Holding&,
                  const std::function<void(const StoredRows&)>& asked);

// For the same, and for matrices that parted with their numbers: they stay in their mapped files as
// these have them, frozen, and their rows are made each time products read them. Numbers that are
// not finite are refused now; with Keep::in_files when rows are first read, and rows are then
// multiplied as they lie where that is possible.
void made_when_read(const Weights&, Decoder<float>&, const Names&, const Holding&,
                    const std::function<void(const StoredRows&)>& asked);

// Of a model that looks on, before its numbers are loaded: with Keep::in_files matrices that
// products can multiply as they lie part with their numbers, with Keep::as_stored those in few
// bits; else none do.
void leave_in_files(const Weights&, Decoder<float>&, const Names&, Keep);

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
