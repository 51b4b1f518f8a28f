// What the parts of moe_gpu_check share: rows of the table that scripts/gpu-check.sh prints last,
// one a line on stdout, "row<TAB>what<TAB>measured<TAB>wanted<TAB>result".
#pragma once
#include <string>

#include "lib/backend/backend.h"
#include "lib/core/text.h"

namespace moe::gpu_check {

class Rows {
 public:
  void judge(const std::string& what, const std::string& measured, const std::string& wanted,
             bool good);
  void tell(const std::string& what, const std::string& measured);  // nothing is wanted of it
  void say(const std::string& line) const;                          // to stderr, for whoever waits
  bool good() const {
    return good_;
  }

 private:
  bool good_ = true;
};

std::string fixed(double v, int digits);

// once each, for the sanitizer: results are not looked at
void run_cases(const std::string& device, Rows&);
void verify(const std::string& device, Rows&);      // every case against `reference`
void same_bytes(const std::string& device, Rows&);  // every case twice
void ten_steps(const std::string& device, Rows&);   // ten fixed losses of a layer that trains
void speed(const std::string& device, bool small, Rows&);

std::string device_text();  // what the GPU is; empty without CUDA

}  // namespace moe::gpu_check
