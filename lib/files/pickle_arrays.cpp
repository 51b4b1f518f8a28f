// The calls in a pickle that stand for arrays: PyTorch's tensors over storages, NumPy's arrays with
// their bytes inside. They are read, never made: a call of anything else is refused.
#include <algorithm>
#include <array>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/pickle_tree.h"

namespace moe {
namespace {

using Node = std::uint32_t;

struct TypeName {
  std::string_view name;
  DType type;
};

constexpr TypeName torch_types[] = {
    {"torch.FloatStorage", DType::f32}, {"torch.DoubleStorage", DType::f64},
    {"torch.HalfStorage", DType::f16},  {"torch.BFloat16Storage", DType::bf16},
    {"torch.LongStorage", DType::i64},  {"torch.IntStorage", DType::i32},
    {"torch.ShortStorage", DType::i16}, {"torch.CharStorage", DType::i8},
    {"torch.ByteStorage", DType::u8},   {"torch.BoolStorage", DType::boolean},
    {"torch.uint8", DType::u8},         {"torch.uint16", DType::u16},
    {"torch.uint32", DType::u32},       {"torch.uint64", DType::u64},
    {"torch.int8", DType::i8},          {"torch.int16", DType::i16},
    {"torch.int32", DType::i32},        {"torch.int64", DType::i64},
    {"torch.float16", DType::f16},      {"torch.bfloat16", DType::bf16},
    {"torch.float32", DType::f32},      {"torch.float64", DType::f64},
    {"torch.bool", DType::boolean}};

constexpr TypeName numpy_types[] = {{"i1", DType::i8},  {"u1", DType::u8},  {"b1", DType::boolean},
                                    {"i2", DType::i16}, {"u2", DType::u16}, {"f2", DType::f16},
                                    {"i4", DType::i32}, {"u4", DType::u32}, {"f4", DType::f32},
                                    {"i8", DType::i64}, {"u8", DType::u64}, {"f8", DType::f64}};

constexpr std::string_view untyped = "torch.storage.UntypedStorage";

template <std::size_t N>
const DType* type_in(const TypeName (&types)[N], std::string_view name) {
  for (const TypeName& t : types) {
    if (t.name == name)
      return &t.type;
  }
  return nullptr;
}

const PickleNode& of_kind(const PickleTree& tree, Node n, PickleKind kind, const char* what) {
  if (tree.nodes[n].kind != kind)
    tree.refuse(concat("has ", PickleValue(tree, n).about(), " as ", what, " of a tensor"));
  return tree.nodes[n];
}

const std::vector<Node>& items_of(const PickleTree& tree, Node n, std::size_t least,
                                  const char* what) {
  const PickleNode& node = tree.nodes[n];
  if (node.kind != PickleKind::tuple || tree.lists[node.at].size() < least)
    tree.refuse(concat("has a damaged pickle: ", what, " has the wrong arguments"));
  return tree.lists[node.at];
}

Dims dims_of(const PickleTree& tree, Node n, const char* what) {
  Dims out;
  const auto& items = items_of(tree, n, 0, what);
  if (items.size() > 8)
    tree.refuse(concat("has a tensor of ", items.size(), " axes"));
  for (const Node item : items) {
    out.push_back(of_kind(tree, item, PickleKind::whole, what).whole);
    if (out.back() < 0)
      tree.refuse(concat("has a tensor with a negative ", what));
  }
  return out;
}

// A storage keeps its key as text and in front of it how many elements of which type it holds.
struct Storage {
  std::string key;
  bool typed = true;
  DType type = DType::u8;
  Index numbers = 0;
};

Storage storage_of(const PickleTree& tree, Node n) {
  const PickleNode& node = of_kind(tree, n, PickleKind::storage, "the storage");
  const std::string& text = tree.texts[node.at];
  Storage out;
  out.key = text.substr(1);
  out.typed = text[0] != 'U';
  out.type = out.typed ? DType(text[0] - 'a') : DType::u8;
  out.numbers = node.whole;
  return out;
}

// Refuses a view that does not lie in its storage: in particular one that repeats numbers, which
// could claim any size.
void check_view(const NumberArray& a, Index offset, Index numbers) {
  if (a.stride.size() != a.shape.size())
    a.refuse("has another number of strides than of axes", "the file as it was saved");
  Index size = 1;
  Index last = offset;
  bool fits = offset >= 0;
  for (std::size_t i = 0; i < a.shape.size(); ++i) {
    Index reach = 0;
    fits = fits && !__builtin_mul_overflow(size, a.shape[i], &size);
    fits = fits && !__builtin_mul_overflow(std::max<Index>(a.shape[i] - 1, 0), a.stride[i], &reach);
    fits = fits && !__builtin_add_overflow(last, reach, &last);
  }
  if (fits && size == 0)
    return;
  if (!fits || size > numbers) {
    a.refuse(concat("has the shape ", text_of(a.shape), " over ", numbers,
                    " numbers: an expanded view, or damage"),
             "a.contiguous() or a.clone() before torch.save");
  }
  if (last >= numbers) {
    a.refuse(
        concat("begins at the offset ", offset, " and reaches to number ", last, " of ", numbers),
        "the file as it was saved");
  }
}

Node tensor(PickleTree& tree, const std::vector<Node>& args, bool with_type,
            const PickleStorage& storage) {
  Storage from = storage_of(tree, args[0]);
  NumberArray out;
  out.name = concat(tree.name, " tensor ", from.key);
  out.shape = dims_of(tree, args[2], "size");
  out.stride = dims_of(tree, args[3], "stride");
  const Index offset = of_kind(tree, args[1], PickleKind::whole, "the offset").whole;
  out.dtype = from.type;
  if (with_type) {
    const std::string& name = tree.texts[of_kind(tree, args[6], PickleKind::global, "the type").at];
    const DType* type = type_in(torch_types, name);
    if (!type)
      out.refuse(concat("is of the type ", name, ", which is not read"), "a.float() or a.int()");
    out.dtype = *type;
  } else if (!from.typed) {
    out.refuse("has no type", "the file as it was saved");
  }
  const Index width = bytes_of(out.dtype);
  const Index bytes_told = from.numbers * bytes_of(from.type);
  const Bytes all = storage(from.key);
  if (bytes_told > Index(all.span.size())) {
    out.refuse(
        concat("wants a storage of ", bytes_told, " bytes, and the file has ", all.span.size()),
        "the file is cut short or damaged");
  }
  check_view(out, offset, bytes_told / width);
  const Index skipped = out.size() == 0 ? 0 : offset * width;
  out.bytes = {all.owner, all.span.subspan(std::size_t(skipped))};
  tree.arrays.push_back(std::move(out));
  return add_node(tree, {PickleKind::array, std::uint32_t(tree.arrays.size() - 1), {}});
}

// numpy.dtype('i4', False, True): the type's name; its byte order follows by BUILD.
Node numpy_type(PickleTree& tree, const std::vector<Node>& args) {
  std::string name = tree.texts[of_kind(tree, args[0], PickleKind::text, "the type").at];
  if (!type_in(numpy_types, name))
    tree.refuse(
        concat("has a NumPy array of the type '", name.substr(0, 20), "', which is not read"));
  return add_text(tree, PickleKind::dtype, std::move(name));
}

Node latin_1(PickleTree& tree, const std::vector<Node>& args) {
  const std::string& text = tree.texts[of_kind(tree, args[0], PickleKind::text, "the bytes").at];
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x80) {
      out += char(c);
    } else if ((c & 0xfc) == 0xc0 && i + 1 < text.size()) {
      const auto low = static_cast<unsigned char>(text[++i]);
      out += char((c & 3) << 6 | (low & 0x3f));
    } else {
      tree.refuse("has bytes in its pickle that are no latin-1 text");
    }
  }
  return add_text(tree, PickleKind::bytes, std::move(out));
}

