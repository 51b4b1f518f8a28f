#include "lib/run/this_machine.h"

#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"
#include "lib/files/sha256.h"

namespace moe {
namespace {

constexpr Index largest = 4096;

std::string system_id() {
  try {
    return read_file("/etc/machine-id", largest);
  } catch (const Error&) {  // a container may have none
    std::array<char, 256> name{};
    return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
  }
}

// Of no use to who reads it: systemd asks that a machine-id is not given away.
std::string machine() {
  const std::string text = concat("moe run\n", system_id(), "\n", ::geteuid());
  Sha256 hash;
  hash.update({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  return hash.hex();
}

}  // namespace

void write_machine(const std::filesystem::path& folder) {
  write_json(folder / "machine.json", {{"machine", machine()}});
}

bool is_of_this_machine(const std::filesystem::path& folder) {
  const auto path = folder / "machine.json";
  if (!std::filesystem::exists(path))
    return false;
  const Json j = read_json(path);
  return j.is_object() && j.contains("machine") && j["machine"] == machine();
}

}  // namespace moe
