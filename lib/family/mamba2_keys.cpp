#include "lib/family/mamba2_keys.h"

#include <nlohmann/json.hpp>

namespace moe {
namespace {

// No step is as long: JSON has no infinity.
constexpr double unbounded = 1e30;

// Infinity as transformers 5 writes it into JSON.
bool is_infinity(const Json& v) {
  return v.is_object() && v.value("__float__", "") == "Infinity";
}

}  // namespace

StepBounds step_bounds(const ConfigReader& r) {
  if (!r.has("time_step_limit"))
    return {};
  Json j = r.json();
  Json& limit = j["time_step_limit"];
  if (limit.is_array() && limit.size() == 2 && is_infinity(limit[1]))
    limit[1] = unbounded;
  const std::vector<double> pair = r.with(j).reals("time_step_limit");
  if (pair.size() != 2 || !(pair[0] >= 0) || !(pair[1] > 0) || pair[1] < pair[0]) {
    r.refuse(concat("time_step_limit is ", r.at("time_step_limit").dump(),
                    " and must be two numbers, the least and the most"));
  }
  return {pair[0], pair[1] < unbounded ? pair[1] : 0};
}

std::string mamba2_spec(const ConfigReader& r, const Mamba2Keys& keys, int head_dim,
                        const StepBounds& step) {
  if (r.positive(keys.heads) % r.positive(keys.groups) != 0) {
    r.refuse(concat(keys.heads, " is ", r.whole(keys.heads), " and ", keys.groups, " is ",
                    r.whole(keys.groups), ", and as many heads share each group"),
             "a multiple of the groups");
  }
  return concat("mamba2:heads=", r.positive(keys.heads), ",head_dim=", head_dim,
                ",groups=", r.positive(keys.groups), ",state=", r.positive(keys.state),
                ",kernel=", r.positive(keys.kernel), ",conv_bias=", r.flag(keys.conv_bias, true),
                ",dt_min=", step.least, ",dt_max=", step.most,
                r.flag(keys.proj_bias, false) ? ",proj_bias=1" : "");
}

StepBounds write_mamba2(const ModelConfig& c, Json& j, const Mamba2Keys& keys) {
  Spec s = mixer_options(c, "mamba2");
  j[keys.heads] = s.get("heads", 0);
  j[keys.head_dim] = s.get("head_dim", 0);
  j[keys.groups] = s.get("groups", 1);
  j[keys.state] = s.get("state", 128);
  j[keys.kernel] = s.get("kernel", 4);
  j[keys.conv_bias] = s.get("conv_bias", true);
  j[keys.proj_bias] = s.get("proj_bias", false);
  return {s.get("dt_min", 0.0), s.get("dt_max", 0.0)};
}

void write_step_bounds(const StepBounds& step, Json& j) {
  if (step.least > 0 || step.most > 0)
    j["time_step_limit"] = {step.least, step.most > 0 ? step.most : unbounded};
}

}  // namespace moe
