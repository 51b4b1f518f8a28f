#include "lib/checkpoint/safetensors.h"

#include <fmt/format.h>

#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "lib/checkpoint/shards.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"

namespace moe {
namespace fs = std::filesystem;

std::string safetensors_name(DType t) {
  std::string name(name_of(t));
  for (char& c : name)
    c = char(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

DType dtype_of_name(std::string_view name, bool& known) {
  for (int i = 0; i < dtype_count; ++i) {
    if (safetensors_name(DType(i)) == name) {
      known = true;
      return DType(i);
    }
  }
  known = false;
  return DType::f32;
}

Tensors::Tensors(fs::path path) : path_(std::move(path)) {
  std::error_code none;
  if (fs::is_directory(path_, none))
    open_folder();
  else if (path_.extension() == ".json")
    read_index(path_);
  else
    tensors_ = add(path_);
}

void Tensors::open_folder() {
  std::error_code none;
  const fs::path single = path_ / "model.safetensors";
  const fs::path index = path_ / "model.safetensors.index.json";
  if (fs::exists(single, none)) {
    tensors_ = add(single);
    return;
  }
  if (fs::exists(index, none))
    return read_index(index);
  const ShardFiles shards = shards_by_name(path_);
  if (shards.there.empty()) {
    throw Error(Exit::input,
                fmt::format("{} has neither model.safetensors nor model.safetensors.index.json",
                            in_quotes(path_)));
  }
  if (!shards.missing.empty()) {
    throw Error(Exit::input,
                fmt::format("{} has {} of {} shards, no index, and no {}", in_quotes(path_),
                            shards.there.size(), shards.there.size() + shards.missing.size(),
                            in_quotes(shards.missing[0])))
        .hint("download the files that are missing");
  }
  for (const std::string& name : shards.there)
    std::ranges::move(add(path_ / name), std::back_inserter(unlisted_));
  take_unlisted({});
  notes_.push_back(fmt::format("{} has no model.safetensors.index.json: its {} shards were read",
                               in_quotes(path_), shards.there.size()));
}

std::vector<TensorInfo> Tensors::add(const fs::path& path) {
  InputFile file(path);
  SafetensorsHeader header = read_safetensors_header(file);
  for (TensorInfo& t : header.tensors)
    t.file = int(files_.size());
  metadata_.merge(header.metadata);
  files_.push_back({path, file.map()});
  return std::move(header.tensors);
}

namespace {
Error bad(const fs::path& index, const std::string& why) {
  return Error(Exit::input, fmt::format("{} {}", in_quotes(index), why));
}
}  // namespace

void Tensors::read_index(const fs::path& index) {
  const Json json = read_json(index, {.bytes = max_header_bytes, .depth = 8});
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    throw bad(index, "has no 'weight_map' object");
  std::map<std::string, std::vector<std::string>> by_file;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (!file.is_string())
      throw bad(index, fmt::format("gives no file name for the tensor {}", in_quotes(tensor)));
    const std::string& name = file.get_ref<const std::string&>();
    if (name.empty() || name.find('/') != name.npos || name.find('\0') != name.npos ||
        name == "." || name == "..") {
      throw bad(index, fmt::format("puts the tensor {} in {}, which is not a file beside it",
                                   in_quotes(tensor), in_quotes(name)));
    }
    by_file[name].push_back(tensor);  // in the order of names
  }
  for (const auto& [name, wanted] : by_file)
    read_shard(index, index.parent_path() / name, wanted);
  take_unlisted(index);
}

void Tensors::read_shard(const fs::path& index, const fs::path& path,
                         const std::vector<std::string>& wanted) {
  std::set<std::string> missing(wanted.begin(), wanted.end());
  std::error_code none;
  if (!fs::exists(path, none))
    return miss(index, path, missing, "does not exist");
  for (TensorInfo& t : add(path)) {
    if (missing.erase(t.name) == 0)
      unlisted_.push_back(std::move(t));
    else
      tensors_.push_back(std::move(t));
  }
  miss(index, path, missing, missing.size() == 1 ? "does not hold it" : "does not hold them");
}

namespace {

// "the tensor 'a'", "3 tensors ('a', 'b', ...)".
std::string counted(const std::vector<std::string>& names) {
  if (names.size() == 1)
    return fmt::format("the tensor {}", in_quotes(names[0]));
  std::string list = in_quotes(names[0]) + ", " + in_quotes(names[1]);
  return fmt::format("{} tensors ({}{})", names.size(), list, names.size() > 2 ? ", ..." : "");
}

}  // namespace

// An error only where somebody needs one of them: indexes of published models name what was never
// saved, and parts that nobody uses are not downloaded.
void Tensors::miss(const fs::path& index, const fs::path& path,
                   const std::set<std::string>& missing, const char* why) {
  if (missing.empty())
    return;
  for (const std::string& name : missing) {
    absent_.emplace(name, fmt::format("{} puts the tensor {} in {}, which {}", in_quotes(index),
                                      in_quotes(name), in_quotes(path), why));
  }
  notes_.push_back(fmt::format("{} puts {} in {}, which {}", in_quotes(index),
                               counted({missing.begin(), missing.end()}), in_quotes(path), why));
}

// What shards hold beside what the index says of them: read, where no other tensor has the name.
void Tensors::take_unlisted(const fs::path& index) {
  std::set<std::string> taken;
  for (const TensorInfo& t : tensors_)
    taken.insert(t.name);
  std::vector<std::string> read, twice;
  for (TensorInfo& t : std::exchange(unlisted_, {})) {
    const bool first = taken.insert(t.name).second;
    (first ? read : twice).push_back(t.name);
    absent_.erase(t.name);
    if (first)
      tensors_.push_back(std::move(t));
  }
  std::ranges::sort(tensors_, {}, &TensorInfo::name);
  if (!twice.empty()) {
    notes_.push_back(fmt::format("more than one shard holds {}: {}", counted(twice),
                                 index.empty() ? "the first counts" : "the index says which"));
  }
  if (!read.empty() && !index.empty()) {
    notes_.push_back(fmt::format("{} leaves out {}, which its shards hold and which {} read",
                                 in_quotes(index), counted(read), read.size() == 1 ? "is" : "are"));
  }
}

std::vector<std::string> Tensors::absent() const {
  std::vector<std::string> out;
  for (const auto& [name, sentence] : absent_)
    out.push_back(name);
  return out;
}

std::vector<std::string> Tensors::names() const {
  std::vector<std::string> out;
  for (const TensorInfo& t : tensors_)
    out.push_back(t.name);
  return out;
}

const TensorInfo* Tensors::find(std::string_view name) const {
  const auto at = std::ranges::lower_bound(tensors_, name, {}, &TensorInfo::name);
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

const TensorInfo& Tensors::at(std::string_view name) const {
  if (const TensorInfo* t = find(name))
    return *t;
  if (const auto absent = absent_.find(name); absent != absent_.end())
    throw Error(Exit::input, absent->second).hint("download that file again, no other holds it");
  Error error(Exit::input,
              fmt::format("tensor {} is missing in {}", in_quotes(name), in_quotes(path_)));
  if (tensors_.size() < 10'000) {
    if (const std::string near = nearest(name, names()); !near.empty())
      error.hint(fmt::format("there is {}", in_quotes(near)));
  }
  throw error;
}

namespace {

Tensor mapped(const TensorInfo& t, const Dims& dims,
              const std::shared_ptr<const std::byte>& bytes) {
  const Tensor out(t.dtype, dims, std::shared_ptr<const std::byte>(bytes, bytes.get() + t.offset));
  return out.aligned() ? out : out.copy();
}

}  // namespace

Tensor Tensors::get(std::string_view name) const {
  const TensorInfo& t = at(name);
  if (t.dims.size() > max_rank) {
    throw Error(Exit::input,
                fmt::format("tensor {} in {} has the shape {}, more than {} dimensions",
                            in_quotes(name), in_quotes(file(t)), text_of(t.dims), max_rank));
  }
  return mapped(t, t.dims, files_[std::size_t(t.file)].bytes);
}

Tensor Tensors::get(std::string_view name, const Dims& expected) const {
  const TensorInfo& t = at(name);
  if (t.dims != expected) {
    throw Error(Exit::input, fmt::format("tensor {} in {} has the shape {} where {} is expected",
                                         in_quotes(name), in_quotes(file(t)), text_of(t.dims),
                                         text_of(expected)));
  }
  if (expected.size() <= max_rank)
    return get(name);
  // who knows the shape (a convolution over time, height and width) gets it with the first sizes
  // multiplied into one: rows and columns stay what they are
  Dims folded(expected.end() - max_rank, expected.end());
  for (std::size_t i = 0; i + max_rank < expected.size(); ++i)
    folded.front() *= expected[i];
  return mapped(t, folded, files_[std::size_t(t.file)].bytes);
}

}  // namespace moe
