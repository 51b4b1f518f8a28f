// A small recording of each format, written here: what comes out, and what is said about it.
#include <catch2/catch.hpp>

#include "tests/import/made.h"

using namespace moe;
using namespace moe::test;

namespace {

ImportOptions with_experts(int n) {
  ImportOptions o;
  o.experts = n;
  return o;
}

const std::string dense_first =
    R"({"model_type": "qwen3_moe", "num_hidden_layers": 3, "mlp_only_layers": [0],)"
    R"("num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": true})";

ImportOptions with_config() {
  ImportOptions o;
  o.config = "config.json";
  return o;
}

std::string megatron_line(int step, int layer, const std::string& rows, int n) {
  return concat(R"({"step": )", step, R"(, "stage": "pre_dispatch", "block": "decoder", "layer": )",
                layer, R"(, "rank": 0, "num_tokens": )", n, R"(, "topk": 2, "top_indices": )", rows,
                "}\n");
}

// One pass of two tokens; four physical experts, of which 0 and 3 are one.
std::string recorder_file() {
  const Pickle ids = Pickle().tensor("Int", 0, {1, 2, 3});
  const Pickle record = Pickle().dict(
      {{Pickle().text("forward_pass_id"), Pickle().whole(3)},
       {Pickle().text("rank"), Pickle().whole(0)},
       {Pickle().text("input_ids"), Pickle().list({Pickle().whole(70), Pickle().whole(71)})},
       {Pickle().text("positions"), Pickle().list({Pickle().whole(0), Pickle().whole(1)})},
       {Pickle().text("extend_seq_lens"), Pickle().list({Pickle().whole(2)})},
       {Pickle().text("forward_mode"), Pickle().whole(1)},
       {Pickle().text("topk_ids_of_layer"), ids}});
  const Pickle root = Pickle().dict(
      {{Pickle().text("records"), Pickle().list({record})},
       {Pickle().text("last_physical_to_logical_map"), Pickle().tensor("Long", 1, {1, 4})}});
  return torch_file(
      root, {bytes_of<std::int32_t>({3, 1, -1, 0, 2, -1}), bytes_of<std::int64_t>({0, 1, 2, 0})});
}

}  // namespace

TEST_CASE("Megatron: records of a layer become steps, and a cut last line costs its step") {
  const std::string lines = megatron_line(4, 1, "[[0, 3], [1, 2]]", 2) +
                            megatron_line(4, 2, "[[2, 3], [0, 1]]", 2) +
                            megatron_line(5, 1, "[[0, 1]]", 1);
  const Files files{
      {"router_trace_rank0.jsonl", lines + R"({"step": 5, "stage": "pre_dispatch", "top_ind)"}};
  const Imported out = import_files(files, with_experts(4));
  REQUIRE(out.refusal == "");
  CHECK(out.result.format == "megatron-trace");
  CHECK(out.routes == "layer 1: 0,3 1,2; layer 2: 2,3 0,1");
  CHECK(out.result.header.order == "id_asc");
  CHECK(out.says("step 5 was left out"));
}

TEST_CASE("Megatron: micro-batches of one step, and a layer that the tracer skipped") {
  const Files files{{"router_trace_rank0.jsonl", megatron_line(0, 0, "[[1, 0]]", 1) +
                                                     megatron_line(0, 1, "[[1, 2]]", 1) +
                                                     megatron_line(0, 0, "[[2, 3]]", 1)}};
  const Imported out = import_files(files, with_experts(4));
  REQUIRE(out.refusal == "");
  CHECK(out.routes == "layer 0: 1,0 2,3; layer 1: 1,2 -,-");
  CHECK(out.result.header.order == "unknown");
  CHECK(out.says("step 0 has no record of layer 1"));
}

TEST_CASE("Megatron: a step of fewer choices does not make the trace narrower") {
  std::string narrow = megatron_line(1, 0, "[[3]]", 1);
  narrow.replace(narrow.find("\"topk\": 2"), 9, "\"topk\": 1");
  const Files files{{"router_trace_rank0.jsonl", megatron_line(0, 0, "[[1, 0]]", 1) + narrow}};
  const Imported out = import_files(files, with_experts(4));
  REQUIRE(out.refusal == "");
  CHECK(out.routes == "layer 0: 1,0 3,-");
  CHECK(out.result.header.layers.at(0).top_k == 2);
}

TEST_CASE("Megatron: stages of a pipeline are layers of one pass") {
  ImportOptions o = with_experts(4);
  o.pipeline = 2;
  o.layers = 2;
  const Files files{{"router_trace_rank0.jsonl", megatron_line(0, 0, "[[0, 1]]", 1)},
                    {"router_trace_rank1.jsonl", megatron_line(0, 0, "[[2, 3]]", 1)}};
  const Imported out = import_files(files, o);
  REQUIRE(out.refusal == "");
  CHECK(out.routes == "layer 0: 0,1; layer 1: 2,3");
}

TEST_CASE("vLLM: a NumPy file in base64, dense layers by config.json") {
  const std::string array =
      npy("|u1", {3, 3, 2},
          bytes_of<std::uint8_t>({0, 0, 1, 2, 3, 4, 0, 0, 5, 6, 7, 0, 0, 0, 1, 3, 2, 4}));
  const Files files{
      {"config.json", dense_first},
      {"responses.jsonl",
       concat(R"({"id": "c", "choices": [{"index": 0, "token_ids": [9, 8],)",
              R"("prompt_token_ids": [7, 6], "routed_experts": ")", base64(array), "\"}]}\n")}};
  const Imported out = import_files(files, with_config());
  REQUIRE(out.refusal == "");
  CHECK(out.result.format == "vllm-routed-experts");
  CHECK(out.routes == "layer 1: 1,2 5,6 1,3; layer 2: 3,4 7,0 2,4");
  CHECK(out.tokens == "7 6 9");
  CHECK(out.sequences == "0+3");
  CHECK(out.says("the last token of a request has no routes"));
}

