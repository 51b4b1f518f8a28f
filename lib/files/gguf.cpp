// GGUF files: parts of a split model put together, and keys read as the types that a caller wants.
#include "lib/files/gguf.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/gguf_header.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

template <class T>
T number_at(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

bool is_integer(GgufType t) {
  return t <= GgufType::i32 || t == GgufType::u64 || t == GgufType::i64;
}
bool is_float(GgufType t) {
  return t == GgufType::f32 || t == GgufType::f64;
}

// Element i of integers; false where it is above 2^63 - 1.
bool integer_at(const GgufValue& v, Index i, std::int64_t& out) {
  const std::byte* p = v.bytes.data();
  switch (v.type) {
    case GgufType::u8:
    case GgufType::boolean:
      out = number_at<std::uint8_t>(p + i);
      return true;
    case GgufType::i8:
      out = number_at<std::int8_t>(p + i);
      return true;
    case GgufType::u16:
      out = number_at<std::uint16_t>(p + 2 * i);
      return true;
    case GgufType::i16:
      out = number_at<std::int16_t>(p + 2 * i);
      return true;
    case GgufType::u32:
      out = number_at<std::uint32_t>(p + 4 * i);
      return true;
    case GgufType::i32:
      out = number_at<std::int32_t>(p + 4 * i);
      return true;
    default:  // of u64 those above 2^63 - 1 come out below 0
      out = number_at<std::int64_t>(p + 8 * i);
      return v.type == GgufType::i64 || out >= 0;
  }
}

double real_at(const GgufValue& v, Index i) {
  if (v.type == GgufType::f64)
    return number_at<double>(v.bytes.data() + 8 * i);
  if (v.type == GgufType::f32)
    return double(number_at<float>(v.bytes.data() + 4 * i));
  std::int64_t whole = 0;
  integer_at(v, i, whole);
  return double(whole);
}

constexpr int split_digits = 5;

// NAME-00001-of-00003.gguf as its parts; no match: count 0.
struct SplitName {
  std::string stem;
  int number = 0, count = 0;
};
SplitName split_name(const std::string& name) {
  constexpr std::string_view between = "-of-", end = ".gguf";
  const std::size_t tail = 1 + split_digits + between.size() + split_digits + end.size();
  SplitName out;
  if (name.size() <= tail || !name.ends_with(end))
    return out;
  const std::size_t at = name.size() - tail;
  const std::size_t second = at + 1 + split_digits + between.size();
  if (name[at] != '-' || name.compare(at + 1 + split_digits, between.size(), between) != 0)
    return out;
  const auto digits = [&](std::size_t from, int& value) {
    const char* first = name.data() + from;
    const auto [stop, code] = std::from_chars(first, first + split_digits, value);
    return code == std::errc() && stop == first + split_digits && value > 0;
  };
  if (digits(at + 1, out.number) && digits(second, out.count))
    out.stem = name.substr(0, at);
  else
    out.count = 0;
  return out;
}

std::string part_name(const std::string& stem, int number, int count) {
  const auto padded = [](int n) {
    const std::string text = std::to_string(n);
    return std::string(std::max<std::size_t>(split_digits, text.size()) - text.size(), '0') + text;
  };
  return concat(stem, "-", padded(number), "-of-", padded(count), ".gguf");
}

}  // namespace

GgufFile::GgufFile(fs::path path) : path_(std::move(path)) {
  const InputFile file(path_);
  parts_.push_back({path_, file.map(), file.size()});
  GgufHeader header = read_gguf_header(path_, {parts_[0].bytes.get(), std::size_t(file.size())});
  keys_ = std::move(header.keys);
  tensors_ = std::move(header.tensors);
  if (whole("split.count", 1) > 1)
    open_others();
}

