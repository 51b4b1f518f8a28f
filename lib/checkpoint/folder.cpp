// Writing a checkpoint folder, and removing old ones.
#include "lib/checkpoint/folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "lib/checkpoint/manifest.h"
#include "lib/core/error.h"
#include "lib/files/file.h"

namespace moe {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view temporary_prefix = ".tmp-checkpoint-";
constexpr std::size_t copy_bytes = std::size_t(1) << 20;  // at a time

fs::path temporary_of(const fs::path& run, std::int64_t step) {
  return run / fmt::format("{}{:08}-{}", temporary_prefix, step, ::getpid());
}

// Of a process that has a number still: whether it only waits for its parent to ask how it ended.
bool has_ended(int pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  const auto name_end = text.rfind(')');  // "PID (NAME) STATE ...", and a name may hold anything
  return name_end != text.npos && name_end + 2 < text.size() &&
         (text[name_end + 2] == 'Z' || text[name_end + 2] == 'X');
}

bool alive(std::string_view pid_text) {
  int pid = 0;
  const auto [end, code] = std::from_chars(pid_text.data(), pid_text.data() + pid_text.size(), pid);
  if (code != std::errc{} || end != pid_text.data() + pid_text.size() || pid <= 0)
    return false;
  // ours: of a namesake, as containers have
  return pid != ::getpid() && (::kill(pid, 0) == 0 || errno == EPERM) && !has_ended(pid);
}

}  // namespace

void remove_unfinished_checkpoints(const fs::path& run) {
  std::error_code ignored;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(run, ignored)) {
    const std::string name = entry.path().filename().native();
    if (name.starts_with(temporary_prefix) &&
        !alive(std::string_view(name).substr(name.rfind('-') + 1))) {
      stale.push_back(entry.path());
    }
  }
  // what cannot be removed is only in the way of nobody
  for (const fs::path& p : stale)
    fs::remove_all(p, ignored);
}

namespace {

// Puts `from` in the place of `to`, which exists; what was there is at `from` afterwards.
void exchange(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0)
    return;
  if (errno != EINVAL && errno != ENOSYS)
    io_failure("rename a finished checkpoint to", to, errno);
  const fs::path old =
      // a file system without exchange: a crash between the two leaves neither under the final name
      from.native() + "-old-0";
  if (::rename(to.c_str(), old.c_str()) != 0 || ::rename(from.c_str(), to.c_str()) != 0 ||
      ::rename(old.c_str(), from.c_str()) != 0) {
    io_failure("rename a finished checkpoint to", to, errno);
  }
}

}  // namespace

std::string checkpoint_name(std::int64_t step) {
  return fmt::format("checkpoint-{:08}", step);
}

CheckpointWriter::CheckpointWriter(fs::path run, std::int64_t step)
    : CheckpointWriter(std::move(run), step, "") {}

CheckpointWriter CheckpointWriter::alone(const fs::path& folder) {
  const fs::path plain = folder.has_filename() ? folder : folder.parent_path();
  return {plain.parent_path(), 0, plain.filename().native()};
}

CheckpointWriter::CheckpointWriter(fs::path run, std::int64_t step, std::string alone)
    : run_(std::move(run)), alone_(std::move(alone)), step_(step) {
  if (run_.empty())
    run_ = ".";
  if (step < 0)
    throw Error(Exit::bug, fmt::format("a checkpoint of step {} cannot be", step));
  std::error_code code;
  fs::create_directories(run_, code);
  if (code)
    io_failure("make the run folder", run_, code.value());
  remove_unfinished_checkpoints(run_);
  temporary_ = temporary_of(run_, step);
  fs::remove_all(temporary_, code);
  if (::mkdir(temporary_.c_str(), 0777) != 0)
    io_failure("make the folder", temporary_, errno);
}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;
  if (!finished_)
    fs::remove_all(temporary_, ignored);
}

void CheckpointWriter::record(const WrittenFile& f) {
  files_[f.name] = f;
}

void CheckpointWriter::text(const std::string& name, std::string_view content) {
  if (!plain_name(name) || name == manifest_name) {
    throw Error(Exit::bug,
                fmt::format("a checkpoint cannot hold a file named {}", in_quotes(name)));
  }
  OutputFile file(temporary_ / name, Index(content.size()));
  file.write(content);
  file.commit();
  record({name, file.written(), file.hash()});
}

