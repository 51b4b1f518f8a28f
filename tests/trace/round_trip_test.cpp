// What goes into a trace comes out: every field, wide ids, tiny and empty traces, resuming,
// recovering.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/sha256.h"
#include "tests/trace/sample.h"

using namespace moe;

namespace {
sample::Shape full_shape() {
  sample::Shape s;
  s.fields = sample::every_field();
  return s;
}
template <class Body>
Error error_of(Body body) {
  try {
    body();
  } catch (const Error& e) {
    return e;
  }
  FAIL("nothing was thrown");
  throw 0;
}
void check_header(const TraceHeader& a, const TraceHeader& b) {
  CHECK(a.command == b.command);
  CHECK(a.config == b.config);
  CHECK(a.seed == b.seed);
  CHECK(a.checkpoint_step == b.checkpoint_step);
  CHECK(a.vocab_size == b.vocab_size);
  CHECK(a.created_utc == b.created_utc);
  CHECK(a.engine_version == b.engine_version);
  CHECK(a.domains == b.domains);
  CHECK(a.pieces == b.pieces);
  CHECK(a.weight_kind == b.weight_kind);
  CHECK(a.order == b.order);
  REQUIRE(a.layers.size() == b.layers.size());
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    const TraceLayer& x = a.layers[l];
    const TraceLayer& y = b.layers[l];
    CHECK((x.index == y.index && x.experts == y.experts && x.top_k == y.top_k &&
           x.shared == y.shared && x.n_group == y.n_group));
    CHECK((x.topk_group == y.topk_group && x.score_fn == y.score_fn && x.norm_topk == y.norm_topk &&
           x.expert_bytes == y.expert_bytes));
    CHECK(x.routed_scale == y.routed_scale);
    CHECK((x.capacity_factor == y.capacity_factor ||
           (std::isnan(x.capacity_factor) && std::isnan(y.capacity_factor))));
  }
}
}  // namespace

