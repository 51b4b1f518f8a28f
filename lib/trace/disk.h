// What the writing protocol needs from the file system, each call checked.
#pragma once
#include <filesystem>

namespace moe {

void sync_file(const std::filesystem::path&);       // fsync
void sync_folder_of(const std::filesystem::path&);  // fsync of the folder that holds the name
// rename, then fsync of the folder
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);
// " (12.5 MB free)", or nothing where it cannot be known
std::string free_space(const std::filesystem::path&);

// Held while a trace is being written; released by the system when the writer dies. Readers take no
// such lock.
class WriteLock {
 public:
  // makes the file; throws Error(usage) where another process writes it
  explicit WriteLock(const std::filesystem::path&);
  ~WriteLock();
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;

 private:
  int fd_;
};

// A mark outside the file's bytes (an extended attribute: it does not travel with a download or a
// copy) that this user's own writer finished a file of just this size and time. Where the file
// system has none, every file counts as foreign.
void mark_own(const std::filesystem::path&);
bool is_own(const std::filesystem::path&);

}  // namespace moe
