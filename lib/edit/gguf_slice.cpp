#include "lib/edit/gguf_slice.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "lib/checkpoint/gguf_write.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {
namespace {

// Of each MoE layer the experts that stay, in their order.
using Kept = std::map<int, std::vector<Index>>;

// "blk.3.ffn_up.7.weight" in pieces: layer 3, "ffn_up.7.weight"; layer -1: of no layer.
struct Place {
  int layer = -1;
  std::string rest;
};
Place place_of(const std::string& name) {
  constexpr std::string_view start = "blk.";
  Place out;
  if (!name.starts_with(start))
    return out;
  const char* end = name.data() + name.size();
  const auto [stop, code] = std::from_chars(name.data() + start.size(), end, out.layer);
  if (code != std::errc() || stop == end || *stop != '.')
    return {};
  out.rest.assign(stop + 1, end);
  return out;
}

// Whether the first size of the tensor counts experts.
bool is_stacked(const std::string& rest) {
  return rest.find("_exps.") != rest.npos || rest.starts_with("ffn_gate_inp.") ||
         rest == "exp_probs_b.bias" || rest == "exp_probs_b.weight";
}

// E of "ffn_up.E.weight"; -1: no such name.
Index single_expert(const std::string& rest, std::string& stem) {
  for (const char* part : {"ffn_gate.", "ffn_up.", "ffn_down."}) {
    stem = part;
    Index expert = -1;
    if (!rest.starts_with(stem))
      continue;
    const char* end = rest.data() + rest.size();
    const auto [stop, code] = std::from_chars(rest.data() + stem.size(), end, expert);
    if (code == std::errc() && std::string_view(stop, std::size_t(end - stop)) == ".weight")
      return expert;
  }
  return -1;
}

Kept kept_of(const GgufFile& file, const std::string& architecture,
             const std::vector<ExpertName>& removed) {
  const std::int64_t experts = file.whole(architecture + ".expert_count");
  Kept out;
  for (const GgufTensor& t : file.tensors()) {
    const Place p = place_of(t.name);
    if (p.rest != "ffn_gate_inp.weight")
      continue;
    if (t.dims[0] != experts) {
      throw Error(Exit::input, concat("tensor ", in_quotes(t.name), " in ", in_quotes(file.file(t)),
                                      " has ", t.dims[0], " rows for ", experts, " experts"));
    }
    for (Index e = 0; e < experts; ++e) {
      if (std::ranges::find(removed, ExpertName{p.layer, int(e)}) == removed.end())
        out[p.layer].push_back(e);
    }
  }
  for (const ExpertName& r : removed) {
    if (!out.contains(r.layer) || r.expert < 0 || r.expert >= experts) {
      throw Error(Exit::usage, concat("there is no expert ", r.layer, ":", r.expert))
          .hint(concat("layers with experts have 0 to ", experts - 1));
    }
  }
  return out;
}

// How many stay in each layer.
Index remaining(const GgufFile& file, const std::string& architecture, const Kept& kept) {
  if (kept.empty())
    throw Error(Exit::usage, concat(in_quotes(file.path()), " has no layers with experts"));
  const Index count = Index(kept.begin()->second.size());
  for (const auto& [layer, experts] : kept) {
    if (Index(experts.size()) != count) {
      throw Error(Exit::usage, concat("layer ", kept.begin()->first, " would keep ", count,
                                      " experts and layer ", layer, " ", experts.size()))
          .hint("as many in every layer");
    }
  }
  if (const auto used = file.whole(architecture + ".expert_used_count"); count < used) {
    throw Error(Exit::usage, concat(count, " experts would stay and a token chooses ", used))
        .hint("remove fewer");
  }
  if (const auto groups = file.whole(architecture + ".expert_group_count", 1); groups > 1) {
    throw Error(Exit::usage, concat("the experts stand in ", groups,
                                    " groups, which would not be alike without some of them"))
        .hint("moe edit to a folder, which is refused for the same reason, or another model");
  }
  return count;
}

// Copies the blocks of those that stay.
GgufEntry sliced(const GgufFile& file, const GgufTensor& t, const std::vector<Index>& kept,
                 Index experts) {
  if (t.dims[0] != experts) {
    throw Error(Exit::input,
                concat("tensor ", in_quotes(t.name), " in ", in_quotes(file.file(t)),
                       " has the shape ", text_of(t.dims), " for ", experts, " experts"));
  }
  GgufEntry out{t.name, t.dims, t.type, {}};
  const Index each = t.bytes / experts;
  // a vector of one number an expert
  if (t.dims.size() == 1 && t.type->block != 1)
    throw Error(Exit::input, concat("tensor ", in_quotes(t.name), " cannot be cut"));
  out.dims[0] = Index(kept.size());
  out.write = [&file, &t, &kept, each](OutputFile& to) {
    for (const Index e : kept)
      to.write(file.bytes(t).subspan(std::size_t(e * each), std::size_t(each)));
  };
  return out;
}

GgufEntry whole(const GgufFile& file, const GgufTensor& t, const std::string& name) {
  return {name, t.dims, t.type, [&file, &t](OutputFile& to) {
            to.write(file.bytes(t));
          }};
}

std::vector<GgufEntry> entries_of(const GgufFile& file, const Kept& kept, Index experts) {
  std::vector<GgufEntry> out;
  for (const GgufTensor& t : file.tensors()) {
    const Place p = place_of(t.name);
    const auto here = kept.find(p.layer);
    std::string stem;
    if (here == kept.end()) {
      out.push_back(whole(file, t, t.name));
    } else if (is_stacked(p.rest)) {
      out.push_back(sliced(file, t, here->second, experts));
    } else if (const Index e = single_expert(p.rest, stem); e >= 0) {
      const auto at = std::ranges::find(here->second, e);
      if (at != here->second.end()) {
        out.push_back(whole(
            file, t, concat("blk.", p.layer, ".", stem, at - here->second.begin(), ".weight")));
      }
    } else {
      out.push_back(whole(file, t, t.name));
    }
  }
  return out;
}

GgufKeyWriter keys_of(const GgufFile& file, const std::string& architecture, Index count) {
  GgufKeyWriter out;
  for (const auto& [key, value] : file.keys()) {
    if (key.starts_with("split.") || key == "general.alignment")
      continue;  // one file, with the alignment that needs no key
    if (key == architecture + ".expert_count")
      out.whole(key, value.type, count);
    else
      out.copy(key, value);
  }
  return out;
}

}  // namespace

std::vector<std::string> slice_gguf(const std::filesystem::path& from,
                                    const std::filesystem::path& to,
                                    const std::vector<ExpertName>& removed) {
  const GgufFile file(from);
  const std::string architecture = file.text("general.architecture");
  const Kept kept = kept_of(file, architecture, removed);
  const Index count = remaining(file, architecture, kept);
  const Index experts = Index(file.whole(architecture + ".expert_count"));
  const GgufKeyWriter keys = keys_of(file, architecture, count);
  const std::vector<GgufEntry> entries = entries_of(file, kept, experts);
  write_gguf(to, keys, entries);
  std::vector<std::string> changes;
  for (const ExpertName& r : removed)
    changes.push_back(concat("removed expert ", r.layer, ":", r.expert));
  changes.push_back(concat("experts ", experts, " -> ", count, " in each of ", kept.size(),
                           " layers; the bytes of the others as they were"));
  return changes;
}

}  // namespace moe