TEST_CASE("SGLang: the shape comes from config.json, the start from the counts") {
  const auto ids = base64(bytes_of<std::int32_t>({0, 0, 1, 2, 3, 4, 0, 0, 5, 6, 7, 0}));
  const std::string line =
      concat(R"({"text": "", "output_ids": [5, 6], "meta_info": {"prompt_tokens": 3,)",
             R"("completion_tokens": 2, "routed_experts": ")", ids, "\"}}\n");
  const Imported out =
      import_files({{"config.json", dense_first}, {"r.jsonl", line}}, with_config());
  REQUIRE(out.refusal == "");
  CHECK(out.result.format == "sglang-routed-experts");
  CHECK(out.routes == "layer 1: 1,2 5,6; layer 2: 3,4 7,0");
  CHECK(out.tokens == "? 5");
  CHECK_THAT(import_files({{"r.jsonl", line}}).refusal, Catch::Contains("config.json"));
}

TEST_CASE("LMDeploy: lists are read, a key of a store is refused") {
  const auto line = [](const std::string& routes) {
    return concat(
        R"({"output_ids": [5], "meta_info": {"prompt_tokens": 2, "completion_tokens": 1,)",
        R"("routed_experts": )", routes, "}}\n");
  };
  const Imported out = import_files({{"r.jsonl", line("[[[0, 1]], [[2, 3]]]")}}, with_experts(4));
  REQUIRE(out.refusal == "");
  CHECK(out.result.format == "lmdeploy");
  CHECK(out.routes == "layer 0: 0,1 2,3");
  for (const std::string key :
       {"7f3a9c", "00ffffffffffffffffffffffffffffffffffffff0100000001000000"}) {
    CHECK_THAT(import_files({{"r.jsonl", line(concat("\"", key, "\""))}}).refusal,
               Catch::Contains("shared store"));
  }
  // a long text that is no whole number of ids is SGLang's, and damaged
  const std::string cut = base64(std::string(150, '\1'));
  CHECK_THAT(import_files({{"r.jsonl", line(concat("\"", cut, "\""))}}).refusal,
             Catch::Contains("no base64 of int32"));
}

TEST_CASE("Megatron's server: the prompt's rows are in the array already") {
  const Imported out = import_files(
      {{"r.jsonl", R"({"choices": [{"moe_topk_indices": [[[0, 1]], [[2, 3]]],)"
                   R"("prompt_moe_topk_indices": [[[0, 1]]]}], "usage": {"prompt_tokens": 1,)"
                   R"("completion_tokens": 2}})"}},
      with_experts(4));
  REQUIRE(out.refusal == "");
  CHECK(out.routes == "layer 0: 0,1 2,3");
}

