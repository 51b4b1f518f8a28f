// moe generate: continues a prompt, one token at a time, with a key-value cache; may record the
// routing of prompt and answer.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <sstream>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/experts.h"
#include "apps/output.h"
#include "apps/provenance.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "datasets/tokenizer.h"
#include "lib/core/rng.h"
#include "lib/files/file.h"
#include "lib/run/origin.h"
#include "lib/run/recorder.h"
#include "lib/run/run_folder.h"

namespace moe {
namespace {

struct Options {
  std::string model, prompt, prompts, ids, trace, options;
  int tokens = 200, top_k = 0;
  int experts_per_token = 0;  // 0 = as trained
  double temperature = 0.8;
  std::uint64_t seed = 1;
  bool force = false;
  DeviceOptions device;
  ExpertOptions experts;
};

// Matrices are read where they lie in their files, unless --expert-memory says otherwise.
Loading loading(const Options& o) {
  Holding wanted = holding(o.experts);
  if (wanted.numbers == Keep::as_fits)
    wanted.numbers = Keep::in_files;
  wanted.decodes = true;
  return {.holding = wanted, .k = o.experts_per_token};
}

// The likeliest `k` of the first `limit` ids, the likeliest first; of equals the smaller id.
std::vector<int> likeliest(std::span<const float> logits, int limit, int k) {
  std::vector<int> order(static_cast<std::size_t>(limit));
  std::iota(order.begin(), order.end(), 0);
  const auto cut = order.begin() + std::min(k, limit);
  std::ranges::partial_sort(order, cut, [&](int a, int b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  order.erase(cut, order.end());
  return order;
}

// Draws from softmax(logits / temperature), cut to the top_k best; temperature 0 takes the best.
// Ids from `limit` on are padding. Without --top-k ids are gone through as they are numbered:
// sorting a large vocabulary takes as long as a good part of the model.
int sample(std::span<const float> logits, int limit, const Options& o, Rng& rng) {
  const auto all = logits.first(std::size_t(limit));
  const auto best = std::ranges::max_element(all);
  if (o.temperature == 0)
    return int(best - all.begin());
  std::vector<int> ids;
  if (o.top_k > 0)
    ids = likeliest(logits, limit, o.top_k);
  const std::size_t n = o.top_k > 0 ? ids.size() : all.size();
  const auto id = [&](std::size_t i) {
    return o.top_k > 0 ? ids[i] : int(i);
  };
  std::vector<double> p(n);
  for (std::size_t i = 0; i < n; ++i)
    p[i] = std::exp(double(logits[std::size_t(id(i))] - *best) / o.temperature);
  double left = rng.uniform() * std::accumulate(p.begin(), p.end(), 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    if ((left -= p[i]) < 0)
      return id(i);
  }
  return id(n - 1);
}

// A young model writes any byte: on a terminal those that would move the cursor or change its state
// are shown as blanks.
std::string shown(std::string text) {
  if (is_terminal(stdout)) {
    for (char& c : text) {
      if ((c >= 0 && c < 32 && c != '\n' && c != '\t') || c == 127)
        c = ' ';
    }
  }
  return text;
}

// The ids of --ids "1 5 7", each below the vocabulary.
std::vector<int> ids_of(const std::string& text, int vocabulary) {
  std::vector<int> out;
  for (const std::string& word : split(text, ' ')) {
    if (word.empty())
      continue;
    if (word.size() > 9 || word.find_first_not_of("0123456789") != word.npos ||
        std::stoi(word) >= vocabulary) {
      throw Error(Exit::usage,
                  concat("--ids has '", word, "', which is not an id from 0 to ", vocabulary - 1))
          .hint("--ids \"1 5 7\"");
    }
    out.push_back(std::stoi(word));
  }
  if (out.empty())
    throw Error(Exit::usage, "--ids has no id in it").hint("--ids \"1 5 7\"");
  return out;
}

// Prompt and answer, as texts of the model's tokenizer or as bare ids, which are printed as they
// are.
class Dialogue {
 public:
  Dialogue(const LoadedModel& loaded, const Options& o)
      : bare_(!o.ids.empty()),
        reads_source_(loaded.model->config().encoder_layers > 0),
        vocabulary_(loaded.model->config().vocabulary) {
    tokenizer_ = bare_ ? make_tokenizer("bytes") : tokenizer_of(loaded);
    if (!tokenizer_) {
      throw Error(Exit::usage, "this model comes without a tokenizer, so it can be given no text")
          .hint("--ids \"1 5 7\": token ids to continue, as its tokenizer makes them");
    }
    ends_ = loaded.ends;
    if (bare_)
      return;
    const SpecialIds special = tokenizer_->special();
    ends_.insert(ends_.end(), special.ends.begin(), special.ends.end());
    ends_.push_back(tokenizer_->boundary());
    if (reads_source_)
      return;
    limit_ = std::min(vocabulary_, loaded.state && loaded.tokenizer == "bytes"
                                       ? tokenizer_->boundary() + 1
                                       : tokenizer_->vocabulary());
  }
  std::vector<int> prompt(const Options& o) const {
    return bare_ ? ids_of(o.ids, vocabulary_) : prompt(o.prompt);
  }
  std::vector<int> prompt(const std::string& words) const {
    std::vector<int> out = reads_source_ ? std::vector<int>{} : document_opening(*tokenizer_);
    const std::vector<int> text = reads_source_ ? source(words) : tokenizer_->encode(words);
    out.insert(out.end(), text.begin(), text.end());
    return out;
  }
  bool ends(int id) const {
    return std::ranges::find(ends_, id) != ends_.end();
  }
  // the id that separates texts, marked special in traces; -1 = none
  int boundary() const {
    return bare_ ? (ends_.empty() ? -1 : ends_.front()) : tokenizer_->boundary();
  }
  // ids from here on are padding
  int limit() const {
    return limit_ > 0 ? limit_ : vocabulary_;
  }
  // What an id adds to the answer so far: whole characters, or nothing until one is whole.
  std::string text_of(int id) {
    if (bare_)
      return concat(" ", id);
    if (id >= tokenizer_->vocabulary())
      return concat(sentinel_begin, id - tokenizer_->vocabulary(), ">");
    answer_.push_back(id);
    std::string text = tokenizer_->decode(answer_);
    while (!text.empty() && text.ends_with("\xEF\xBF\xBD"))
      text.resize(text.size() - 3);  // a character that is not whole yet
    const std::string added = text.size() > written_ ? text.substr(written_) : "";
    written_ = std::max(written_, text.size());
    return shown(added);
  }
  const Tokenizer& tokenizer() const {
    return *tokenizer_;
  }
  bool bare() const {
    return bare_;
  }

 private:
  // What an encoder reads: text, and ids behind those of the tokenizer where it says <extra_id_N>.
  std::vector<int> source(const std::string& text) const {
    std::vector<int> out;
    const auto add = [&](const std::string& plain) {
      const std::vector<int> ids = tokenizer_->encode(plain);
      out.insert(out.end(), ids.begin(), ids.end());
    };
    std::size_t done = 0;
    for (auto at = text.find(sentinel_begin); at != text.npos; at = text.find(sentinel_begin, at)) {
      const std::size_t first = at + std::string_view(sentinel_begin).size();
      const std::size_t end = text.find_first_not_of("0123456789", first);
      if (end == first || end == text.npos || text[end] != '>' || end - first > 6) {
        at = first;
        continue;
      }
      const std::vector<int> own =
          tokenizer_->encode(text.substr(at, end + 1 - at), {.special = SpecialText::ids}).ids;
      const int id = own.size() == 1
                         ? own[0]
                         : tokenizer_->vocabulary() + std::stoi(text.substr(first, end - first));
      if (id >= vocabulary_) {
        throw Error(Exit::usage, concat("'", text.substr(at, end + 1 - at),
                                        "' of the prompt is none of the model's ",
                                        vocabulary_ - tokenizer_->vocabulary(), " sentinels"))
            .hint("a model that was trained with --task denoise has some");
      }
      add(text.substr(done, at - done));
      out.push_back(id);
      done = at = end + 1;
    }
    add(text.substr(done));
    return out;
  }

  static constexpr const char* sentinel_begin = "<extra_id_";
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool bare_, reads_source_;
  int vocabulary_, limit_ = 0;
  std::vector<int> ends_, answer_;
  std::size_t written_ = 0;  // bytes of the answer's text
};

// The trace of prompt and answer, one sequence; nothing where none is asked for.
class AnswerTrace {
 public:
  AnswerTrace(const Options& o, const LoadedModel& loaded, const Dialogue& dialogue)
      : fields_(trace_fields(*loaded.model)) {
    fields_.prediction = false;
    if (o.trace.empty())
      return;
    TraceHeader h = trace_header(*loaded.model);
    describe_source(h, provenance_of(o.options), loaded.checkpoint.path.string(),
                    dialogue.tokenizer(), o.seed);
    if (dialogue.bare())
      without_pieces(h);
    h.checkpoint_step = loaded.checkpoint.step;
    describe_origin(h, loaded);
    writer_.emplace(o.trace, h, TraceWriterOptions{.force = o.force, .fields = fields_});
    writer_->sequence(no_domain);
  }
  const TraceFields& fields() const {
    return fields_;
  }
  void append(std::int64_t step, Phase phase, const BatchRows& rows) {
    if (!writer_)
      return;
    writer_->step({.step = step, .phase = phase});
    rows.append(*writer_);
  }
  void finish() {
    if (writer_)
      writer_->finish();
  }

 private:
  TraceFields fields_;
  std::optional<TraceWriter> writer_;
};

// What the encoder of a model reads, which is the prompt; null where there is none.
std::shared_ptr<const Batch> source_of(const ModelConfig& config, const std::vector<int>& prompt) {
  if (config.encoder_layers == 0)
    return nullptr;
  if (prompt.empty()) {
    throw Error(Exit::usage, "--prompt is missing, which the encoder of this model reads")
        .hint("--prompt 'a text'");
  }
  return std::make_shared<const Batch>(Batch{.token = prompt, .start = {0, Index(prompt.size())}});
}

// Prints the answer as it comes.
void answer(const Options& o, Decoder<float>& model, Dialogue& dialogue, std::vector<int> next,
            AnswerTrace& trace) {
  const auto source = source_of(model.config(), next);
  if (source)
    next = {std::max(0, model.config().start_token)};
  Rng rng(o.seed);
  DecoderState state;
  Index past = 0;
  for (int n = 0; n <= o.tokens && stop_signal() == 0; ++n) {
    const bool is_prompt = past == 0;
    const Batch batch{.token = next,
                      .start = {0, Index(next.size())},
                      .past = {past},
                      .source = is_prompt ? source : nullptr};
    Decoder<float>::Tape tape;
    Matrix<float> logits;
    BatchRows rows(batch, is_prompt ? token_flag::prompt : token_flag::decode, dialogue.boundary());
    model.infer(
        {.batch = batch, .rng = &rng}, tape,
        [&](int l, const MoeTape<float>& t, View<const float>) {
          rows.layer(l, t, trace.fields(), model.config().in_encoder(model.layer_of(l)));
        },
        &state, &logits);
    trace.append(n, is_prompt ? Phase::prefill : Phase::decode, rows);
    past += batch.tokens();
    if (n == o.tokens)
      break;
    next = {sample(logits.row(0), dialogue.limit(), o, rng)};
    if (dialogue.ends(next[0]))
      break;
    fmt::print("{}", dialogue.text_of(next[0]));
    std::fflush(stdout);
  }
  fmt::print("\n");
}

// One of several prompts that are continued together.
struct Line {
  std::string prompt, answer;
  Dialogue dialogue;
  Rng rng;
  bool ended = false;
};

// The lines of --prompts, each with random numbers of its own: line i is drawn as --seed S+i draws
// it alone.
std::vector<Line> lines_of(const Options& o, const Dialogue& dialogue) {
  std::vector<Line> out;
  std::istringstream text(read_file(o.prompts, Index(1) << 30));
  for (std::string line; std::getline(text, line);) {
    if (!line.empty() && line.back() == '\r')
      line.pop_back();
    out.push_back({line, "", dialogue, Rng(o.seed + out.size())});
  }
  if (out.empty())
    throw Error(Exit::usage, concat(in_quotes(o.prompts), " has no lines")).hint("a prompt a line");
  return out;
}

// Adds a token to every line that has not ended; the ids that the next step reads.
std::vector<int> add_tokens(const Options& o, const Matrix<float>& logits,
                            std::vector<Line>& lines) {
  std::vector<int> out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    Line& line = lines[i];
    const int id = sample(logits.row(Index(i)), line.dialogue.limit(), o, line.rng);
    line.ended = line.ended || line.dialogue.ends(id);
    if (!line.ended)
      line.answer += line.dialogue.text_of(id);
    out.push_back(id);
  }
  return out;
}

// All lines as one batch, a token of each a step, so that an expert that several choose is read
// once. Lines that have ended go on unseen until the last has.
void answer_together(const Options& o, Decoder<float>& model, std::vector<Line>& lines) {
  Batch batch{.start = {0}};
  for (const Line& line : lines) {
    const std::vector<int> ids = line.dialogue.prompt(line.prompt);
    batch.token.insert(batch.token.end(), ids.begin(), ids.end());
    batch.start.push_back(batch.tokens());
    batch.past.push_back(0);
  }
  Rng rng(o.seed);
  DecoderState state;
  for (int n = 0; n < o.tokens && stop_signal() == 0; ++n) {
    Decoder<float>::Tape tape;
    Matrix<float> logits;
    model.infer({.batch = batch, .rng = &rng}, tape, {}, &state, &logits);
    Batch next{.token = add_tokens(o, logits, lines), .start = {0}, .past = batch.past};
    for (std::size_t i = 0; i < lines.size(); ++i) {
      next.past[i] += batch.start[i + 1] - batch.start[i];
      next.start.push_back(Index(i) + 1);
    }
    if (std::ranges::all_of(lines, &Line::ended))
      break;
    batch = std::move(next);
  }
}

int generate_together(const Options& o) {
  const auto device = open_device(o.device);
  const LoadedModel loaded = load_model(o.model, *device, loading(o));
  if (loaded.model->config().encoder_layers > 0)
    throw Error(Exit::usage, "--prompts is for decoders, and this model has an encoder")
        .hint("--prompt 'a text'");
  report_loading(loaded, o.model);
  std::vector<Line> lines = lines_of(o, Dialogue(loaded, o));
  catch_stop_signals();
  answer_together(o, *loaded.model, lines);
  for (const Line& line : lines) {
    const nlohmann::json out{{"prompt", line.prompt}, {"answer", line.answer}};
    fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  return stop_signal() ? 128 + stop_signal() : 0;
}

int generate(const Options& o) {
  if (!o.prompts.empty())
    return generate_together(o);
  if (!o.trace.empty())
    refuse_existing(o.trace, o.force);
  const auto device = open_device(o.device);
  const LoadedModel loaded = load_model(o.model, *device, loading(o));
  report_loading(loaded, o.model);
  Dialogue dialogue(loaded, o);
  const std::vector<int> prompt = dialogue.prompt(o);
  AnswerTrace trace(o, loaded, dialogue);
  catch_stop_signals();
  fmt::print("{}{}", dialogue.bare() ? o.ids : o.prompt,
             loaded.model->config().encoder_layers > 0 ? "\n" : "");
  answer(o, *loaded.model, dialogue, prompt, trace);
  trace.finish();
  return stop_signal() ? 128 + stop_signal() : 0;
}

}  // namespace

Run generate_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("model", o->model, "a run, a checkpoint, a Hugging Face folder, or a GGUF file")
      .required();
  Option prompt = cli.add_option("--prompt", o->prompt, "text to continue").type_name("TEXT");
  Option ids =
      cli.add_option("--ids", o->ids,
                     "token ids to continue, as the model's tokenizer makes them; ids are printed")
          .type_name("IDS")
          .excludes(prompt);
  Option prompts =
      cli.add_option("--prompts", o->prompts,
                     "continue every line of this file, all as one batch; a JSON object a line")
          .type_name("FILE")
          .excludes(prompt)
          .excludes(ids);
  cli.add_option("--tokens", o->tokens, "tokens to add").show_default().check(whole(0));
  cli.add_option("--temperature", o->temperature, "of the sampling; 0 = always the best")
      .show_default()
      .check(real(0, 100.0));
  cli.add_option("--top-k", o->top_k, "sample among this many tokens; 0 = all")
      .show_default()
      .check(whole(0));
  add_top_k(cli, o->experts_per_token);
  cli.add_option("--seed", o->seed, "seed of the sampling").show_default().check(whole(0));
  cli.add_option("--trace", o->trace, "record the routing to this file")
      .type_name("FILE")
      .excludes(prompts);
  cli.add_flag("--force", o->force, "replace a trace that exists");
  add_device(cli, o->device);
  add_experts(cli, o->experts);
  add_config(cli);
  return run_with(cli, std::move(o), generate);
}

}  // namespace moe
