// Checkpoints as others know them: which published class can hold a model, its config.json, its
// tensor names, and back. No files are touched here; lib/checkpoint writes what store() names and
// maps what load() asks for.
#pragma once
#include <string>
#include <vector>

#include "lib/checkpoint/safetensors.h"
#include "lib/files/json.h"
#include "lib/layer/parameter.h"
#include "lib/model/config.h"

namespace moe {

template <class S>
class Decoder;
struct Names;

// What our decoder of a family was compared with.
enum class Verified {
  not_yet,   // nothing: it is read as its description says
  remade,    // logits of a decoder written in Python from the description
  by_class,  // logits of the class in transformers
  own,       // "moe": this program's own form
};
struct Family {
  std::string_view name, architecture, about;  // name: model_type of config.json
  Verified verified;
};
const std::vector<Family>& families();  // families.def
bool is_family(const std::string& model_type);
std::string verification(const std::string& family);  // the same in words

struct Fit {
  // the published class that computes what the model computes, and was compared with ours; or "moe"
  std::string family;
  std::string reason;  // one sentence where it is "moe"
};
// Capacity, balance and the draws of training are no part of what a class computes; where tokens
// are dropped its logits differ.
Fit fit_of(const ModelConfig&);

struct TokenizerFacts {
  int bos = -1, eos = -1, pad = -1;  // -1 = none
};

// What transformers reads, and beside it "moe_training": {"spec": to_spec(config)}, from which we
// read ourselves back exactly.
Json config_json(const ModelConfig&, const std::string& family, const TokenizerFacts& = {});

struct Published {
  ModelConfig config;
  std::string family;
  TokenizerFacts tokenizer;
};
// Ours, or a published one of the families above. Throws Error(input) in a sentence naming file and
// key: an unknown model_type, a missing size, a switch this program does not compute (biases of q,
// k and v, scaled or partial rotary embedding, ...).
Published config_from_json(const Json&, const std::string& file = "config.json");

// Every tensor under its published name, an expert at a time, in float32; made from the model when
// the writer asks, so it must live until then.
std::vector<NamedTensor> store(Decoder<float>&, const std::string& family);
std::vector<NamedTensor> store(Decoder<float>&, const Names&);

// Asked for every tensor with the shape it must have; Tensors::get(name, dims) is one.
// Parameters whose numbers lie elsewhere are left alone.
using Lookup = std::function<Tensor(const std::string& name, const Dims&)>;
void load(Decoder<float>&, const Names&, const Lookup&);
void load(Decoder<float>&, const std::string& family, const Lookup&);

// Where those lie: number (r,c) of rows first .. first+rows at offset + r*row + c*column of the
// tensor. Rows of a parameter that lie nowhere are 0.
struct TensorRows {
  std::string tensor;
  Dims dims;
  Parameter<float>* parameter = nullptr;
  Index first = 0, rows = 1, offset = 0, row = 0, column = 1;
  Index cols = 0;  // columns of the parameter that there are, the others are 0; 0 = all
};
std::vector<TensorRows> rows_elsewhere(Decoder<float>&, const Names&);
std::vector<TensorRows> all_rows(Decoder<float>&, const Names&);  // of all parameters
// A tensor (rows, cols) that is one matrix of one expert of one layer.
struct ExpertTensor {
  std::string tensor;
  int layer = 0, expert = 0;
  Index rows = 0, cols = 0;
  Parameter<float>* parameter = nullptr;  // whose rows first .. first+rows it is
  Index first = 0;
};
// Throws Error(usage) for a family that keeps several matrices in a tensor.
std::vector<ExpertTensor> expert_tensors(Decoder<float>&, const std::string& family);

// Under which names a family's tensors stand in safetensors files.
const Names& names_of(const std::string& family);

}  // namespace moe
