// moe_gpu_check PART [DEVICE]: what scripts/gpu-check.sh runs on a machine with a GPU. Needs
// nothing but core, backend, router, balance, layer and check. Exit code 0: all good; 1: something
// failed; 2: usage; 7: no device.
#include <cstdio>
#include <exception>

#include "lib/core/error.h"
#include "tests/gpu/rows.h"

namespace moe::gpu_check {

std::string fixed(double v, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, v);
  return text;
}
void Rows::judge(const std::string& what, const std::string& measured, const std::string& wanted,
                 bool good) {
  good_ = good_ && good;
  std::printf("row\t%s\t%s\t%s\t%s\n", what.c_str(), measured.c_str(), wanted.c_str(),
              good ? "ok" : "FAILED");
  std::fflush(stdout);
}
void Rows::tell(const std::string& what, const std::string& measured) {
  std::printf("row\t%s\t%s\t\t\n", what.c_str(), measured.c_str());
  std::fflush(stdout);
}
void Rows::say(const std::string& line) const {
  std::fprintf(stderr, "gpu-check: %s\n", line.c_str());
}

namespace {

int run(const std::string& part, const std::string& device) {
  Rows rows;
  if (part == "facts") {
    make_backend(device);
    rows.tell("device", device_text().empty() ? device : device_text());
  } else if (part == "cases") {
    run_cases(device, rows);
  } else if (part == "verify") {
    verify(device, rows);
  } else if (part == "same") {
    same_bytes(device, rows);
  } else if (part == "steps") {
    ten_steps(device, rows);
  } else if (part == "speed") {
    speed(device, false, rows);
  }
  // the same program at sizes a processor can do
  else if (part == "speed-small") {
    speed(device, true, rows);
  } else {
    throw Error(Exit::usage, concat("there is no part '", part, "'"))
        .hint("facts, cases, verify, same, steps, speed or speed-small");
  }
  return rows.good() ? 0 : 1;
}

}  // namespace
}  // namespace moe::gpu_check

int main(int argc, char** argv) {
  try {
    if (argc < 2 || argc > 3)
      throw moe::Error(moe::Exit::usage, "which part?").hint("moe_gpu_check PART [DEVICE]");
    return moe::gpu_check::run(argv[1], argc > 2 ? argv[2] : "cuda");
  } catch (const moe::Error& e) {
    std::fprintf(stderr, "moe_gpu_check: %s; try: %s\n", e.what(), e.hint().c_str());
    return int(e.code());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "moe_gpu_check: %s\n", e.what());
    return 70;
  }
}
