#include "lib/run/run_folder.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "lib/backend/host_memory.h"
#include "lib/checkpoint/foreign_folder.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/family/config_like.h"
#include "lib/family/gguf_model.h"
#include "lib/family/layouts.h"
#include "lib/family/quantised_config.h"
#include "lib/files/file.h"
#include "lib/files/gguf.h"
#include "lib/router/facts.h"
#include "lib/router/replays_routes.h"
#include "lib/run/few_bits_experts.h"
#include "lib/run/load_weights.h"
#include "lib/run/replay.h"
#include "lib/tokenizer/open.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

// What routers and balancers hold besides parameters (selection bias, loss coefficients), named by
// layer.
struct NamedState {
  std::string name;
  std::span<double> values;
};
std::vector<NamedState> router_state(Decoder<float>& model) {
  std::vector<NamedState> out;
  const auto layers = model.moe_layers();
  for (int l = 0; l < int(layers.size()); ++l) {
    for (const auto& [name, values] : layers[std::size_t(l)]->state())
      out.push_back({concat("layers.", model.layer_of(l), ".moe.", name), values});
  }
  return out;
}

// Moments in float; what routers hold in double, so that resuming is bitwise.
std::vector<NamedTensor> training_tensors(Decoder<float>& model, Trainer* trainer) {
  std::vector<NamedTensor> out;
  for (const Trainer::Moment& m : trainer ? trainer->moments() : std::vector<Trainer::Moment>{}) {
    out.emplace_back(m.name, DType::f32, *m.dims, [read = m.read, dims = *m.dims] {
      return Tensor::from_float(DType::f32, dims, read().flat());
    });
  }
  for (const NamedState& s : router_state(model)) {
    out.emplace_back(
        s.name, Tensor::copy_of(View<const double>{s.values.data(), 1, Index(s.values.size())}));
  }
  return out;
}

Tensor rounded(const Tensor& t, DType type) {
  return Tensor::from_float(type, t.dims(), t.view<float>().flat());
}

// What of a checkpoint depends on who writes it.
struct Contents {
  Trainer* trainer;
  const RunState* state;
  const TokenizerFiles& tokenizer;
  std::function<DType(const std::string&)> type;
  DType usual;
  Layout layout = Layout::published;
  const std::map<std::string, FewBitsFormat>* few_bits = nullptr;
  const Json* quantization_config = nullptr;
};

std::string family_before(const TokenizerFiles& t) {
  return t.kept && t.kept->config ? t.kept->config->value("model_type", "") : "";
}

ConfigLike config_of(const ModelConfig& model, const std::string& family, const Contents& c) {
  const TokenizerFacts ids{.bos = c.tokenizer.bos, .eos = c.tokenizer.boundary};
  const bool other_ids = !c.tokenizer.json.empty();
  if (c.tokenizer.kept && c.tokenizer.kept->config) {
    return config_like(*c.tokenizer.kept->config,
                       {.model = model,
                        .family = family,
                        .weights = c.usual,
                        .spec = c.state != nullptr,
                        .few_bits = c.few_bits && !c.few_bits->empty(),
                        .ids = other_ids ? std::optional(ids) : std::nullopt});
  }
  ConfigLike out{config_json(model, family, ids), ""};
  if (c.usual == DType::bf16)
    out.json["torch_dtype"] = "bfloat16";
  if (c.usual == DType::f16)
    out.json["torch_dtype"] = "float16";
  return out;
}

void write_texts(CheckpointWriter& writer, const TokenizerFiles& t) {
  if (t.kept) {
    for (const KeptFile& f : t.kept->files)
      writer.text(f.name, f.bytes);
  }
  if (t.json.empty())
    return;
  writer.text("tokenizer.json", t.json);
  if (!t.config_json.empty())
    writer.text("tokenizer_config.json", t.config_json);
}