Node empty_array(PickleTree& tree) {
  NumberArray out;
  out.name = concat(tree.name, " array ", tree.arrays.size() + 1);
  out.shape = {0};
  out.stride = {1};
  tree.arrays.push_back(std::move(out));
  return add_node(tree, {PickleKind::array, std::uint32_t(tree.arrays.size() - 1), {}});
}

// (version, shape, dtype, by column, bytes)
void fill_array(PickleTree& tree, NumberArray& out, Node state) {
  const auto& args = items_of(tree, state, 5, "a NumPy array");
  const std::string& type = tree.texts[of_kind(tree, args[2], PickleKind::dtype, "the type").at];
  const PickleNode& data = of_kind(tree, args[4], PickleKind::bytes, "the bytes");
  const auto [known, fresh] = tree.shared.try_emplace(data.at);
  if (fresh) {
    auto owner = std::make_shared<std::string>(tree.texts[data.at]);
    const auto* first = reinterpret_cast<const std::byte*>(owner->data());
    known->second = {{owner, first}, {first, owner->size()}};
  }
  const Bytes& bytes = known->second;
  out = checked_array(out.name, *type_in(numpy_types, type), dims_of(tree, args[1], "size"), bytes);
  if (tree.nodes[args[3]].whole != 0) {
    Index step = 1;
    for (std::size_t a = 0; a < out.shape.size(); ++a) {
      out.stride[a] = step;
      step *= out.shape[a];
    }
  }
}

