#include "lib/run/measured_losses.h"

#include <fstream>

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr const char* format_name = "moe losses with experts missing";
constexpr Index most_bytes = Index(4) << 30;

// Of each domain its sum, and the sums of its sequences, whose tokens are known.
Json nats_json(const std::vector<DomainLoss>& all) {
  Json out = Json::array();
  for (const DomainLoss& d : all)
    out.push_back({{"nats", d.nats}, {"sequences", d.sequence_nats}});
  return out;
}

bool same(const std::vector<DomainLoss>& a, const std::vector<DomainLoss>& b) {
  if (a.size() != b.size())
    return false;
  for (std::size_t d = 0; d < a.size(); ++d) {
    if (a[d].name != b[d].name || a[d].nats != b[d].nats ||
        a[d].sequence_nats != b[d].sequence_nats || a[d].sequence_tokens != b[d].sequence_tokens) {
      return false;
    }
  }
  return true;
}

// The losses of `whole` with other nats.
std::vector<DomainLoss> losses_of(const Json& nats, const std::vector<DomainLoss>& whole) {
  std::vector<DomainLoss> out = whole;
  for (std::size_t d = 0; d < out.size(); ++d) {
    const Json& one = nats.at(d);
    out[d].nats = one.at("nats").get<double>();
    out[d].sequence_nats = one.at("sequences").get<std::vector<double>>();
    if (out[d].sequence_nats.size() != whole[d].sequence_nats.size())
      throw Error(Exit::input, "a line has another number of sequences than the text");
  }
  return out;
}

Json head_json(const std::vector<DomainLoss>& whole, const std::string& how) {
  Json names = Json::array();
  Json tokens = Json::array();
  for (const DomainLoss& d : whole) {
    names.push_back(d.name);
    tokens.push_back(d.sequence_tokens);
  }
  return {{"format", format_name},
          {"rest", how},
          {"domains", names},
          {"tokens", tokens},
          {"losses", nats_json(whole)}};
}

std::vector<DomainLoss> whole_of(const Json& head) {
  std::vector<DomainLoss> out;
  for (std::size_t d = 0; d < head.at("domains").size(); ++d) {
    DomainLoss loss{.name = head.at("domains").at(d).get<std::string>()};
    loss.sequence_tokens = head.at("tokens").at(d).get<std::vector<Index>>();
    loss.nats = head.at("losses").at(d).at("nats").get<double>();
    loss.sequence_nats = head.at("losses").at(d).at("sequences").get<std::vector<double>>();
    out.push_back(std::move(loss));
  }
  return out;
}

[[noreturn]] void refuse(const fs::path& file, const std::string& why) {
  throw Error(Exit::input, concat(in_quotes(file), " ", why))
      .hint("remove it to measure anew, or give the result another name with -o");
}

}  // namespace

MeasuredLosses::MeasuredLosses(fs::path file, std::vector<DomainLoss> whole, const std::string& how)
    : file_(std::move(file)), whole_(std::move(whole)) {
  if (!file_.empty())
    read(how);
}

void MeasuredLosses::read(const std::string& how) {
  const std::string head = head_json(whole_, how).dump();
  const std::string text = fs::exists(file_) ? read_file(file_, most_bytes) : "";
  const std::size_t end = text.rfind('\n') == text.npos ? 0 : text.rfind('\n') + 1;
  if (end == 0) {
    if (!std::string_view(head).starts_with(text))
      refuse(file_, "is no file of measured losses");
    std::error_code failed;
    fs::remove(file_, failed);
    return append(head);
  }
  bool first = true;
  try {
    for (const std::string& line : split(text.substr(0, end - 1), '\n')) {
      const Json one = parse_json(line, file_.string());
      if (!first) {
        known_[one.at("without").get<std::string>()] = losses_of(one.at("losses"), whole_);
        continue;
      }
      first = false;
      if (one.at("format") != format_name)
        refuse(file_, "is no file of measured losses");
      if (one.at("rest") != how || !same(whole_of(one), whole_))
        refuse(file_, "holds losses of another model, another text or other options");
    }
  } catch (const Json::exception&) {
    refuse(file_, "is no file of measured losses, or a damaged one");
  }
  if (end < text.size())
    fs::resize_file(file_, end);
}

void MeasuredLosses::append(const std::string& line) const {
  std::ofstream out(file_, std::ios::binary | std::ios::app);
  out << line << '\n';
  out.flush();
  if (!out) {
    throw Error(Exit::io, concat("cannot write ", in_quotes(file_)))
        .hint("is there room, and may the folder be written?");
  }
}

std::optional<std::vector<DomainLoss>> MeasuredLosses::find(const std::string& missing) const {
  const auto at = known_.find(missing);
  if (at == known_.end())
    return std::nullopt;
  return at->second;
}

void MeasuredLosses::add(const std::string& missing, const std::vector<DomainLoss>& losses) {
  if (!file_.empty())
    append(Json{{"without", missing}, {"losses", nats_json(losses)}}.dump());
  known_[missing] = losses;
}

}  // namespace moe