// Each tensor in the type or format that it is written in.
void in_formats(std::vector<NamedTensor>& tensors, const Contents& c) {
  std::vector<NamedTensor> out;
  for (NamedTensor& t : tensors) {
    const auto few = c.few_bits ? c.few_bits->find(t.name) : decltype(c.few_bits->end()){};
    const DType type = c.type(t.name);
    if (c.few_bits && few != c.few_bits->end()) {
      std::ranges::move(in_few_bits(t, few->second), std::back_inserter(out));
    } else if (type != DType::f32 && t.dtype == DType::f32) {
      out.emplace_back(t.name, type, t.dims,
                       [make = t.make, type] { return rounded(make(), type); });
    } else {
      out.push_back(std::move(t));
    }
  }
  tensors = std::move(out);
}

std::vector<std::string> matrices_of(const std::vector<NamedTensor>& tensors) {
  std::vector<std::string> out;
  for (const NamedTensor& t : tensors) {
    if (t.dims.size() == 2)
      out.push_back(t.name);
  }
  return out;
}

// `kept`: what it says of experts that stay as their file has them; null = there are none.
Json json_of(const ConfigLike& config, const Contents& c, const Json& kept) {
  Json out = config.json;
  if (c.few_bits && !c.few_bits->empty())
    out["quantization_config"] = *c.quantization_config;
  if (!kept.is_null())
    out["quantization_config"] = kept;
  return out;
}

SavedModel write_model(CheckpointWriter& writer, Decoder<float>& model, const Contents& c) {
  SavedModel out{.family = fit_like(model.config(), family_before(c.tokenizer)).family,
                 .notes = {}};
  const ConfigLike config = config_of(model.config(), out.family, c);
  std::vector<NamedTensor> tensors = c.layout == Layout::packed
                                         ? store(model, packed_names(out.family))
                                         : store(model, out.family);
  in_formats(tensors, c);
  const std::vector<std::string> matrices = matrices_of(tensors);
  const auto formats = keep_few_bits(model, out.family, tensors);
  if (!config.note.empty() && formats.empty())
    out.notes.push_back(config.note);
  if (c.tokenizer.kept && out.family == family_before(c.tokenizer)) {
    const std::vector<NamedTensor>& beside = c.tokenizer.kept->tensors;
    tensors.insert(tensors.end(), beside.begin(), beside.end());
    out.beside = beside.size();
    for (const KeptCopy& f : c.tokenizer.kept->copies)
      writer.copy(f.name, f.from);
  }
  writer.model(tensors);
  writer.json(
      "config.json",
      json_of(config, c, formats.empty() ? Json() : quantization_config(formats, matrices)));
  write_texts(writer, c.tokenizer);
  if (c.state)
    writer.json("state.json", state_json(*c.state));
  if (c.trainer || !router_state(model).empty())
    writer.tensors("optimizer.safetensors", training_tensors(model, c.trainer));
  return out;
}

}  // namespace

std::filesystem::path save_checkpoint(const fs::path& run, Decoder<float>& model, Trainer* trainer,
                                      const RunState& state, const TokenizerFiles& tokenizer,
                                      DType weights) {
  CheckpointWriter writer(run, state.step);
  write_model(writer, model,
              {.trainer = trainer,
               .state = &state,
               .tokenizer = tokenizer,
               .type = [weights](const std::string&) { return weights; },
               .usual = weights});
  return writer.finish();
}

SavedModel save_model(const fs::path& folder, Decoder<float>& model, const ModelFolder& m) {
  CheckpointWriter writer = CheckpointWriter::alone(folder);
  SavedModel out = write_model(writer, model,
                               {.trainer = nullptr,
                                .state = m.state,
                                .tokenizer = m.tokenizer,
                                .type = m.type,
                                .usual = m.usual,
                                .layout = m.layout,
                                .few_bits = &m.few_bits,
                                .quantization_config = m.quantization_config});
  writer.json("edit.json", m.made);
  writer.finish();
  return out;
}

namespace {

Published read_config(const fs::path& folder) {
  return config_from_json(read_json(folder / "config.json", {.python_words = true}),
                          (folder / "config.json").string());
}
}  // namespace

