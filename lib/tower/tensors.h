// The tensors of an encoder of pictures or sounds, by name: read from a checkpoint when they are
// asked for or, where only sizes are wanted, counted. So what `moe plan` says of an encoder is what
// reading it would take.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "lib/backend/backend.h"
#include "lib/checkpoint/weights.h"

namespace moe {

// A tensor that was asked for.
struct TowerTensor {
  std::string part;  // "vision encoder", "projector", ...
  std::string name;
  Dims dims;
};
struct TowerPart {
  std::string name;
  Index numbers = 0;  // parameters
};

template <class S>
class TowerTensors {
 public:
  TowerTensors();  // counts, and gives empty matrices
  TowerTensors(Backend<S>&, const std::filesystem::path& folder);
  // Of another folder, counted together with these.
  TowerTensors of(const std::filesystem::path& folder) const;

  bool counts_only() const {
    return weights_ == nullptr;
  }
  Backend<S>* backend() const {  // null where it only counts
    return backend_;
  }
  // What is read from here on belongs to this part; it is among the parts even if that is nothing.
  void part(const std::string& name);
  std::vector<TowerPart> parts() const;
  const std::vector<TowerTensor>& asked() const {
    return asked_->tensors;
  }
  // The first of these beginnings with which `name` is there; the first of all where none is, or
  // where tensors are only counted.
  std::string beginning(const std::vector<std::string>& beginnings, const std::string& name) const;

  // Rows of the first size, everything else beside each other; a vector is one row. Throws
  // Error(input) naming tensor and shapes where it is missing or of another shape.
  Matrix<S> matrix(const std::string& name, const Dims&);
  Array<S> array(const std::string& name, const Dims&);

 private:
  Backend<S>* backend_ = nullptr;
  std::shared_ptr<const Weights> weights_;
  struct Asked {
    std::vector<std::string> parts;
    std::vector<TowerTensor> tensors;
  };
  std::string part_ = "encoder";
  std::shared_ptr<Asked> asked_;
};

extern template class TowerTensors<float>;
extern template class TowerTensors<double>;

}  // namespace moe
