#include "apps/output.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdlib>
#include <ctime>

#include "analysis/report/render.h"
#include "apps/ranks.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/files/file.h"

namespace moe {

void add_output(CommandLine& cli, OutputOptions& o, const char* what) {
  cli.add_option("-o,--output", o.file,
                 std::string(what) + "; its ending picks the format; - is stdout")
      .type_name("FILE");
  cli.add_option("--format", o.format,
                 "brief, text, md, csv, json, jsonl or html; default: by the ending of -o, or text")
      .type_name("NAME");
  cli.add_flag("--force", o.force, "replace a file that exists");
}

std::string format_for(const OutputOptions& o) {
  if (!o.format.empty())
    return std::string(renderers().at(o.format).name);
  if (o.to_screen())
    return o.screen;
  const std::string_view format = format_of(o.file);
  if (format.empty()) {
    throw Error(Exit::usage, concat("the name '", o.file, "' does not say which format is meant"))
        .hint("an ending such as .html, .md, .csv, .json or .txt, or --format");
  }
  return std::string(format);
}

void check_output(const OutputOptions& o) {
  format_for(o);
  if (!o.to_screen())
    refuse_existing(o.file, o.force);
}

void write_report(const Report& report, const OutputOptions& o) {
  const auto& renderer = renderers().at(format_for(o));
  const bool to_screen = o.to_screen();
  RenderOptions options;
  options.width = to_screen ? terminal_width(stdout) : 100;
  options.colour = to_screen && !Style::of(stdout).plain.empty();
  const std::string text = renderer.make(report, options);
  if (to_screen && o.paged)
    show_in_pager(text);
  else
    write_result(o.file, text, o.force);
  if (!to_screen)
    note(fmt::format("wrote {}", o.file));
}

void add_device_name(CommandLine& cli, DeviceOptions& o) {
  cli.add_option("--device", o.device, "what computes: moe list devices")
      .type_name("SPEC")
      .show_default()
      .environment("MOE_DEVICE");
}
void add_device(CommandLine& cli, DeviceOptions& o) {
  add_device_name(cli, o);
  cli.add_option("--threads", o.threads, "threads of the host; 0 = all cores")
      .show_default()
      .check(whole(0, 1024))
      .environment("MOE_THREADS");
}
// Libraries that make code while they run die of a signal where they get no memory for it.
void refuse_little_memory() {
  constexpr std::size_t needed = std::size_t(256) << 20;
  void* at = ::mmap(nullptr, needed, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    throw Error(Exit::memory, concat("this process may not take ", bytes_text(double(needed)),
                                     " of addresses more, which models need to be computed"))
        .hint("a higher ulimit -v");
  }
  ::munmap(at, needed);
}

std::unique_ptr<Backend<float>> open_device(const DeviceOptions& o) {
  refuse_little_memory();
  if (o.threads > 0)
    set_threads(o.threads);
  else
    share_threads();
  auto made = make_backend(device_of_rank(o.device));
  if (const std::string notice = made->notice(); !notice.empty())
    note(notice);
  return made;
}

void add_config(CommandLine& cli) {
  static std::string file;  // read by arguments() before CLI11 sees it
  cli.add_option("--config", file, "a TOML file with options of this verb; the command line wins")
      .type_name("FILE");
}
void add_data(CommandLine& cli, std::vector<std::string>& specs, bool required) {
  Option option = cli.add_option(
      "--data", specs,
      "where tokens come from, NAME:key=value,...; may be given again: moe list datasets");
  option.repeatable().type_name("SPEC");
  if (required)
    option.required();
}

void add_special_tokens(CommandLine& cli, std::string& special) {
  cli.add_option("--special-tokens", special,
                 "what the text of a special token, as <|endoftext|>, becomes in text data: its "
                 "id, or ordinary text; default: as the tokenizer's own library does")
      .type_name("text|ids")
      .check(one_of({"text", "ids"}));
}

std::string now_utc() {
  std::time_t now = std::time(nullptr);
  if (const char* epoch = std::getenv("SOURCE_DATE_EPOCH"))
    now = std::time_t(std::atoll(epoch));
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now));
}

}  // namespace moe
