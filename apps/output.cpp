#include "apps/output.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cstdlib>
#include <ctime>

#include "analysis/report/render.h"
#include "apps/terminal.h"
#include "lib/core/parallel.h"

namespace moe {

void add_output(CLI::App& cli, OutputOptions& o, const char* what) {
  cli.add_option("-o,--output", o.file, std::string(what) + "; its ending picks the format; - is stdout");
  cli.add_option("--format", o.format, "text, md, csv, json or html");
  cli.add_flag("--force", o.force, "replace a file that exists");
}

void write_report(const Report& report, const OutputOptions& o) {
  std::string format = o.format.empty() ? std::string(format_of(o.file)) : o.format;
  if (format.empty()) format = "text";
  const auto& renderer = renderers().at(format);
  const bool to_screen = o.file.empty() || o.file == "-";
  RenderOptions options;
  options.width = to_screen ? terminal_width(stdout) : 100;
  options.colour = to_screen && !Style::of(stdout).plain.empty();
  write_result(o.file, renderer.make(report, options), o.force);
  if (!to_screen) note(fmt::format("wrote {}", o.file));
}

void add_device(CLI::App& cli, DeviceOptions& o) {
  cli.add_option("--device", o.device, "what computes: moe list devices")->capture_default_str()->envname("MOE_DEVICE");
  cli.add_option("--threads", o.threads, "threads of the host; 0 = all cores")->capture_default_str()->check(CLI::Range(0, 1024))->envname("MOE_THREADS");
}
std::unique_ptr<Backend<float>> open_device(const DeviceOptions& o) {
  if (o.threads > 0) set_threads(o.threads);
  return make_backend(o.device);
}

void add_config(CLI::App& cli) {
  static std::string file;  // read by arguments() before CLI11 sees it
  cli.add_option("--config", file, "a TOML file with options of this verb; the command line wins");
}
void add_data(CLI::App& cli, std::vector<std::string>& specs, bool required) {
  auto* option = cli.add_option("--data", specs, "where tokens come from, NAME:key=value,...; may be given again: moe list datasets");
  option->expected(1)->take_all();
  if (required) option->required();
}

std::string now_utc() {
  std::time_t now = std::time(nullptr);
  if (const char* epoch = std::getenv("SOURCE_DATE_EPOCH")) now = std::time_t(std::atoll(epoch));
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now));
}

}  // namespace moe
