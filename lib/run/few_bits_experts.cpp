#include "lib/run/few_bits_experts.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/family/families.h"
#include "lib/model/parts.h"
#include "lib/run/lazy_experts.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

bool of_experts(const TensorInfo& t) {
  return t.name.find(".experts.") != t.name.npos;
}
bool in_few_bits(const TensorInfo& t) {
  return t.dtype == DType::i8 || t.dtype == DType::f8_e4m3 || t.name.ends_with("_packed");
}

// Of experts some of which are in few bits.
double bytes_in_files(const fs::path& checkpoint) {
  const fs::path folder = read_checkpoint_config(checkpoint).path;
  if (!fs::is_directory(folder))
    return 0;
  const Tensors tensors(folder);
  double bytes = 0;
  bool few = false;
  for (const TensorInfo& t : tensors.list()) {
    if (!of_experts(t))
      continue;
    bytes += double(t.bytes);
    few |= in_few_bits(t);
  }
  return few ? bytes : 0;
}

// Of a row that is one block its scales do not tell whether blocks were meant: it is said as its
// longer neighbours are.
void settle_blocks(const std::vector<ExpertTensor>& experts,
                   std::map<std::string, FewBitsFormat>& formats) {
  std::set<std::pair<FewBits, Index>> blocks;
  for (const auto& [tensor, f] : formats)
    blocks.insert({f.kind, f.block});
  for (const ExpertTensor& t : experts) {
    const auto at = formats.find(t.tensor);
    if (at != formats.end() && at->second.block == 0 && blocks.contains({at->second.kind, t.cols}))
      at->second.block = t.cols;
  }
}

}  // namespace

double few_bits_bytes(const fs::path& checkpoint, const std::string& device) {
  return Spec(device).name() == "cuda" ? 0 : bytes_in_files(checkpoint);
}

void refuse_few_bits(const fs::path& checkpoint, const TrainOptions& o, const RankOptions& ranks) {
  const bool refused = trains_group(o.trained, "experts") || ranks.expert_ranks > 1;
  if (!refused || bytes_in_files(checkpoint) == 0)
    return;
  const std::string name = checkpoint.string();
  if (ranks.expert_ranks > 1) {
    throw Error(Exit::usage, concat("the experts of '", name,
                                    "' stay in their file in few bits, where every rank reads "
                                    "them, and --ep would share them out"))
        .hint("leave --ep out; ranks of one machine share the pages of the file");
  }
  throw Error(Exit::usage, concat("the experts of '", name,
                                  "' are in few bits, which do not train, and --train ", o.trained,
                                  " would train them"))
      .hint(concat("--train router (any groups but experts); to train experts: moe edit ", name,
                   " -o WIDE --save f32, then --init WIDE"));
}

LoadedModel load_to_train(const fs::path& checkpoint, Backend<float>& backend) {
  const bool few = bytes_in_files(checkpoint) > 0;
  return load_model(checkpoint, backend,
                    {.holding = {.numbers = few ? Keep::experts_as_stored : Keep::in_memory}});
}

std::map<std::string, FewBitsFormat> keep_few_bits(Decoder<float>& model, const std::string& family,
                                                   std::vector<NamedTensor>& tensors) {
  std::map<std::string, FewBitsFormat> formats;
  const auto parameters = model.parameters();
  if (std::ranges::none_of(parameters, [](const auto* p) { return p->made_when_read(); }))
    return formats;
  std::map<std::string, std::vector<NamedTensor>> kept;
  const std::vector<ExpertTensor> experts = expert_tensors(model, family);
  for (const ExpertTensor& t : experts) {
    auto found = matrix_in_file(*t.parameter, t.first, {t.rows, t.cols}, t.tensor);
    if (!found)
      continue;
    if (found->format)
      formats[t.tensor] = *found->format;
    kept[t.tensor] = std::move(found->tensors);
  }
  settle_blocks(experts, formats);
  std::vector<NamedTensor> out;
  for (NamedTensor& t : tensors) {
    const auto at = kept.find(t.name);
    if (at == kept.end())
      out.push_back(std::move(t));
    else
      std::ranges::move(at->second, std::back_inserter(out));
  }
  tensors = std::move(out);
  return formats;
}

}  // namespace moe