TEST_CASE("OLMoE: the layer is the last axis") {
  const Imported out =
      import_files({{"c4_results.jsonl",
                     R"({"input_ids": [4, 5], "exp_ids": [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]})"}},
                   with_experts(8));
  REQUIRE(out.refusal == "");
  CHECK(out.routes == "layer 0: 0,2 4,6; layer 1: 1,3 5,7");
  CHECK(out.result.header.order == "key_desc");
}

TEST_CASE("the plain exchange: ids, weights, tokens, lengths and labels") {
  const std::string domains = [] {
    std::string out;
    for (const char c : std::string("ab"))
      out += std::string(1, c) + std::string(3, '\0');
    return out;
  }();
  const std::string zip = stored_zip(
      {{"expert_ids.npy", npy("<i4", {3, 1, 2}, bytes_of<std::int32_t>({0, 1, 2, -1, 3, 0}))},
       {"weights.npy", npy("<f4", {3, 1, 2}, bytes_of<float>({0.5f, 0.5f, 1, 0, 0.75f, 0.25f}))},
       {"token_ids.npy", npy("<i8", {3}, bytes_of<std::int64_t>({7, 8, 9}))},
       {"sequence_lengths.npy", npy("<i8", {2}, bytes_of<std::int64_t>({1, 2}))},
       {"domains.npy", npy("<U1", {2}, domains)}});
  const Imported out = import_files({{"t.npz", zip}}, with_experts(4));
  REQUIRE(out.refusal == "");
  CHECK(out.routes == "layer 0: 0,1 2,- 3,0");
  CHECK(out.weights == "0.5 0.5 1 0 0.75 0.25");
  CHECK(out.tokens == "7 8 9");
  CHECK(out.sequences == "0+1 1+2");
  CHECK(out.result.header.domains == std::vector<std::string>{"a", "b"});
  CHECK(out.result.header.weight_normalized);
}

TEST_CASE("torch files: a dict of tensors is read, what calls anything else is refused by name") {
  const std::string ids = bytes_of<std::int32_t>({0, 1, 2, 3});
  const Pickle dict =
      Pickle().dict({{Pickle().text("expert_ids"), Pickle().tensor("Int", 0, {2, 1, 2})}});
  const Imported out = import_files({{"t.pt", torch_file(dict, {ids})}}, with_experts(4));
  REQUIRE(out.refusal == "");
  CHECK(out.routes == "layer 0: 0,1 2,3");
  const Pickle evil =
      Pickle().dict({{Pickle().text("expert_ids"),
                      Pickle().raw("cposix\nsystem\n").tuple({Pickle().text("true")}).raw("R")}});
  CHECK_THAT(import_files({{"t.pt", torch_file(evil, {})}}).refusal,
             Catch::Contains("posix.system"));
  CHECK_THAT(import_files({{"t.pt", torch_file(dict, {ids.substr(0, 8)})}}).refusal,
             Catch::Contains("storage"));
}

TEST_CASE("transformers: choices and weights follow from logits as config.json says") {
  const std::string logits = bytes_of<float>({3, 1, 2, 0, 0, 1, 2, 3, 9, 9, 9, 9});
  const std::string zip =
      stored_zip({{"router_logits.npy", npy("<f4", {1, 3, 4}, logits)},
                  {"input_ids.npy", npy("<i8", {1, 3}, bytes_of<std::int64_t>({5, 6, 0}))},
                  {"attention_mask.npy", npy("<i8", {1, 3}, bytes_of<std::int64_t>({1, 1, 0}))}});
  const std::string config =
      R"({"model_type": "mixtral", "num_hidden_layers": 1, "num_local_experts": 4,)"
      R"("num_experts_per_tok": 2})";
  const Imported out = import_files({{"config.json", config}, {"r.npz", zip}}, with_config());
  REQUIRE(out.refusal == "");
  CHECK(out.routes == "layer 0: 0,2 3,2");
  CHECK(out.weights == "0.73 0.27 0.73 0.27");
  CHECK(out.tokens == "5 6");
  CHECK(out.says("1 padding rows were left out"));
}

TEST_CASE("SGLang's recorder: physical ids, passes and copies") {
  const std::string file = recorder_file();
  const Imported out = import_files({{"x.pt", file}});
  REQUIRE(out.refusal == "");
  CHECK(out.result.format == "sglang-recorder");
  CHECK(out.routes == "layer 0: 0,1 0,2");
  CHECK(out.tokens == "70 71");
  CHECK(out.result.header.layers[0].experts == 3);
  CHECK(out.says("mapped back with the last map"));
}