void CheckpointWriter::copy(const std::string& name, const fs::path& from) {
  if (!inside_name(name) || name == manifest_name) {
    throw Error(Exit::bug,
                fmt::format("a checkpoint cannot hold a file named {}", in_quotes(name)));
  }
  const fs::path to = temporary_ / name;
  std::error_code code;
  fs::create_directories(to.parent_path(), code);
  if (code)
    io_failure("make the folder", to.parent_path(), code.value());
  InputFile in(from);
  OutputFile out(to, in.size());
  std::vector<char> buffer(copy_bytes);
  while (const std::size_t count = in.read(buffer))
    out.write(std::string_view(buffer.data(), count));
  out.commit();
  record({name, out.written(), out.hash()});
}

void CheckpointWriter::json(const std::string& name, const Json& j) {
  text(name, json_text(j));
}
void CheckpointWriter::tensors(const std::string& name, std::span<const NamedTensor> t) {
  record(write_safetensors(temporary_ / name, t));
}

void CheckpointWriter::model(std::span<const NamedTensor> t, Index shard_bytes) {
  for (const WrittenFile& f : write_sharded(temporary_, t, shard_bytes))
    record(f);
}

// Where something stands under the final name, or the file system cannot tell.
void CheckpointWriter::replace(const fs::path& final_name) {
  std::error_code code;
  const bool there = fs::exists(fs::symlink_status(final_name, code));
  if (there && !alone_.empty()) {
    throw Error(Exit::usage, fmt::format("{} exists", in_quotes(final_name)))
        .hint("another name for the new folder")
        .safe("it was not touched");
  }
  if (there)
    exchange(temporary_, final_name);
  else if (::rename(temporary_.c_str(), final_name.c_str()) != 0)
    io_failure("rename a finished checkpoint to", final_name, errno);
  if (there)
    fs::remove_all(temporary_, code);
}

// Files that others put here, and the folders of those that were copied.
void CheckpointWriter::adopt_others() {
  std::set<fs::path> folders;
  for (const auto& [name, file] : files_) {
    for (fs::path at = fs::path(name).parent_path(); !at.empty(); at = at.parent_path())
      folders.insert(at);
  }
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(temporary_, code)) {
    const std::string name = entry.path().filename().native();
    if (!files_.contains(name) && !folders.contains(name))
      record(adopt(entry.path()));
  }
  if (code)
    io_failure("read the folder", temporary_, code.value());
  for (const fs::path& folder : folders)
    sync_folder(temporary_ / folder);
}

fs::path CheckpointWriter::finish() {
  adopt_others();
  write_manifest(temporary_, step_, files_);
  sync_folder(temporary_);
  const fs::path final_name = run_ / (alone_.empty() ? checkpoint_name(step_) : alone_);
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, final_name.c_str(), RENAME_NOREPLACE) !=
      0)
    replace(final_name);
  finished_ = true;
  sync_folder(run_);
  return final_name;
}

std::vector<std::int64_t> checkpoint_steps(const fs::path& run) {
  std::vector<std::int64_t> steps;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(run, code)) {
    const std::string name = entry.path().filename().native();
    constexpr std::string_view prefix = "checkpoint-";
    std::int64_t step = -1;
    if (!name.starts_with(prefix) || name.size() < prefix.size() + 8)
      continue;
    const auto [end, error] =
        std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
    if (error == std::errc{} && step >= 0 && name == checkpoint_name(step))
      steps.push_back(step);
  }
  std::ranges::sort(steps, std::greater<>());
  return steps;
}

std::vector<fs::path> prune(const fs::path& run, int keep, const fs::path& trusted) {
  if (keep < 1) {
    throw Error(Exit::usage, fmt::format("{} checkpoints cannot be kept", keep))
        .hint("keep at least 1");
  }
  const auto steps = checkpoint_steps(run);
  std::vector<fs::path> removed;
  if (steps.size() <= std::size_t(keep))
    return removed;
  const auto works = [&](std::int64_t step) {
    const fs::path path = run / checkpoint_name(step);
    return (!trusted.empty() && path == trusted) || checkpoint_problem(path).empty();
  };
  const auto newest = std::ranges::find_if(steps, works);
  if (newest == steps.end())
    return removed;  // something may still be saved from them by hand
  for (std::size_t i = std::size_t(keep); i < steps.size(); ++i) {
    const fs::path path = run / checkpoint_name(steps[i]);
    if (steps[i] == *newest || path == trusted)
      continue;
    // under its final name it is whole to the last
    const fs::path out = temporary_of(run, steps[i]);
    std::error_code code;
    if (::rename(path.c_str(), out.c_str()) != 0)
      io_failure("remove the old checkpoint", path, errno);
    fs::remove_all(out, code);
    removed.push_back(path);
  }
  return removed;
}

}  // namespace moe
