// Everything about a trace that can be checked without the model: see check_trace in reader.h.
#include <fmt/format.h>

#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/sha256.h"
#include "lib/trace/child.h"
#include "lib/trace/hash.h"
#include "lib/trace/plausible.h"
#include "lib/trace/reader_file.h"
#include "lib/trace/step_counts.h"

namespace moe {
namespace {

// Counts what is wrong in one way, and remembers where it was first seen.
struct Finding {
  std::string what;
  std::uint64_t count = 0, row = 0;
  Index layer = -1;

  void seen(std::uint64_t at_row, Index at_layer = -1) {
    if (count++ == 0) {
      row = at_row;
      layer = at_layer;
    }
  }
  std::string sentence() const {
    return fmt::format("{} {} (first: row {}{})", count, what, row,
                       layer < 0 ? "" : fmt::format(", MoE layer {}", layer));
  }
};

class Check {
 public:
  explicit Check(const std::filesystem::path& path) : file_(path) {}

  TraceCheck result() {
    remarks_ = file_.state.remarks;
    std::vector<std::string> found = findings();
    return {std::move(found), std::move(remarks_)};
  }

 private:
  std::vector<std::string> findings() {
    std::vector<std::string> out = file_.state.warnings;
    std::uint64_t before = 0;
    for (const CommitRow& commit : file_.commits) {
      if (commit.rows > file_.state.tokens)
        break;
      if (!hash_fits(before, commit)) {
        out.push_back(
            fmt::format("rows {}..{} are not those that were committed: their hash differs", before,
                        commit.rows));
      }
      before = commit.rows;
    }
    for (std::uint64_t at = 0; at < file_.state.tokens; at += commit_rows)
      window(at, std::min<std::uint64_t>(commit_rows, file_.state.tokens - at));
    for (const Finding* f :
         {&repeated_, &logits_, &infinite_, &weights_, &order_, &kept_, &place_, &unnamed_}) {
      if (f->count > 0)
        out.push_back(f->sentence());
    }
    if (file_.count_steps > 0)
      counts(out);
    if (file_.state.complete)
      whole_file(out);
    return out;
  }

  bool hash_fits(std::uint64_t before, const CommitRow& commit) {
    return file_.data_xxh3(before, commit.rows - before) == commit.data_xxh3;
  }

  // Steps say how many tokens they had where there are no rows to count.
  void counts(std::vector<std::string>& out) {
    const auto read = [&](std::uint64_t first, std::uint64_t count) {
      return StepCounts{first, file_.read_counts(first, count), file_.header.max_experts()};
    };
    const bool only = file_.state.tokens == 0;
    const CountSurvey survey(
        file_.header, only ? std::span<const TraceStep>(file_.steps) : std::span<const TraceStep>(),
        file_.count_steps, read);
    for (std::string& finding : survey.findings())
      out.push_back(std::move(finding));
    if (std::string remark = survey.undivided(); !remark.empty())
      remarks_.push_back(std::move(remark));
  }

  void window(std::uint64_t first, std::uint64_t count) {
    // ids out of range are refused here
    const TraceRows rows = file_.read(first, count, file_.fields);
    for (std::size_t l = 0; l < rows.layer.size(); ++l)
      layer_rows(rows, Index(l));
    for (std::size_t t = 0; t < rows.tokens(); ++t) {
      const std::uint64_t row = first + t;
      const TraceSequence& s = file_.sequences[rows.sequence[t]];
      const TraceStep& step = file_.steps[rows.step[t]];
      if (row < s.start || row < step.token_start)
        place_.seen(row);
      if (rows.sequence[t] >= members_.size())
        members_.resize(rows.sequence[t] + 1);
      ++members_[rows.sequence[t]];
      if (!rows.modality.empty())
        modality_of(rows, t);
    }
    corpus_.update(
        {reinterpret_cast<const std::uint8_t*>(rows.token_id.data()), rows.tokens() * 4});
  }

  void modality_of(const TraceRows& rows, std::size_t t) {
    const auto& names = file_.header.modalities;
    const std::uint8_t m = rows.modality[t];
    if (m != modality::unknown && m >= names.size())
      unnamed_.seen(rows.first + t);
    signals_.resize(members_.size());
    if (rows.valid(t) && m < names.size() && names[m] != text_modality)
      ++signals_[rows.sequence[t]];
  }

  // A picture is there from its first place to its last, but for one where a recording stopped.
  void grids(std::vector<std::string>& out) {
    signals_.resize(file_.sequences.size());
    for (std::size_t i = 0; i < signals_.size(); ++i) {
      const std::uint32_t places = file_.sequences[i].grid.places();
      const bool last = i + 1 == signals_.size();
      if (places > 0 && !last && (signals_[i] == 0 || signals_[i] % places != 0))
        grid_.seen(file_.sequences[i].start);
    }
    if (grid_.count > 0)
      out.push_back(grid_.sentence());
  }

