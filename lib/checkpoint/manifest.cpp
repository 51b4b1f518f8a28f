#include "lib/checkpoint/manifest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <nlohmann/json.hpp>

#include "lib/checkpoint/folder.h"
#include "lib/checkpoint/foreign_folder.h"
#include "lib/checkpoint/shards.h"
#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/files/foreign.h"

namespace moe {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view format_name = "moe-checkpoint";

bool present(const fs::path& p) {
  std::error_code none;
  return fs::exists(p, none);
}

// Of a folder without manifest: enough of a published model to be opened.
std::string plain_problem(const fs::path& folder) {
  if (!present(folder / "config.json"))
    return fmt::format("{} has no config.json", in_quotes(folder));
  if (!has_safetensors(folder)) {
    return fmt::format("{} has neither model.safetensors nor model.safetensors.index.json",
                       in_quotes(folder));
  }
  return {};
}

// Folders of other programs, said to be what they are; nothing where no kind is recognised.
void refuse_foreign_folder(const fs::path& folder) {
  const auto found = foreign_folder(folder);
  if (!found)
    return;
  throw Error(Exit::input, fmt::format("{} is {}; this program reads safetensors and GGUF",
                                       in_quotes(folder), found->kind))
      .hint(found->hint);
}
[[noreturn]] void refuse_file(const fs::path& path) {
  refuse_foreign(path, "a run or checkpoint folder");
  throw Error(Exit::input,
              fmt::format("{} is a file, not a run or checkpoint folder", in_quotes(path)))
      .hint("name the folder that it is in");
}

Checkpoint newest_of(const fs::path& run, const std::vector<std::int64_t>& steps) {
  Checkpoint found;
  for (const std::int64_t step : steps) {
    const fs::path path = run / checkpoint_name(step);
    const std::string problem = present(path / manifest_name)
                                    ? checkpoint_problem(path)
                                    : fmt::format("{} has no {}", in_quotes(path), manifest_name);
    if (problem.empty()) {
      found.path = path;
      found.step = step;
      return found;
    }
    found.notes.push_back(fmt::format("skipped {}: {}", checkpoint_name(step), problem));
  }
  std::string all;
  for (const std::string& note : found.notes)
    all += (all.empty() ? "" : "; ") + note;
  throw Error(Exit::input,
              fmt::format("the run {} has no valid checkpoint ({})", in_quotes(run), all))
      .hint("what is left of one can be opened by naming its folder without MANIFEST.json");
}

}  // namespace

bool plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos &&
         name.find('\0') == name.npos;
}

bool inside_name(std::string_view name) {
  while (true) {
    const std::size_t end = name.find('/');
    if (!plain_name(name.substr(0, end)))
      return false;
    if (end == name.npos)
      return true;
    name.remove_prefix(end + 1);
  }
}

WrittenFile adopt(const fs::path& path) {
  std::error_code none;
  if (!fs::is_regular_file(fs::symlink_status(path, none)))
    throw Error(Exit::bug, fmt::format("{} in a checkpoint is not a plain file", in_quotes(path)));
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0)
    io_failure("open", path, errno);
  const int synced = ::fsync(file);
  const int error = errno;
  ::close(file);
  if (synced != 0)
    io_failure("sync", path, error);
  return {path.filename().native(), Index(fs::file_size(path)), hash_file(path)};
}

void write_manifest(const fs::path& folder, std::int64_t step,
                    const std::map<std::string, WrittenFile>& files) {
  Json list = Json::object();
  for (const auto& [name, f] : files)
    list[name] = {{"bytes", f.bytes}, {"xxh3", fmt::format("{:016x}", f.hash)}};
  write_json(folder / manifest_name,
             {{"format", format_name}, {"version", 1}, {"step", step}, {"files", list}});
}

