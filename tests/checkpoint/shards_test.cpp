// Shards and an index that disagree, and shards without one: what is there is read, what is missing
// is an error where somebody needs it.
#include <catch2/catch.hpp>

#include "lib/checkpoint/safetensors.h"
#include "lib/checkpoint/shards.h"
#include "lib/core/text.h"
#include "tests/checkpoint/help.h"

using namespace moe;
using namespace moe::test;

namespace {

NamedTensor numbers(const std::string& name, float value) {
  return {name, Tensor::from_float(DType::f32, {2}, std::vector<float>{value, value + 1})};
}
float first(const Tensors& tensors, const char* name) {
  return tensors.get(name).view<float>()(0, 0);
}

void index(const Scratch& dir, const std::string& map) {
  put(dir / "model.safetensors.index.json", concat(R"({"weight_map":{)", map, "}}"));
}

std::string note(const Tensors& tensors) {
  REQUIRE(tensors.notes().size() == 1);
  return tensors.notes()[0];
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != text.npos;
}

}  // namespace

TEST_CASE("a shard that is missing is missed where its tensors are needed") {
  const Scratch dir;
  write_safetensors(dir / "x.safetensors", std::vector{numbers("a", 1)});
  index(dir, R"("a":"x.safetensors","b":"y.safetensors","c":"y.safetensors","d":"y.safetensors")");
  const Tensors t(dir.path);
  CHECK(first(t, "a") == 1);
  CHECK(t.absent() == std::vector<std::string>{"b", "c", "d"});
  CHECK(has(note(t), "puts 3 tensors ('b', 'c', ...) in"));
  CHECK(has(note(t), "y.safetensors', which does not exist"));
  const Outcome o = outcome([&] { (void)t.get("c"); });
  CHECK(o.code == Exit::input);
  CHECK(has(o.what, "puts the tensor 'c' in"));
}

TEST_CASE("of two shards with one tensor the index says which") {
  const Scratch dir;
  write_safetensors(dir / "x.safetensors", std::vector{numbers("a", 1)});
  write_safetensors(dir / "y.safetensors", std::vector{numbers("b", 2), numbers("a", 3)});
  index(dir, R"("a":"x.safetensors","b":"y.safetensors")");
  const Tensors t(dir.path);
  CHECK(first(t, "a") == 1);
  CHECK(has(note(t), "more than one shard holds the tensor 'a': the index says which"));
  index(dir, R"("a":"y.safetensors","b":"y.safetensors")");
  CHECK(first(Tensors(dir.path), "a") == 3);
}

TEST_CASE("a tensor that another shard holds than the index says is read there") {
  const Scratch dir;
  write_safetensors(dir / "x.safetensors", std::vector{numbers("a", 1)});
  write_safetensors(dir / "y.safetensors", std::vector{numbers("b", 2)});
  index(dir, R"("a":"y.safetensors","b":"x.safetensors")");
  const Tensors t(dir.path);
  CHECK(first(t, "a") == 1);
  CHECK(first(t, "b") == 2);
  CHECK(t.absent().empty());
  CHECK(t.notes().size() == 3);
}

TEST_CASE("shards without their index are read where all are there") {
  const Scratch dir;
  write_safetensors(dir / "model-00001-of-00003.safetensors", std::vector{numbers("a", 1)});
  write_safetensors(dir / "model-00003-of-00003.safetensors", std::vector{numbers("c", 3)});
  CHECK(shards_by_name(dir.path).missing ==
        std::vector<std::string>{"model-00002-of-00003.safetensors"});
  const Outcome o = outcome([&] { const Tensors t(dir.path); });
  CHECK(o.code == Exit::input);
  CHECK(has(o.what, "has 2 of 3 shards, no index, and no 'model-00002-of-00003.safetensors'"));
  write_safetensors(dir / "model-00002-of-00003.safetensors", std::vector{numbers("b", 2)});
  const Tensors t(dir.path);
  CHECK(first(t, "a") + first(t, "b") + first(t, "c") == 6);
  CHECK(has(note(t), "its 3 shards were read"));
  CHECK(has_safetensors(dir.path));
}
