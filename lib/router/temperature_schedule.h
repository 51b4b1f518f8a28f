// The temperature of a router over training: constant, or from one value to another along the
// horizon. A pure function of the share of the horizon that is done, so a resumed run has the same
// temperatures.
#pragma once

namespace moe {

class Spec;

struct TemperatureSchedule {
  enum class Kind { exponential, linear, cosine };
  double from = 1, to = 1;
  Kind kind = Kind::exponential;
  double until = 1;  // share of the horizon after which it stays at `to`
  bool moves() const {
    return from != to;
  }
  double at(double done /*0..1*/) const;
};

// temperature=0.7, or temperature=2..0.5 with temperature_schedule=exponential|linear|cosine and
// temperature_until=; refuses what is not above 0.
TemperatureSchedule read_temperature_schedule(Spec&);

}  // namespace moe