TEST_CASE("counts alone: a trace without tokens") {
  const Imported out = import_files({{"statistic.json", "[[1, 2, 3], [0, 0, 0], [4, 5, 6]]"}});
  REQUIRE(out.refusal == "");
  CHECK(out.result.format == "eplb-counts");
  REQUIRE(out.result.header.layers.size() == 2);
  CHECK(out.result.header.layers[1].index == 2);
  CHECK(out.result.header.counts.row(0)[5] == 6);
  CHECK(out.result.tokens == 0);
  CHECK(out.says("top-k is not in the file"));
}

TEST_CASE("ESFT: lines of all layers side by side, labels from folders") {
  ImportOptions o = with_experts(8);
  o.topk = 2;
  o.domain_by = "folder";
  const Imported out =
      import_files({{"law/rank_0/expert_weights_1.txt", "1\t2\t3\t4\t\t.5\t.2\t.4\t.1\n"},
                    {"law/rank_0/expert_weights_2.txt", "5\t6\t7\t0\t\t.5\t.2\t.4\t.1\n"}},
                   o);
  REQUIRE(out.refusal == "");
  CHECK(out.routes == "layer 1: 1,2 3,4; layer 2: 5,6 7,0");
  CHECK(out.result.header.domains == std::vector<std::string>{"law"});
}

TEST_CASE("llama.cpp's moe-trace tools are told apart by their lines") {
  const auto routes = [](const std::string& text) {
    const Imported out = import_files({{"t.txt", text}}, with_experts(8));
    CHECK(out.refusal == "");
    return out.routes;
  };
  CHECK(routes("-1,0,1,2\n0,0,1,2\n0,1,3,4\n1,0,5,6\n1,1,7,0\n") ==
        "layer 0: 1,2 5,6; layer 1: 3,4 7,0");
  CHECK(routes("0 0 0 1 2\n0 0 1 3 4\n1 0 0 5 6\n1 0 1 7 0\n") ==
        "layer 0: 1,2 5,6; layer 1: 3,4 7,0");
  CHECK(routes("phase,token,layer,rank,expert\nprefill,0,0,0,1\nprefill,0,0,1,2\n"
               "prefill,1,0,0,3\nprefill,1,0,1,4\nprefill,1,1,0,5\nprefill,1,1,1,6\n") ==
        "layer 0: 1,2 3,4; layer 1: -,- 5,6");
  CHECK(routes(
            bytes_of<std::int32_t>({0, 1, 2, 1, 2, 1, 1, 2, 3, 4, 0, 1, 2, 5, 6, 1, 1, 2, 7, 0})) ==
        "layer 0: 1,2 5,6; layer 1: 3,4 7,0");
}

TEST_CASE("what is no recording is refused, and so are ids that cannot be") {
  CHECK_THAT(import_files({{"a.json", "{\"a\": 1}"}}).refusal, Catch::Contains("no format"));
  CHECK_THAT(import_files({{"a.jsonl", ""}}).refusal, Catch::Contains("empty"));
  const auto megatron = [](const std::string& rows) {
    return import_files({{"router_trace_rank0.jsonl", megatron_line(0, 0, rows, 1)}},
                        with_experts(4))
        .refusal;
  };
  CHECK_THAT(megatron("[[0, 4]]"), Catch::Contains("expert 4"));
  CHECK_THAT(megatron("[[3, 3]]"), Catch::Contains("twice"));
  CHECK_THAT(megatron("[[0, 1], [2, 3]]"), Catch::Contains("num_tokens"));
}

TEST_CASE("rows are added to a trace that exists") {
  const Folder folder;
  const auto target = folder / "t.moetrace.h5";
  ImportOptions o = with_experts(4);
  o.append = true;
  for (int step = 0; step < 2; ++step) {
    o.inputs = {folder.put(concat(step, "/router_trace_rank0.jsonl"),
                           megatron_line(step, 1, step == 0 ? "[[0, 3]]" : "[[1, 2]]", 1))};
    import_trace(o, target, {}, false);
  }
  CHECK(verify_trace(target).empty());
  const TraceReader reader(target);
  CHECK(reader.tokens() == 2);
  CHECK(reader.steps().size() == 2);
  CHECK(reader.steps()[1].step == 1);
}