CheckpointConfig read_checkpoint_config(const fs::path& path) {
  if (const auto gguf = gguf_file_of(path))
    return {.config = open_gguf(*gguf).published.config, .path = *gguf};
  const fs::path folder = find_checkpoint(path).path;
  CheckpointConfig out{.config = read_config(folder).config,
                       .path = folder,
                       .of_run = fs::exists(folder / "state.json")};
  if (out.of_run)
    out.tokenizer = read_state(folder).tokenizer;
  return out;
}

namespace {

void load_router_state(const fs::path& file, Decoder<float>& model) {
  const Tensors training(file);
  for (const NamedState& n : router_state(model)) {
    const Tensor stored = training.get(n.name, {1, Index(n.values.size())});
    std::ranges::copy(stored.view<double>().flat(), n.values.begin());
  }
}

// Gives the configuration another k; returns the one that it had, 0 where that is the same.
int change_k(ModelConfig& config, int k) {
  if (config.moe_layers() == 0) {
    throw Error(Exit::usage,
                concat("a dense model has no experts of which a token could choose ", k))
        .hint("a model with MoE layers");
  }
  const int trained = router_facts(config.moe.router, config.moe.experts).k;
  config.moe.router = with_k(config.moe.router, k, config.moe.experts);
  return trained == k ? 0 : trained;
}

// How such weights of such a model are kept, where that was wanted.
Holding settled(const ModelConfig& config, const Weights& weights, const Holding& wanted,
                const Backend<float>& backend) {
  const bool on_host = dynamic_cast<const HostBackend<float>*>(&backend) != nullptr;
  if (wanted.activations == Activations::int8 && !on_host) {
    throw Error(Exit::usage, concat("activations are rounded to 8 bits by the processor alone, and "
                                    "the device is ",
                                    backend.name()))
        .hint("--device cpu, or leave --activations out");
  }
  if (wanted.activations == Activations::int8 && wanted.numbers != Keep::in_files)
    throw Error(Exit::bug, "activations are rounded where matrices are read in their files");
  if (wanted.numbers == Keep::in_files && on_host)
    return wanted;
  const bool few_bits =
      on_host && config.moe_layers() > 0 && weights.quantised(backend.operand_type());
  if (wanted.numbers == Keep::experts_as_stored)
    return {.numbers = few_bits ? Keep::experts_as_stored : Keep::in_memory};
  const bool as_fits = wanted.numbers == Keep::as_fits;
  if (few_bits && (as_fits || wanted.numbers == Keep::as_stored))
    return {.numbers = Keep::as_stored};
  const bool widens = wanted.numbers == Keep::in_files || wanted.numbers == Keep::as_stored;
  Holding out = on_machine(config, widens ? Holding{.numbers = Keep::as_fits} : wanted);
  out.decodes = out.decodes && on_host;
  return out;
}

// A model of that configuration, with what both kinds of files say of it.
LoadedModel made(Published published, const Weights& weights, const char* said_by,
                 const Loading& wanted, Backend<float>& backend) {
  LoadedModel out;
  if (!wanted.router.empty())
    published.config.moe.router = with_inner_router(wanted.router, published.config.moe.router);
  if (wanted.k != 0)
    out.trained_k = change_k(published.config, wanted.k);
  out.family = published.family;
  if (published.tokenizer.eos >= 0)
    out.ends = {published.tokenizer.eos};
  refuse_sizes(weights, published.config, said_by);
  out.few_bits = weights.quantised(DType::f32);
  out.holding = settled(published.config, weights, wanted.holding, backend);
  out.model = std::make_unique<Decoder<float>>(
      published.config, backend,
      out.holding.numbers == Keep::in_memory ? Storage::own : Storage::elsewhere);
  return out;
}

[[noreturn]] void refuse_headless(const fs::path& folder, const Names& names) {
  throw Error(Exit::input,
              concat("tensor '", head_name(names), "' is missing in ", in_quotes(folder),
                     " and tie_word_embeddings is false, so that "
                     "the model gives no logits"))
      .hint("moe trace needs none; for all else the model saved with its head (...ForCausalLM)");
}

// Whatever stands in the layers that run is part of what they compute, so that what was not asked
// for is refused there.
LoadedModel load_gguf(const fs::path& file, Backend<float>& backend, const Loading& wanted) {
  const GgufModel gguf = open_gguf(file);
  LoadedModel out = made(gguf.published, *gguf.weights, "the list of keys", wanted, backend);
  out.checkpoint = {.path = file, .notes = gguf.notes};
  std::vector<std::string> left = load_weights(*gguf.weights, *gguf.names, out.holding, *out.model);
  const ModelConfig& c = gguf.published.config;
  for (const std::string& name : left) {
    if (!beside_the_layers(c, name)) {
      throw Error(Exit::input,
                  concat("tensor '", name, "' in ", in_quotes(gguf.weights->file_of(name)),
                         " is no part of ", out.family, " as this program computes it"))
          .hint("the file holds a variant of the model that is not read");
    }
  }
  std::erase_if(left, [](const std::string& name) { return name.starts_with("rope_"); });
  if (const std::string note = left_over(left); !note.empty())
    out.checkpoint.notes.push_back(note);
  attach_replay(*out.model);
  return out;
}

// What a folder's config.json says of its model, where its tensors are, and what of the two
// differs.
struct FoundModel {
  Published published;
  FoundNames found;
  TiedHead head = TiedHead::absent;
};

// Those that are somewhere, or should be.
std::vector<std::string> all_names(const Weights& weights) {
  std::vector<std::string> out = weights.names();
  std::ranges::copy(weights.absent(), std::back_inserter(out));
  std::ranges::sort(out);
  return out;
}

// How the experts of a file lie whose family has them either way, as its class tells: what fits
// its memory is taken as it is, anything else is swapped.
void turn_experts(const Weights& weights, const ModelConfig& c, Names& names) {
  int layer = 0;
  while (layer < c.layers && !c.is_moe(layer))
    ++layer;
  for (Joined& j : names.joined) {
    const bool down = j.parts.size() == 1;
    const Dims plain = down ? Dims{c.moe.experts, c.hidden, c.moe.width}
                            : Dims{c.moe.experts, 2 * c.moe.width, c.hidden};
    j.swapped = false;
    try {
      weights.open(concat(names.prefix, names.layers, layer, ".", j.name), plain);
    } catch (const Error&) {  // of another shape; where that fits neither it is said on loading
      j.swapped = true;
    }
  }
}

FoundModel found_model(const fs::path& folder, const Weights& weights, Head head_wanted) {
  if (const auto foreign = foreign_tensors(weights.names())) {
    throw Error(Exit::input, concat(in_quotes(folder), " holds the tensors of ", foreign->kind))
        .hint(foreign->hint);
  }
  FoundModel m{.published = read_config(folder), .found = {}};
  ModelConfig& c = m.published.config;
  m.found = names_as_found(m.published.family, c.tied, all_names(weights));
  if (m.found.names.either_way)
    turn_experts(weights, c, m.found.names);
  if (m.found.headless && c.encoder_layers > 0) {
    c.tied = true;  // the classes of encoder-decoders take the embedding then
    m.found.headless = false;
  }
  if (m.found.headless && head_wanted == Head::needed)
    refuse_headless(folder, m.found.names);
  m.head = tied_head(weights, m.found.names, c);
  if (m.head == TiedHead::other)
    c.tied = false;
  if (m.found.headless)
    c.tied = true;  // no matrix of its own; nobody asks for logits
  return m;
}

// Sentences on an output matrix that is not as config.json has it.
std::vector<std::string> head_notes(const FoundModel& m) {
  const std::string head = head_name(m.found.names);
  if (m.found.headless) {
    return {concat("there is no '", head,
                   "' and tie_word_embeddings is false: routing is that of the model, losses and "
                   "predictions are left out")};
  }
  if (m.head == TiedHead::other) {
    return {concat("tie_word_embeddings is true and '", head,
                   "' differs from the embedding: the matrix of the file counts")};
  }
  return {};
}

LoadedModel load_folder(Checkpoint checkpoint, Backend<float>& backend, const Loading& wanted) {
  const fs::path folder = checkpoint.path;
  const auto weights = safetensors_weights(folder);
  const FoundModel m = found_model(folder, *weights, wanted.head);
  LoadedModel out = made(m.published, *weights, "config.json", wanted, backend);
  out.checkpoint = std::move(checkpoint);
  out.ends = special_ids(folder).ends;
  out.headless = m.found.headless;
  std::ranges::copy(weights->notes(), std::back_inserter(out.checkpoint.notes));
  std::ranges::copy(head_notes(m), std::back_inserter(out.checkpoint.notes));
  std::vector<std::string> left = load_weights(*weights, m.found.names, out.holding, *out.model);
  if (m.head == TiedHead::copy)
    std::erase(left, head_name(m.found.names));
  std::erase_if(left, [&](const std::string& name) {
    return std::ranges::any_of(m.found.names.beside,
                               [&](const std::string& start) { return name.starts_with(start); });
  });
  if (const std::string note = left_over(left); !note.empty())
    out.checkpoint.notes.push_back(note);
  if (fs::exists(folder / "state.json")) {
    out.state = read_state(folder);
    out.tokenizer = out.state->tokenizer;
  }
  if (fs::exists(folder / "optimizer.safetensors"))
    load_router_state(folder / "optimizer.safetensors", *out.model);
  attach_replay(*out.model);
  return out;
}

}  // namespace

