// Arrays by their names: see array_bundle.h.
#include "lib/import/array_bundle.h"

#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstring>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr Index most_layers = 4096;

// "a.12" is layer 12 of "a".
bool split_number(const std::string& name, std::string& base, int& number) {
  const auto dot = name.rfind('.');
  if (dot == name.npos || dot == 0)
    return false;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + dot + 1, end, number);
  base = name.substr(0, dot);
  return error == std::errc() && stop == end && number >= 0 && number < most_layers;
}

std::string entry_name(const ZipEntry& e) {
  return e.name.ends_with(".npy") ? e.name.substr(0, e.name.size() - 4) : e.name;
}

}  // namespace

void ArrayBundle::add(const std::string& name, NumberArray array) {
  array.name = concat(file_, " ", name);
  std::string base;
  int number = 0;
  if (split_number(name, base, number))
    groups_[base].by_number.emplace(number, std::move(array));
  else
    groups_[name].whole = std::move(array);
}

void ArrayBundle::add_list(const std::string& name, const PickleValue& list) {
  if (list.size() > most_layers)
    return;
  for (Index i = 0; i < list.size(); ++i) {
    if (!list.item(i).is(PickleKind::array))
      return;
  }
  ArrayGroup group;
  group.listed = true;
  for (Index i = 0; i < list.size(); ++i) {
    NumberArray array = list.item(i).array();
    array.name = concat(file_, " ", name, "[", i, "]");
    group.by_number.emplace(int(i), std::move(array));
  }
  groups_[name] = std::move(group);
}

void ArrayBundle::add_torch(const PickleValue& root) {
  if (root.is_list())
    return add_list("router_logits", root);
  if (root.is(PickleKind::array))
    return add("expert_ids", root.array());
  if (!root.is(PickleKind::dict)) {
    refuse_import(file_, concat("holds ", root.about(), ", which is not read"),
                  "torch.save(dict(router_logits=out.router_logits, input_ids=input_ids), 'a.pt')");
  }
  for (Index i = 0; i < root.size(); ++i) {
    if (!root.key(i).is(PickleKind::text))
      continue;
    const std::string& name = root.key(i).text();
    const PickleValue value = root.value(i);
    if (value.is(PickleKind::array))
      add(name, value.array());
    else if (value.is_list() && value.size() > 0)
      add_list(name, value);
  }
}

ArrayBundle::ArrayBundle(const ImportFile& f) : file_(f.quoted()) {
  if (f.kind == FileKind::torch) {
    add_torch(f.torch->root());
    return;
  }
  if (f.kind == FileKind::npz) {
    ZipFile zip(f.path);
    for (const ZipEntry& e : zip.entries()) {
      if (e.name.ends_with(".npy"))
        add(entry_name(e), npy_array(zip.read(e), concat(file_, " ", entry_name(e))));
    }
    return;
  }
  if (f.kind == FileKind::safetensors) {
    const Tensors tensors(f.path);
    for (const TensorInfo& info : tensors.list()) {
      const Tensor t = tensors.get(info.name);
      auto owner = std::make_shared<Tensor>(t);
      const Bytes bytes{{owner, owner->bytes().data()}, owner->bytes()};
      add(info.name, checked_array(file_, t.dtype(), t.dims(), bytes));
    }
    return;
  }
  if (f.kind == FileKind::npy) {
    const InputFile file(f.path);
    Bytes bytes{file.map(), {}};
    bytes.span = {bytes.owner.get(), std::size_t(file.size())};
    add("expert_ids", npy_array(bytes, file_));
    return;
  }
  refuse_import(file_, "is no file of arrays", ".npz, .npy, .safetensors or .pt");
}

const ArrayGroup* ArrayBundle::find(const std::string& name) const {
  const auto at = groups_.find(name);
  return at == groups_.end() ? nullptr : &at->second;
}

const NumberArray* ArrayBundle::whole(const std::string& name) const {
  const ArrayGroup* group = find(name);
  return group && group->whole ? &*group->whole : nullptr;
}

std::string ArrayBundle::names() const {
  std::vector<std::string> out;
  for (const auto& [name, group] : groups_)
    out.push_back(name);
  return out.empty() ? "nothing" : join(out);
}

int expert_id(const NumberArray& a, Index place) {
  const std::int64_t id = a.whole(place);
  const bool ones =
      (a.dtype == DType::u16 && id == UINT16_MAX) || (a.dtype == DType::u32 && id == UINT32_MAX);
  return ones ? -1 : int(std::clamp<std::int64_t>(id, -2, INT32_MAX));
}

namespace {

// Elements as they lie, without a switch for each; what no id can be is made -1 or clamped as
// expert_id does.
template <class Element>
void widen_ids(const NumberArray& a, std::vector<std::int32_t>& out) {
  const std::byte* from = a.bytes.span.data();
  for (std::size_t i = 0; i < out.size(); ++i) {
    Element id;
    std::memcpy(&id, from + i * sizeof id, sizeof id);
    out[i] = std::int32_t(id);
    if constexpr (std::same_as<Element, std::uint16_t>)
      out[i] = id == UINT16_MAX ? -1 : out[i];
    else if constexpr (std::signed_integral<Element>)
      out[i] = std::max(out[i], -2);
  }
}

// Calls body(place) for every element in row-major order.
template <class Body>
void each_place(const NumberArray& a, std::size_t axis, Index place, Body body) {
  if (axis == a.shape.size())
    return body(place);
  for (Index i = 0; i < a.shape[axis]; ++i)
    each_place(a, axis + 1, place + i * a.stride[axis], body);
}

}  // namespace

std::vector<std::int32_t> expert_ids(const NumberArray& a) {
  std::vector<std::int32_t> out(std::size_t(a.size()));
  const bool dense = a.stride == strides_of(a.shape);
  if (dense && a.dtype == DType::u8) {
    widen_ids<std::uint8_t>(a, out);
  } else if (dense && a.dtype == DType::u16) {
    widen_ids<std::uint16_t>(a, out);
  } else if (dense && a.dtype == DType::i16) {
    widen_ids<std::int16_t>(a, out);
  } else if (dense && a.dtype == DType::i32) {
    widen_ids<std::int32_t>(a, out);
  } else {
    auto to = out.begin();
    each_place(a, 0, 0, [&](Index place) { *to++ = expert_id(a, place); });
  }
  return out;
}

bool bundle_names(const ImportFile& f, const std::vector<std::string>& wanted) {
  const auto is_wanted = [&](const std::string& name) {
    std::string base;
    int number = 0;
    const bool numbered = split_number(name, base, number);
    for (const std::string& w : wanted) {
      if (name == w || (numbered && base == w))
        return true;
    }
    return false;
  };
  if (f.kind == FileKind::npz) {
    const ZipFile zip(f.path);
    for (const ZipEntry& e : zip.entries()) {
      if (is_wanted(entry_name(e)))
        return true;
    }
  } else if (f.kind == FileKind::safetensors) {
    const Tensors tensors(f.path);
    for (const TensorInfo& info : tensors.list()) {
      if (is_wanted(info.name))
        return true;
    }
  } else if (f.kind == FileKind::torch && f.torch->root().is(PickleKind::dict)) {
    const PickleValue root = f.torch->root();
    for (Index i = 0; i < root.size(); ++i) {
      if (root.key(i).is(PickleKind::text) && is_wanted(root.key(i).text()))
        return true;
    }
  }
  return false;
}

}  // namespace moe