TEST_CASE("lines of tokens and of choices: everything that is known of each") {
  const std::string lines =
      R"({"sequence":0,"position":4,"token_id":7,"domain":"a","phase":"prefill",)"
      R"("experts":{"1":[2,0],"3":[1,-1]},"weights":{"1":[0.75,0.25],"3":[1,0]}})"
      "\n"
      R"({"sequence":1,"position":0,"experts":{"1":[3,1],"3":[0,2]},)"
      R"("weights":{"1":[0.5,0.5],"3":[0.5,0.5]}})"
      "\n";
  const Imported json = import_files({{"t.jsonl", lines}}, with_experts(4));
  REQUIRE(json.refusal == "");
  CHECK(json.result.format == "token-jsonl");
  CHECK(json.routes == "layer 1: 2,0 3,1; layer 3: 1,- 0,2");
  CHECK(json.weights == "0.75 0.25 0.5 0.5");
  CHECK(json.tokens == "7 ?");
  CHECK(json.sequences == "0+1 1+1");
  const std::string rows =
      "sequence,position,token_id,phase,layer,choice,expert,domain\n"
      "0,0,7,decode,1,0,2,\"a, \"\"b\"\"\"\n0,0,7,decode,1,1,0,\"a, \"\"b\"\"\"\n"
      "0,0,,decode,1,0,1,\"a, \"\"b\"\"\"\n0,0,,decode,1,1,3,\"a, \"\"b\"\"\"\n";
  const Imported csv = import_files({{"t.csv", rows}}, with_experts(4));
  REQUIRE(csv.refusal == "");
  CHECK(csv.result.format == "token-csv");
  CHECK(csv.routes == "layer 1: 2,0 1,3");
  CHECK(csv.result.header.domains == std::vector<std::string>{"a, \"b\""});
}

TEST_CASE("weights beside no expert, and weights below 0, are not those of a sum of one") {
  const auto normalized = [](const std::string& ids, const std::string& weights) {
    const Imported out =
        import_files({{"t.jsonl", concat(R"({"sequence":0,"position":0,"experts":{"0":)", ids,
                                         R"(},"weights":{"0":)", weights, "}}\n")}},
                     with_experts(4));
    REQUIRE(out.refusal == "");
    return out.result.header.weight_normalized;
  };
  CHECK(normalized("[1,2]", "[0.75,0.25]"));
  CHECK(!normalized("[1,-1]", "[0.75,0.25]"));
  CHECK(normalized("[1,-1]", "[1,0.25]"));
  CHECK(!normalized("[1,2]", "[1.5,-0.5]"));
}

TEST_CASE("lines that contradict one another are refused") {
  const auto refusal = [](const std::string& second) {
    return import_files({{"t.jsonl", R"({"sequence":1,"position":0,"domain":"a",)"
                                     R"("experts":{"0":[1]},"weights":{"0":[1]}})"
                                     "\n" +
                                         second + "\n"}},
                        with_experts(4))
        .refusal;
  };
  CHECK_THAT(refusal(R"({"sequence":0,"position":0,"experts":{"0":[1]},"weights":{"0":[1]}})"),
             Catch::Contains("goes on with sequence 0 behind sequence 1"));
  CHECK_THAT(refusal(R"({"sequence":1,"position":1,"domain":"a","experts":{"0":[1]}})"),
             Catch::Contains("has no weights in layer 0"));
  CHECK_THAT(refusal(R"({"sequence":1,"position":1,"experts":{"0":[1]},"weights":{"0":[1]}})"),
             Catch::Contains("its sequence began in 'a'"));
  CHECK_THAT(refusal(R"({"sequence":2,"experts":{"0":[1]},"weights":{"0":[1]}})"),
             Catch::Contains("no position"));
  CHECK_THAT(refusal(R"({"sequence":2,"position":0,"experts":{"0":[1,2]},"weights":{"0":[1]}})"),
             Catch::Contains("has 2 experts in layer 0, 1 weights"));
  CHECK_THAT(import_files({{"t.csv",
                            "sequence,position,token_id,phase,layer,choice,expert,domain\n"
                            "0,0,1,eval,0,1,2,\n"}})
                 .refusal,
             Catch::Contains("has choice 1 of layer 0, where choice 0 should follow"));
}