Index rounding_matrices(Decoder<float>& model) {
  return std::ranges::count_if(model.parameters(), [](const Parameter<float>* p) {
    return p->source() && p->source()->rounds_activations();
  });
}

LoadedModel load_model(const fs::path& path, Backend<float>& backend, const Loading& wanted) {
  if (const auto gguf = gguf_file_of(path))
    return load_gguf(*gguf, backend, wanted);
  // what it is, is said before what is missing
  if (fs::exists(path / "config.json"))
    read_config(path);
  return load_folder(find_checkpoint(path), backend, wanted);
}

void refuse_infinite(Decoder<float>& model) {
  constexpr Index at_once = 256;  // rows
  for (const Parameter<float>* p : model.parameters()) {
    if (p->stored())
      continue;
    const Index rows = p->value().rows;
    parallel_for((rows + at_once - 1) / at_once, 1, [&](Index i, Index) {
      Matrix<float> some(std::min(at_once, rows - i * at_once), p->value().cols);
      p->read(i * at_once, some.view());
    });
  }
}

void load_training(const LoadedModel& loaded, Trainer& trainer) {
  const fs::path& folder = loaded.checkpoint.path;
  const auto weights_alone = [&] {
    return Error(Exit::input, concat("'", folder.string(),
                                     "' holds weights alone: it can be used, but not resumed"))
        .hint(concat("moe train --init ", folder.string(), " starts a run from it"));
  };
  if (!fs::exists(folder / "optimizer.safetensors"))
    throw weights_alone();
  const Tensors tensors(folder / "optimizer.safetensors");
  for (const Trainer::Moment& m : trainer.moments()) {
    if (!tensors.find(m.name))
      throw weights_alone();
  }
  for (const Trainer::Moment& m : trainer.moments()) {
    const Matrix<float> host = tensors.get(m.name, *m.dims).to_float();
    m.set(host.view());
  }
  const auto& stored = loaded.state->steps_with_gradient;
  auto& counted = trainer.steps_with_gradient();
  bool fits = stored.size() == counted.size();
  for (std::size_t l = 0; fits && l < stored.size(); ++l)
    fits = stored[l].size() == counted[l].size();
  if (!fits) {
    throw Error(Exit::input,
                concat("'", (folder / "state.json").string(),
                       "': steps_with_gradient is not of the model's layers and experts"))
        .hint("moe verify on the checkpoint says whether it is whole");
  }
  trainer.resume_at(loaded.state->step);
  counted = stored;
}

}  // namespace moe
