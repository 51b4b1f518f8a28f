// The Python beside moe bench report. The script is the one of tests/peers, so that it can be read
// and run alone.
#include "apps/bench/peer.h"

#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr const char* script =
#include "apps/report_counts.inl"
    ;

bool succeeds(const std::string& command) {
  const int status = std::system(command.c_str());
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

std::string python_with_h5py(const std::string& wanted) {
  const char* named = std::getenv("MOE_PYTHON");
  std::vector<std::string> all = {named ? named : "", "python3", "/usr/bin/python3"};
  if (!wanted.empty())
    all = {wanted};
  for (const std::string& p : all) {
    if (!p.empty() && succeeds(shell_quoted(p) + " -c 'import h5py, numpy' >/dev/null 2>&1"))
      return p;
  }
  if (!wanted.empty()) {
    throw Error(Exit::environment,
                concat("'", wanted, "' is not a Python that imports h5py and numpy"));
  }
  return "";
}

PeerCounts peer_counts(const std::string& python, const std::filesystem::path& folder,
                       const std::filesystem::path& trace, double budget) {
  const auto program = folder / "report_counts.py";
  const auto said = folder / "report_counts.json";
  std::ofstream(program) << script;
  if (!succeeds(concat(shell_quoted(python), " ", shell_quoted(program.string()), " ",
                       shell_quoted(trace.string()), " ", budget, " >",
                       shell_quoted(said.string())))) {
    throw Error(Exit::environment,
                concat(python, " did not count '", trace.string(), "'; its output is above"));
  }
  std::ifstream in(said);
  PeerCounts out;
  try {
    const auto all = nlohmann::json::parse(in);
    out.counts = all.at("counts").get<std::vector<std::vector<double>>>();
    out.wall.seconds = all.at("seconds").get<std::vector<double>>();
    const auto processor = all.at("processor").get<std::vector<double>>();
    out.processor = *std::ranges::min_element(processor);
  } catch (const nlohmann::json::exception& e) {
    throw Error(Exit::environment, concat(python, " said something else than counts: ", e.what()));
  }
  std::ranges::sort(out.wall.seconds);
  return out;
}

}  // namespace moe
