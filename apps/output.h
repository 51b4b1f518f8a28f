// Options that many verbs share, added the same way everywhere: where the result goes, what
// computes, where tokens come from.
#pragma once
#include <string>
#include <vector>
#include "apps/command_line.h"

#include "analysis/table.h"
#include "lib/backend/backend.h"

namespace moe {

struct OutputOptions {
  std::string file, format;  // format: by name, or by the ending of the file, or text
  bool force = false;
  std::string screen = "text";  // the format where neither a file nor --format asks for one
  bool paged = false;           // on a terminal, through $PAGER
  bool to_screen() const {
    return file.empty() || file == "-";
  }
};
void add_output(CommandLine&, OutputOptions&, const char* what);
// throws Error(usage) for a name or an ending that is none
std::string format_for(const OutputOptions&);
// what write_report() would refuse, before the work is done
void check_output(const OutputOptions&);
void write_report(const Report&, const OutputOptions&);  // to the file, or stdout

struct DeviceOptions {
  std::string device = "cpu";
  int threads = 0;  // 0 = all
};
void add_device(CommandLine&, DeviceOptions&);       // --device and --threads
void add_device_name(CommandLine&, DeviceOptions&);  // --device alone
std::unique_ptr<Backend<float>> open_device(const DeviceOptions&);

void add_config(CommandLine&);                                                // --config
void add_data(CommandLine&, std::vector<std::string>& specs, bool required);  // --data, repeatable
// --special-tokens; empty = each tokenizer's own way
void add_special_tokens(CommandLine&, std::string& special);
// ISO 8601; SOURCE_DATE_EPOCH where it is set
std::string now_utc();

}  // namespace moe