namespace {
Error bad(const fs::path& path, const std::string& why) {
  return Error(Exit::input, fmt::format("{} {}", in_quotes(path), why));
}
bool whole(const Json& j, const char* key) {
  return j.contains(key) && j[key].is_number_integer() && j[key] >= 0;
}
WrittenFile listed_file(const fs::path& path, const std::string& name, const Json& f) {
  if (!inside_name(name))
    throw bad(path, fmt::format("lists {}, which is not a file beside it", in_quotes(name)));
  if (!f.is_object() || !whole(f, "bytes") || !f.contains("xxh3") || !f["xxh3"].is_string())
    throw bad(path, fmt::format("gives no size and hash for {}", in_quotes(name)));
  const std::string& hex = f["xxh3"].get_ref<const std::string&>();
  WrittenFile file{name, f["bytes"].get<Index>(), 0};
  const auto [end, code] = std::from_chars(hex.data(), hex.data() + hex.size(), file.hash, 16);
  if (hex.size() != 16 || code != std::errc{} || end != hex.data() + 16)
    throw bad(path, fmt::format("has the hash {} for {}", in_quotes(hex), in_quotes(name)));
  return file;
}
}  // namespace

Manifest read_manifest(const fs::path& folder) {
  const fs::path path = folder / manifest_name;
  const Json json = read_json(path);
  if (!json.is_object() || json.value("format", Json()) != format_name)
    throw bad(path,
              fmt::format("is not the manifest of a checkpoint (format is not '{}')", format_name));
  if (!whole(json, "version") || json["version"] != 1) {
    throw bad(path, fmt::format("has version {}, this program reads 1",
                                json.value("version", Json()).dump()));
  }
  if (!whole(json, "step"))
    throw bad(path, "has no step");
  if (!json.contains("files") || !json["files"].is_object() || json["files"].empty())
    throw bad(path, "lists no files");
  Manifest manifest{.step = json["step"].get<std::int64_t>(), .files = {}};
  for (const auto& [name, f] : json["files"].items())
    manifest.files.emplace(name, listed_file(path, name, f));
  return manifest;
}

std::string checkpoint_problem(const fs::path& folder, bool hashes) {
  if (!present(folder / manifest_name))
    return plain_problem(folder);
  try {
    for (const auto& [name, f] : read_manifest(folder).files) {
      const fs::path path = folder / name;
      if (!present(path))
        return fmt::format("{} is missing", in_quotes(path));
      const Index size = InputFile(path).size();
      if (size != f.bytes)
        return fmt::format("{} has {} bytes, its manifest says {}", in_quotes(path), size, f.bytes);
    }
    if (hashes) {
      for (const auto& [name, f] : read_manifest(folder).files) {
        if (const std::uint64_t hash = hash_file(folder / name); hash != f.hash) {
          return fmt::format("{} has the hash {:016x}, its manifest says {:016x}",
                             in_quotes(folder / name), hash, f.hash);
        }
      }
    }
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

Checkpoint find_checkpoint(const fs::path& path) {
  std::error_code code;
  const auto status = fs::status(path, code);
  if (!fs::exists(status)) {
    throw Error(Exit::input, fmt::format("there is no run or checkpoint at {}{}", in_quotes(path),
                                         code && status.type() != fs::file_type::not_found
                                             ? ": " + code.message()
                                             : ""));
  }
  if (!fs::is_directory(status))
    refuse_file(path);
  if (present(path / "config.json") && !present(path / manifest_name) && !has_safetensors(path))
    refuse_foreign_folder(path);
  if (present(path / manifest_name) || present(path / "config.json")) {
    if (const std::string problem = checkpoint_problem(path); !problem.empty()) {
      throw Error(Exit::input,
                  fmt::format("the checkpoint {} cannot be used: {}", in_quotes(path), problem))
          .hint("name its run folder to take the newest whole checkpoint");
    }
    return {path, present(path / manifest_name) ? read_manifest(path).step : -1, {}};
  }
  const auto steps = checkpoint_steps(path);
  if (!steps.empty())
    return newest_of(path, steps);
  if (present(path / "run.json"))
    throw Error(Exit::input, fmt::format("the run {} has no checkpoint yet", in_quotes(path)));
  refuse_foreign_folder(path);
  throw Error(
      Exit::input,
      fmt::format(
          "{} is neither a run nor a checkpoint: it has no checkpoint-* folder and no config.json",
          in_quotes(path)));
}

}  // namespace moe
