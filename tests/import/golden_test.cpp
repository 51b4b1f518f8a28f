// Recordings of other engines against recorded traces: ../shared/golden/import, a folder a format
// and in it a folder a case. expected.json says what the import is given and what it has to make of
// it; expected.h5 has the datasets that have to come out. Refusals have to name what is wrong, and
// leave nothing behind.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/json.h"
#include "lib/import/import.h"
#include "lib/trace/golden.h"
#include "lib/trace/reader.h"
#include "tests/import/folder.h"
#include "tests/skip.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

// Optional cases: Parquet needs a library, and the facts allow its refusal by name.
bool may_be_refused(const Json& e) {
  return e.contains("may") && e["may"].contains("outcome");
}

ImportOptions options_of(const Json& e, const fs::path& folder) {
  ImportOptions o;
  for (const auto& input : e["inputs"])
    o.inputs.push_back(folder / input.get<std::string>());
  const Json& given = e["options"];
  const auto whole = [&](const char* name, int& value) {
    value = given.value(name, 0);
  };
  whole("experts", o.experts);
  whole("topk", o.topk);
  whole("layers", o.layers);
  whole("micro_batch", o.micro_batch);
  whole("pipeline", o.pipeline);
  whole("expert_parallel", o.expert_parallel);
  o.pad_id = given.value("pad_id", std::int64_t{-1});
  o.domain_by = given.value("domain_by", "");
  if (given.contains("config"))
    o.config = folder / given["config"].get<std::string>();
  return o;
}

std::string plain(std::string text) {
  for (char& c : text)
    c = c == '.' || c == '_' ? ' ' : char(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

double tolerance(const Json& e, const std::string& path, const Json& how) {
  if (how.is_object() && how.contains("abs_tol") && how["abs_tol"].is_number())
    return how["abs_tol"];
  if (path == "routing/weights" && e["weights"].is_object())
    return e["weights"].value("abs_tol", 1e-3);
  return path == "routing/logits" ? 0.02 : 1e-6;
}

bool is_real(const std::string& path) {
  return path == "routing/weights" || path == "routing/logits" || path == "model/routed_scale";
}

std::string difference(const GoldenFile& is, const GoldenFile& wanted, const std::string& path,
                       double allowed) {
  if (!is.has(path))
    return concat(path, " is missing");
  const auto a = is.reals(path);
  const auto b = wanted.reals(path);
  if (a.dims != b.dims) {
    const auto text = [](const std::vector<Index>& d) {
      std::string out;
      for (const Index n : d)
        out += concat(n, " ");
      return out;
    };
    return concat(path, " has the shape ", text(a.dims), "and not ", text(b.dims));
  }
  for (std::size_t i = 0; i < b.values.size(); ++i) {
    const double x = a.values[i];
    const double y = b.values[i];
    const bool equal =
        is_real(path) ? std::abs(x - y) <= allowed || (std::isnan(x) && std::isnan(y)) : x == y;
    if (!equal)
      return concat(path, " number ", i, " is ", x, " and not ", y);
  }
  return "";
}

void check_absent(const Json& e, const GoldenFile& is, std::uint64_t tokens) {
  for (const auto& path : e["absent"]) {
    const std::string name = path;
    if (name == "tokens/token_id") {
      const auto ids = is.integers(name);
      CHECK(std::all_of(ids.values.begin(), ids.values.end(),
                        [](std::int64_t id) { return id == 0xFFFFFFFF; }));
    } else if (name == "tokens" || name == "routing") {
      CHECK(tokens == 0);
    } else {
      CHECK(!is.has(name));
    }
  }
}

void check_trace(const Json& e, const fs::path& folder, const fs::path& out) {
  CHECK(verify_trace(out).empty());
  std::uint64_t tokens = 0;
  TraceHeader header;
  {
    const TraceReader reader(out);
    tokens = reader.tokens();
    header = reader.header();
  }
  const GoldenFile is(out);
  const GoldenFile wanted(folder / "expected.h5");
  CHECK(tokens == e["tokens"].get<std::uint64_t>());
  const std::string engine = e["engine"];
  if (engine != "unknown" && engine != "other")
    CHECK(header.engine == engine);
  if (e.contains("order"))
    CHECK(header.order == e["order"].get<std::string>());
  if (e.contains("capture_point"))
    CHECK(header.capture_point == e["capture_point"].get<std::string>());
  for (const auto& [name, how] : e["compare"].items()) {
    if (name == "domains/name") {
      CHECK(Json(header.domains) == e["domains"]);
      continue;
    }
    if (!wanted.has(name) || (name == "routing/logits" && !is.has(name)))
      continue;
    CHECK(difference(is, wanted, name, tolerance(e, name, how)) == "");
  }
  check_absent(e, is, tokens);
}

void check_refusal(const Json& e, const std::string& sentence) {
  for (const auto& word : e["error_mentions"])
    CHECK_THAT(plain(sentence), Catch::Contains(plain(word)));
  CHECK(sentence.find('\n') == sentence.npos);
}

void check_case(const fs::path& folder) {
  const Json e = read_json(folder / "expected.json");
  const test::Folder out;
  const fs::path target = out / "t.moetrace.h5";
  const bool refused = e["outcome"] == "refused";
  std::string sentence;
  ImportResult result;
  try {
    result = import_trace(options_of(e, folder), target, {}, false);
  } catch (const Error& error) {
    sentence = concat(error.what(), " | ", error.hint());
  }
  INFO(sentence);
  INFO(join(result.said, "\n"));
  if (refused || (may_be_refused(e) && !sentence.empty())) {
    CHECK(!sentence.empty());
    if (refused)
      check_refusal(e, sentence);
    CHECK(fs::is_empty(out.path()));
    return;
  }
  REQUIRE(sentence == "");
  check_trace(e, folder, target);
  for (const auto& topic : e["must_say"]) {
    const std::string said = plain(join(result.said, "\n"));
    CHECK_THAT(said, Catch::Contains(plain(topic)));
  }
}

}  // namespace

TEST_CASE("recordings of other engines become the recorded traces") {
  const fs::path root = test::shared("golden/import");
  if (!fs::exists(root))
    return test::skip(concat(root.string(), " is not there"));
  std::vector<fs::path> cases;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.path().filename() == "expected.json")
      cases.push_back(entry.path().parent_path());
  }
  std::sort(cases.begin(), cases.end());
  REQUIRE(!cases.empty());
  for (const fs::path& folder : cases) {
    DYNAMIC_SECTION(fs::relative(folder, root).string()) {
      check_case(folder);
    }
  }
}