namespace {

// The name of the first of `count` parts; what a part says of the split must agree with it.
SplitName first_of_split(const GgufFile& file, std::int64_t count) {
  const SplitName name = split_name(file.path().filename().string());
  if (const std::int64_t number = file.whole("split.no", 0); number != 0) {
    file.refuse(concat("is part ", number + 1, " of ", count, " of a split model"),
                concat("open the first, ", part_name(name.stem.empty() ? "NAME" : name.stem, 1,
                                                     int(std::min<std::int64_t>(count, 99'999)))));
  }
  if (name.count != count || name.number != 1) {
    file.refuse(
        concat("is the first of ", count, " files and is not named NAME-00001-of-0000N.gguf"),
        "keep the names that the files were split under");
  }
  return name;
}

}  // namespace

void GgufFile::open_others() {
  const SplitName name = first_of_split(*this, whole("split.count"));
  for (int p = 2; p <= name.count; ++p) {
    const fs::path path = path_.parent_path() / part_name(name.stem, p, name.count);
    std::error_code none;
    if (!fs::exists(path, none)) {
      refuse(
          concat("is the first of ", name.count, " files and ", in_quotes(path), " does not exist"),
          "download all parts into one folder");
    }
    GgufFile part(path, p - 1, name.count);
    for (GgufTensor& t : part.tensors_) {
      t.file = p - 1;
      tensors_.push_back(std::move(t));
    }
    parts_.push_back(std::move(part.parts_[0]));
  }
  check_whole();
}

void GgufFile::check_whole() {
  if (const auto said = whole("split.tensors.count", Index(tensors_.size()));
      said != Index(tensors_.size())) {
    refuse(concat("says that its parts hold ", said, " tensors and they hold ", tensors_.size()));
  }
  std::ranges::sort(tensors_, {}, &GgufTensor::name);
  const auto twice = std::ranges::adjacent_find(tensors_, {}, &GgufTensor::name);
  if (twice != tensors_.end())
    refuse(concat("holds the tensor ", in_quotes(twice->name), " twice in its parts"));
}

GgufFile::GgufFile(fs::path path, int number, int count) : path_(std::move(path)) {
  const InputFile file(path_);
  parts_.push_back({path_, file.map(), file.size()});
  GgufHeader header = read_gguf_header(path_, {parts_[0].bytes.get(), std::size_t(file.size())});
  keys_ = std::move(header.keys);
  tensors_ = std::move(header.tensors);
  if (whole("split.no", -1) != number || whole("split.count", -1) != count) {
    refuse(concat("does not say that it is part ", number + 1, " of ", count),
           "is it a part of another model?");
  }
}

void GgufFile::refuse(const std::string& why, const std::string& hint) const {
  throw Error(Exit::input, concat(in_quotes(path_), " ", why)).hint(hint);
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto at = std::ranges::lower_bound(tensors_, name, {}, &GgufTensor::name);
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

const GgufTensor& GgufFile::at(std::string_view name) const {
  if (const GgufTensor* t = find(name))
    return *t;
  Error error(Exit::input, concat("tensor ", in_quotes(name), " is missing in ", in_quotes(path_)));
  std::vector<std::string> names;
  for (const GgufTensor& t : tensors_)
    names.push_back(t.name);
  if (names.size() < 10'000) {
    if (const std::string near = nearest(name, names); !near.empty())
      error.hint(concat("there is ", in_quotes(near)));
  }
  throw error;
}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& t) const {
  return {parts_[std::size_t(t.file)].bytes.get() + t.offset, std::size_t(t.bytes)};
}

Index GgufFile::size() const {
  Index sum = 0;
  for (const Part& p : parts_)
    sum += p.size;
  return sum;
}

bool GgufFile::has(std::string_view key) const {
  return keys_.find(key) != keys_.end();
}

const GgufValue& GgufFile::value(std::string_view key) const {
  const auto found = keys_.find(key);
  if (found == keys_.end())
    refuse(concat("has no key ", in_quotes(key)), "the file is not complete, or is no model");
  return found->second;
}

bool GgufFile::is_array(std::string_view key) const {
  const auto found = keys_.find(key);
  return found != keys_.end() && found->second.array;
}

namespace {

// What a key is and what was expected.
std::string is_not(std::string_view key, const GgufValue& v, const char* wanted) {
  return concat("has the key ", in_quotes(key), " as ", v.array ? "an array of " : "",
                name_of(v.type), " where ", wanted, " is expected");
}

}  // namespace

const GgufValue& GgufFile::one(std::string_view key, const char* wanted) const {
  const GgufValue& v = value(key);
  if (v.array)
    refuse(is_not(key, v, wanted));
  return v;
}

std::string GgufFile::text(std::string_view key) const {
  const GgufValue& v = one(key, "a string");
  if (v.type != GgufType::string)
    refuse(is_not(key, v, "a string"));
  return {reinterpret_cast<const char*>(v.bytes.data()) + 8, v.bytes.size() - 8};
}
std::string GgufFile::text(std::string_view key, const std::string& fallback) const {
  return has(key) ? text(key) : fallback;
}

std::int64_t GgufFile::whole(std::string_view key) const {
  const GgufValue& v = one(key, "an integer");
  std::int64_t out = 0;
  if (!is_integer(v.type))
    refuse(is_not(key, v, "an integer"));
  if (!integer_at(v, 0, out))
    refuse(concat("has the key ", in_quotes(key), " above 2^63 - 1"));
  return out;
}
std::int64_t GgufFile::whole(std::string_view key, std::int64_t fallback) const {
  return has(key) ? whole(key) : fallback;
}

double GgufFile::real(std::string_view key) const {
  const GgufValue& v = one(key, "a number");
  if (!is_integer(v.type) && !is_float(v.type))
    refuse(is_not(key, v, "a number"));
  return real_at(v, 0);
}
double GgufFile::real(std::string_view key, double fallback) const {
  return has(key) ? real(key) : fallback;
}

bool GgufFile::flag(std::string_view key, bool fallback) const {
  if (!has(key))
    return fallback;
  const GgufValue& v = one(key, "true or false");
  if (v.type != GgufType::boolean)
    refuse(is_not(key, v, "true or false"));
  return v.bytes[0] != std::byte(0);
}

std::vector<std::string_view> GgufFile::texts(std::string_view key) const {
  const GgufValue& v = value(key);
  if (!v.array || v.type != GgufType::string)
    refuse(is_not(key, v, "an array of strings"));
  std::vector<std::string_view> out;
  out.reserve(std::size_t(v.count));
  const std::byte* at = v.bytes.data();
  for (Index i = 0; i < v.count; ++i) {
    const std::size_t n = number_at<std::uint64_t>(at);
    out.emplace_back(reinterpret_cast<const char*>(at) + 8, n);
    at += 8 + n;
  }
  return out;
}

std::vector<std::int64_t> GgufFile::wholes(std::string_view key) const {
  const GgufValue& v = value(key);
  if (!is_integer(v.type) && v.type != GgufType::boolean)
    refuse(is_not(key, v, "an array of integers"));
  std::vector<std::int64_t> out(std::size_t(v.count));
  for (Index i = 0; i < v.count; ++i) {
    if (!integer_at(v, i, out[std::size_t(i)]))
      refuse(concat("has a number above 2^63 - 1 in the key ", in_quotes(key)));
  }
  return out;
}

std::vector<double> GgufFile::reals(std::string_view key) const {
  const GgufValue& v = value(key);
  if (!is_integer(v.type) && !is_float(v.type))
    refuse(is_not(key, v, "an array of numbers"));
  std::vector<double> out(std::size_t(v.count));
  for (Index i = 0; i < v.count; ++i)
    out[std::size_t(i)] = real_at(v, i);
  return out;
}

namespace {

bool has_magic(const fs::path& path) {
  std::array<char, 4> head{};
  InputFile file(path);
  return file.read(head) == head.size() && std::memcmp(head.data(), "GGUF", 4) == 0;
}

// The models in a folder: single files, and the first of each split one.
std::vector<fs::path> models_in(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".gguf") && split_name(name).number <= 1)
      out.push_back(entry.path());
  }
  return out;
}

}  // namespace

std::optional<fs::path> gguf_file_of(const fs::path& path) {
  std::error_code none;
  if (fs::is_directory(path, none)) {
    if (fs::exists(path / "config.json", none))
      return std::nullopt;
    const std::vector<fs::path> models = models_in(path);
    if (models.size() != 1)
      return std::nullopt;
    return models[0];
  }
  if (!fs::is_regular_file(path, none))
    return std::nullopt;
  if (path.extension() == ".gguf" || has_magic(path))
    return path;
  return std::nullopt;
}

}  // namespace moe