TEST_CASE("sha-256 and xxh3 of known texts") {
  const std::string text = "abc";
  const std::string longer(200, 'a');
  const auto sha = [](const std::string& s) {
    Sha256 h;
    for (const char c : s)
      h.update({reinterpret_cast<const std::uint8_t*>(&c), 1});
    return h.hex();
  };
  CHECK(sha("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha(text) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha(longer) == "c2a908d98f5df987ade41b5fce213067efbcc21ef2240212a41e54b5e7c28ae5");
  CHECK(hash_bytes({}) == 0x2D06800538D394C2u);
}

TEST_CASE("every field comes back, over several commits and in windows of any place") {
  const sample::Folder folder;
  const auto s = full_shape();
  sample::write(folder / "a.moetrace.h5", s, 9000);
  CHECK_FALSE(std::filesystem::exists(folder / "a.moetrace.h5.part"));
  const TraceReader r(folder / "a.moetrace.h5");
  CHECK(r.state().complete);
  CHECK(r.state().warnings == std::vector<std::string>{});
  REQUIRE(r.tokens() == 9000);
  CHECK(r.state().commits == 3);
  CHECK(sample::difference(r, s, 0, 9000) == "");
  CHECK(sample::difference(r, s, 4095, 2) == "");
  CHECK(sample::difference(r, s, 8999, 1) == "");
  CHECK(sample::difference(r, s, 100, 0) == "");
  CHECK(r.sequences().size() == 282);
  CHECK(r.sequences()[281].length == 8);
  CHECK(r.sequences()[3].start == 96);
  CHECK(r.sequences()[4].domain == 1);
  CHECK(r.steps().size() == 94);
  CHECK((r.steps()[2].step == 20 && r.steps()[2].token_start == 192 &&
         r.steps()[2].num_tokens == 96 && r.steps()[2].phase == Phase::train));
  check_header(r.header(), sample::header(s));
  CHECK(verify_trace(folder / "a.moetrace.h5") == std::vector<std::string>{});
  CHECK_THROWS_AS(r.read(8999, 2, s.fields), Error);
}

TEST_CASE("fields that were not recorded are absent, and those not asked for stay empty") {
  const sample::Folder folder;
  sample::Shape s;
  s.fields = {false, false, false, false, false, false, false, false, false, false, false};
  sample::write(folder / "a.h5", s, 50);
  const TraceReader r(folder / "a.h5");
  CHECK_FALSE(r.fields().weights);
  CHECK(sample::difference(r, s, 0, 50) == "");
  const auto all = r.read(0, 50, sample::every_field());
  CHECK(all.layer[0].weight.empty());
  CHECK(all.layer[0].entropy.empty());
  CHECK(all.rank.empty());
}

TEST_CASE("an empty trace and one of a single token") {
  const sample::Folder folder;
  const auto s = full_shape();
  for (const std::uint64_t n : {0, 1}) {
    const auto path = folder / (n ? "one.h5" : "none.h5");
    sample::write(path, s, n);
    const TraceReader r(path);
    CHECK(r.state().complete);
    CHECK(r.tokens() == n);
    CHECK(sample::difference(r, s, 0, n) == "");
    CHECK(verify_trace(path) == std::vector<std::string>{});
  }
}

TEST_CASE("more experts than 16 bits count, and more choices than a byte has bits") {
  const sample::Folder folder;
  sample::Shape s{1, 70000, 11, {}};
  s.fields.kept = s.fields.logits = true;  // logits in chunks of fewer rows than usual
  sample::write(folder / "wide.h5", s, 30);
  const TraceReader r(folder / "wide.h5");
  CHECK(r.header().layers[0].experts == 70000);
  CHECK(sample::difference(r, s, 0, 30) == "");
}

TEST_CASE("layers of different sizes, constants and pair matrices") {
  const sample::Folder folder;
  sample::Shape s;
  s.layers = 2;
  TraceHeader h = sample::header(s);
  h.layers[1].experts = 4;
  h.layers[1].top_k = 1;
  h.wide_weights = true;
  h.weight_normalized = true;
  h.router_weight = {Matrix<float>(8, 5, 1.5f), Matrix<float>(4, 5, -2)};
  h.router_bias = {{1, 2, 3, 4, 5, 6, 7, 8}, {9, 10, 11, 12}};
  h.pairs = {{"expert_weight_cosine", {Matrix<float>(8, 8, 0.25f), Matrix<float>(4, 4, 0.5f)}},
             {"expert_output_cosine", {}}};
  TraceRows rows = sample::rows(s, 0, 3);
  rows.layer[1] = {};
  rows.layer[1].expert = Matrix<int>(3, 1, 3);
  rows.layer[1].weight = Matrix<float>(3, 1, 0.1f);
  {
    TraceWriter w(folder / "a.h5", h);
    w.append(rows);
    w.commit(7);
    w.pairs({{"expert_output_cosine", {Matrix<float>(8, 8, 0.75f), Matrix<float>(4, 4, 1)}}});
    CHECK_THROWS_AS(w.pairs({{"never_declared", {}}}), Error);
    w.finish();
  }
  const TraceReader r(folder / "a.h5");
  CHECK(r.header().router_weight == h.router_weight);
  CHECK(r.header().router_bias == h.router_bias);
  CHECK(r.header().weight_normalized);
  REQUIRE(r.header().pairs.size() == 2);
  CHECK(r.header().pairs[1].name == "expert_weight_cosine");
  CHECK(r.header().pairs[1].layer == h.pairs[0].layer);
  CHECK(r.header().pairs[0].layer[0] == Matrix<float>(8, 8, 0.75f));
  const auto back = r.read(0, 3, {});
  CHECK(back.layer[0].expert == rows.layer[0].expert);
  CHECK(back.layer[1].expert(2, 0) == 3);
  CHECK(back.layer[1].expert(2, 1) == -1);
  CHECK(back.layer[1].weight(0, 0) == 0.1f);
  CHECK(std::isnan(back.layer[1].entropy[0]));
  CHECK(back.layer[1].dropped(0, 0) == 0);
  CHECK(r.commits().at(0).step == 7);
}

TEST_CASE("a long configuration and text survive") {
  const sample::Folder folder;
  sample::Shape s;
  TraceHeader h = sample::header(s);
  h.config.assign(200000, 'x');
  h.config.back() = 'y';
  {
    TraceWriter w(folder / "a.h5", h);
    sample::append(w, s, 0, 10);
    w.finish();
  }
  const TraceReader r(folder / "a.h5");
  CHECK(r.header().config == h.config);
  CHECK(r.state().complete);
}

TEST_CASE(
    "the same input gives the same bytes, for any number of threads and any cut into appends") {
  const sample::Folder folder;
  const auto s = full_shape();
  const int before = threads();
  set_threads(1);
  sample::write(folder / "a.h5", s, 5000);
  set_threads(3);
  sample::write(folder / "b.h5", s, 5000);
  set_threads(before);
  CHECK(sample::first_difference(folder / "a.h5", folder / "b.h5") == "");
}

TEST_CASE("a name that exists is refused without force") {
  const sample::Folder folder;
  sample::Shape s;
  sample::write(folder / "a.h5", s, 10);
  const auto old = sample::bytes(folder / "a.h5");
  const Error e = error_of([&] { sample::write(folder / "a.h5", s, 20); });
  CHECK(e.code() == Exit::usage);
  CHECK(e.hint().find("--force") != std::string::npos);
  CHECK((sample::bytes(folder / "a.h5") == old));
  sample::write(folder / "a.h5", s, 20, true);
  CHECK(TraceReader(folder / "a.h5").tokens() == 20);
  { TraceWriter unfinished(folder / "b.h5", sample::header(s)); }
  CHECK(error_of([&] { sample::write(folder / "b.h5", s, 20); }).code() == Exit::usage);
  TraceWriter open(folder / "c.h5", sample::header(s));
  // still being written
  CHECK(error_of([&] { sample::write(folder / "c.h5", s, 20, true); }).code() == Exit::usage);
}

TEST_CASE("a recording goes on where it was cut back to, as if it had never stopped") {
  const sample::Folder folder;
  const auto s = full_shape();
  const std::uint64_t cut = GENERATE(0u, 96u, 4096u, 5000u);
  sample::Shape t = s;
  TraceWriterOptions options;
  options.fields = s.fields;
  const auto whole = [&](const char* name, std::uint64_t checkpoint) {
    TraceWriter w(folder / name, sample::header(s), options);
    sample::append(w, t, 0, checkpoint);
    w.commit(w.rows() ? std::int64_t((w.rows() - 1) / 96 * 10) : -1);
    sample::append(w, t, checkpoint, 9000);
    w.finish();
  };
  whole("uninterrupted.h5", cut);
  {
    TraceWriter w(folder / "a.h5", sample::header(s), options);
    sample::append(w, t, 0, cut);
    w.commit(w.rows() ? std::int64_t((w.rows() - 1) / 96 * 10) : -1);
    sample::append(w, t, cut, 7000);
    w.commit(1);
  }
  options.resume_rows = std::int64_t(cut);
  TraceHeader other = sample::header(s);
  other.command = "moe train --resume runs/a";
  {
    TraceWriter w(folder / "a.h5", other, options);
    CHECK(w.rows() == cut);
    CHECK(w.safe_rows() == cut);
    sample::append(w, t, cut, 9000);
    w.finish();
  }
  CHECK(verify_trace(folder / "a.h5") == std::vector<std::string>{});
  CHECK(sample::difference(TraceReader(folder / "a.h5"), s, 0, 9000) == "");
  CHECK(sample::first_difference(folder / "a.h5", folder / "uninterrupted.h5") == "");
  options.resume_rows = 10;
  CHECK(error_of([&] { TraceWriter(folder / "never.h5", other, options); }).code() == Exit::input);
}

TEST_CASE("an unfinished recording is read and recovered up to its last commit") {
  const sample::Folder folder;
  const auto s = full_shape();
  TraceWriterOptions options;
  options.fields = s.fields;
  std::uint64_t acknowledged = 0;
  options.acknowledged = [&](std::uint64_t rows) {
    acknowledged = rows;
  };
  {
    TraceWriter w(folder / "a.h5", sample::header(s), options);
    sample::append(w, s, 0, 6000);
  }
  CHECK(acknowledged == 4096);
  const auto part = folder / "a.h5.part";
  const auto before = sample::bytes(part);
  {
    const TraceReader r(part);
    CHECK_FALSE(r.state().complete);
    CHECK(r.tokens() == 4096);
    CHECK_FALSE(r.state().warnings.empty());
    CHECK(sample::difference(r, s, 0, 4096) == "");
  }
  CHECK_FALSE(verify_trace(part).empty());
  CHECK(recover_trace(part, folder / "out.h5", false) == 4096);
  CHECK((sample::bytes(part) == before));
  CHECK(verify_trace(folder / "out.h5") == std::vector<std::string>{});
  sample::write(folder / "prefix.h5", s, 4096);
  CHECK(sample::first_difference(folder / "out.h5", folder / "prefix.h5") == "");
  CHECK(error_of([&] { recover_trace(part, folder / "out.h5", false); }).code() == Exit::usage);
  CHECK(error_of([&] { recover_trace(part, part, true); }).code() == Exit::usage);
}