bool is_numpy(std::string_view global, std::string_view name) {
  return global == concat("numpy._core.multiarray.", name) ||
         global == concat("numpy.core.multiarray.", name);
}

bool is_array_call(std::string_view name) {
  static constexpr std::string_view calls[] = {"torch._utils._rebuild_tensor_v2",
                                               "torch._utils._rebuild_tensor_v3",
                                               "torch._utils._rebuild_parameter",
                                               "torch.Size",
                                               "collections.OrderedDict",
                                               "numpy.ndarray",
                                               "numpy.dtype",
                                               "_codecs.encode"};
  return std::find(std::begin(calls), std::end(calls), name) != std::end(calls) ||
         is_numpy(name, "_reconstruct") || name == untyped || type_in(torch_types, name);
}

// The first class or function that the pickle names and that makes no array: what was saved.
std::string first_foreign(const PickleTree& tree) {
  for (const PickleNode& n : tree.nodes) {
    if (n.kind == PickleKind::global && !is_array_call(tree.texts[n.at]))
      return tree.texts[n.at].substr(0, 200);
  }
  return "";
}

}  // namespace

Node pickle_storage(PickleTree& tree, Node id) {
  const auto& args = items_of(tree, id, 5, "a storage");
  const std::string& kind = tree.texts[of_kind(tree, args[0], PickleKind::text, "the kind").at];
  const std::string& type = tree.texts[of_kind(tree, args[1], PickleKind::global, "the type").at];
  const std::string key = tree.texts[of_kind(tree, args[2], PickleKind::text, "the storage").at];
  const Index numbers = of_kind(tree, args[4], PickleKind::whole, "the length").whole;
  const DType* known = type_in(torch_types, type);
  if (kind != "storage" || (!known && type != untyped))
    tree.refuse(concat("has a tensor in ", type, ", which is not read"));
  const bool plain = !key.empty() && key.find_first_not_of("0123456789") == key.npos;
  if (!plain || numbers < 0 || numbers > Index(1) << 48)
    tree.refuse("has a tensor whose storage has no plain number, or an impossible length");
  const Node out =
      add_text(tree, PickleKind::storage, concat(known ? char('a' + int(*known)) : 'U', key));
  tree.nodes[out].whole = numbers;
  return out;
}

Node pickle_call(PickleTree& tree, Node callable, Node arguments, const PickleStorage& storage) {
  const PickleNode& node = tree.nodes[callable];
  if (node.kind != PickleKind::global)
    tree.refuse(concat("has a pickle that calls ", PickleValue(tree, callable).about()));
  const std::string& name = tree.texts[node.at];
  const auto args = [&](std::size_t least) -> const std::vector<Node>& {
    return items_of(tree, arguments, least, name.c_str());
  };
  if (name == "torch._utils._rebuild_tensor_v2")
    return tensor(tree, args(4), false, storage);
  if (name == "torch._utils._rebuild_tensor_v3")
    return tensor(tree, args(7), true, storage);
  if (name == "torch._utils._rebuild_parameter" || name == "torch.Size")
    return args(1)[0];
  if (name == "collections.OrderedDict" && args(0).empty())
    return add_list(tree, PickleKind::dict, {});
  if (is_numpy(name, "_reconstruct"))
    return empty_array(tree);
  if (name == "numpy.dtype")
    return numpy_type(tree, args(1));
  if (name == "_codecs.encode")
    return latin_1(tree, args(2));
  const std::string first = first_foreign(tree);
  tree.refuse(
      concat("has a pickle that calls ", name.substr(0, 200),
             first == name ? "" : concat(" for an object of the class ", first),
             ", which is not on the short list of what makes arrays: nothing was executed"));
}

void pickle_build(PickleTree& tree, Node object, Node state) {
  const PickleNode node = tree.nodes[object];
  if (node.kind == PickleKind::opaque || node.kind == PickleKind::dict)
    return;  // what belongs to an object that nobody looks into
  if (node.kind == PickleKind::array)
    return fill_array(tree, tree.arrays[node.at], state);
  if (node.kind != PickleKind::dtype)
    tree.refuse(concat("has a pickle that gives a state to ", PickleValue(tree, object).about()));
  const auto& args = items_of(tree, state, 2, "a NumPy type");
  const std::string& order = tree.texts[of_kind(tree, args[1], PickleKind::text, "the order").at];
  if (order != "<" && order != "|" && order != "=")
    tree.refuse("has a NumPy array that is stored with the high byte first");
}

}  // namespace moe