  void layer_rows(const TraceRows& rows, Index l) {
    const LayerRows& r = rows.layer[std::size_t(l)];
    const TraceLayer& info = file_.header.layers[std::size_t(l)];
    const RowRules rules = rules_of(file_.header, info);
    for (Index t = 0; t < r.expert.rows(); ++t) {
      const std::uint64_t row = rows.first + std::uint64_t(t);
      if (!rows.valid(std::size_t(t)))
        continue;
      const std::span<const int> ids = r.expert.row(t);
      const auto weights = r.weight.empty() ? std::span<const float>() : r.weight.row(t);
      if (names_twice(ids))
        repeated_.seen(row, l);
      if (!order_fits(rules, ids, weights))
        order_.seen(row, l);
      if (!weights.empty())
        weights_of(ids, weights, rules, row, l);
      if (!r.logits.empty() && !logits_fit(r.logits.row(t).first(std::size_t(info.experts))))
        logits_.seen(row, l);
      for (Index k = 0; k < r.kept.cols(); ++k) {
        if (r.expert(t, k) < 0 && r.kept(t, k) >= 0)
          kept_.seen(row, l);
      }
    }
  }
  void weights_of(std::span<const int> ids, std::span<const float> weights, const RowRules& rules,
                  std::uint64_t row, Index l) {
    for (std::size_t k = 0; k < ids.size(); ++k) {
      if (ids[k] >= 0 && !std::isfinite(weights[k]))
        infinite_.seen(row, l);
    }
    if (!weights_fit(rules, ids, weights))
      weights_.seen(row, l);
  }

  void whole_file(std::vector<std::string>& out) {
    members_.resize(file_.sequences.size());
    std::vector<std::uint32_t> lengths;
    for (std::size_t i = 0; i < members_.size(); ++i) {
      if (members_[i] != file_.sequences[i].length && file_.has_sequences)
        position_.seen(file_.sequences[i].start);
      if (file_.has_sequences)
        lengths.push_back(file_.sequences[i].length);
    }
    if (position_.count > 0)
      out.push_back(position_.sentence());
    grids(out);
    corpus_.update({reinterpret_cast<const std::uint8_t*>(lengths.data()), lengths.size() * 4});
    const std::string corpus = corpus_.hex();
    if (!file_.state.corpus_sha256.empty() && corpus != file_.state.corpus_sha256) {
      out.push_back(fmt::format("corpus_sha256 is {} and the token ids give {}",
                                file_.state.corpus_sha256, corpus));
    }
  }

  TraceReader::File file_;
  Sha256 corpus_;
  std::vector<std::string> remarks_;
  std::vector<std::uint64_t> members_;  // rows that name a sequence
  std::vector<std::uint64_t> signals_;  // those of them that are no text
  Finding repeated_{"times a token has one expert in several slots of a layer"},
      logits_{"rows of logits hold NaN or infinity"},
      weights_{"times the combine weights of a token are not what the trace says of them"},
      infinite_{"combine weights are not finite"},
      order_{"times the choices of a token are not in the order that the trace says"},
      kept_{"slots were computed that no choice asked for"},
      place_{"rows belong to a sequence or step that begins behind them"},
      position_{"sequences have another length than the rows that name them"},
      unnamed_{"rows are of a modality that the trace does not name"},
      grid_{"sequences have another number of rows that are no text than their grid has places"};
};

constexpr char remark_sign = '\x1f';  // before a line that is a remark, on its way from the child

std::string checked(const std::filesystem::path& path) {
  TraceCheck found;
  try {
    found = Check(path).result();
  } catch (const Error& e) {
    found.findings.emplace_back(e.what());
  }
  for (const std::string& remark : found.remarks)
    found.findings.push_back(remark_sign + remark);
  return join(found.findings, "\n");
}

}  // namespace

TraceCheck check_trace(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path))
    throw Error(Exit::input, fmt::format("cannot open {}: there is no such file", path.string()));
  TraceCheck out;
  try {
    for (std::string& line : split(run_apart(path, [&] { return checked(path); }), '\n')) {
      if (line.starts_with(remark_sign))
        out.remarks.push_back(line.substr(1));
      else
        out.findings.push_back(std::move(line));
    }
  } catch (const Error& e) {
    if (e.code() != Exit::input)
      throw;
    out.findings.emplace_back(e.what());
  }
  return out;
}

std::vector<std::string> verify_trace(const std::filesystem::path& path) {
  return check_trace(path).findings;
}

}  // namespace moe
