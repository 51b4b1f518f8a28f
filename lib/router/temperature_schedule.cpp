#include "lib/router/temperature_schedule.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double coldest = 1e-6;

double temperature_of(const std::string& text, const std::string& whole,
                      const std::string& router) {
  double v = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (failed != std::errc() || end != text.data() + text.size() || !(v >= coldest) ||
      !std::isfinite(v)) {
    throw Error(Exit::usage, concat(router, ": temperature=", whole, ": '", text,
                                    "' is not a number of ", coldest, " or more"))
        .hint("temperature=0.7, or temperature=2..0.5 to move along training");
  }
  return v;
}

}  // namespace

double TemperatureSchedule::at(double done) const {
  const double x = until > 0 ? std::clamp(done / until, 0.0, 1.0) : 1;
  if (x == 0)
    return from;
  if (x == 1)
    return to;
  if (kind == Kind::linear)
    return from + (to - from) * x;
  if (kind == Kind::cosine)
    return to + (from - to) * 0.5 * (1 + std::cos(std::numbers::pi * x));
  return from * std::pow(to / from, x);
}

TemperatureSchedule read_temperature_schedule(Spec& spec) {
  const std::string text = spec.get("temperature", "1");
  const auto dots = text.find("..");
  TemperatureSchedule c;
  c.from = temperature_of(text.substr(0, dots), text, spec.name());
  c.to = dots == text.npos ? c.from : temperature_of(text.substr(dots + 2), text, spec.name());
  if (dots == text.npos)
    return c;
  const std::string kind = spec.choice("temperature_schedule", {"exponential", "linear", "cosine"});
  c.kind = kind == "linear"   ? TemperatureSchedule::Kind::linear
           : kind == "cosine" ? TemperatureSchedule::Kind::cosine
                              : TemperatureSchedule::Kind::exponential;
  c.until = spec.get("temperature_until", 1.0, 0.0);
  if (c.until > 1) {
    throw Error(Exit::usage, concat(spec.name(), ": temperature_until=", c.until,
                                    " is a share of the run and cannot pass 1"))
        .hint("temperature_until=0.8");
  }
  return c;
}

}  // namespace moe
