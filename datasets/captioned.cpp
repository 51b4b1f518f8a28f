#include "datasets/captioned.h"

#include <algorithm>
#include <map>
#include <set>

#include "lib/core/error.h"
#include "lib/files/file.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr Index most_caption = 4096;  // bytes

// "red_car-12" is called "red car": what is between words is a blank, a number at the end is one of
// several.
std::string name_as_words(std::string text) {
  for (char& c : text)
    c = c == '_' || c == '-' ? ' ' : c;
  const std::size_t end = text.find_last_not_of("0123456789 ");
  return end == text.npos ? text : text.substr(0, end + 1);
}

std::string trimmed_line(std::string text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == text.npos)
    return "";
  text = text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
  std::ranges::replace(text, '\n', ' ');
  return text;
}

std::string folder_of(const fs::path& file) {
  return fs::absolute(file).parent_path().filename();
}

std::string hash_text(const Matrix<float>& rows) {
  return concat(hash_bytes(std::as_bytes(rows.flat())));
}

}  // namespace

namespace {

// The folder above a file, itself or further up, whose name is one of files; the file where there
// is none. Nothing above `top` is looked at.
fs::path folder_as_file(const fs::path& top, const fs::path& file,
                        bool (*is_file)(const fs::path&)) {
  fs::path at = top;
  for (const fs::path& part : file.lexically_relative(top).parent_path()) {
    at /= part;
    if (part.extension() == ".clip" && is_file(at))
      return at;
  }
  return file;
}

// Files below a folder, each once.
Paths files_or_clips(const fs::path& folder, bool (*is_file)(const fs::path&)) {
  Paths out;
  std::set<fs::path> clips;
  for (const fs::path& file : files_below(folder, "*")) {
    const fs::path as_file = folder_as_file(folder, file, is_file);
    if (is_file(as_file) && (as_file == file || clips.insert(as_file).second))
      out.push_back(as_file);
  }
  return out;
}

}  // namespace

CaptionedFiles captioned_files(const std::string& given, bool (*is_file)(const fs::path&),
                               const std::string& name, bool together) {
  const fs::path path = given;
  std::error_code code;
  CaptionedFiles out;
  const bool is_clip = path.extension() == ".clip" && is_file(path);
  out.folder = fs::is_directory(path, code) && !is_clip;
  if (!out.folder && !is_clip && !fs::is_regular_file(path, code)) {
    throw Error(Exit::input, concat("'", given, "' does not exist"))
        .hint(concat(name, ":path=FOLDER, or one file"));
  }
  const Paths files = out.folder ? files_or_clips(path, is_file) : Paths{path};
  for (const fs::path& file : files) {
    const fs::path below = out.folder ? file.lexically_relative(path) : file.filename();
    const bool deep = std::distance(below.begin(), below.end()) > 1 && !together;
    out.domains[deep ? below.begin()->string() : fs::absolute(path).stem().string()].push_back(
        file);
  }
  return out;
}

std::string caption_of(const fs::path& file, const std::string& how) {
  const fs::path beside = fs::path(file).replace_extension(".txt");
  std::error_code code;
  if (how == "auto" && fs::is_regular_file(beside, code)) {
    const std::string text = trimmed_line(read_file(beside, most_caption));
    if (text.empty())
      throw Error(Exit::input, concat(in_quotes(beside), " is empty, and should say what ",
                                      in_quotes(file.filename()), " shows"))
          .hint("write a caption into it, or caption=name");
    return text;
  }
  return name_as_words(how == "folder" ? folder_of(file) : file.stem().string());
}

void Captioned::read_options(Spec& spec, const std::string& name) {
  name_ = name;
  path_ = spec.get("path", "");
  caption_ = spec.choice("caption", {"auto", "name", "folder"});
  apart_ = spec.choice("apart", {"file", "folder"});
  question_ = spec.get("question", "what is it?");
  limit_ = spec.get("limit", 0, 0);
  if (path_.empty()) {
    throw Error(Exit::usage, concat("the dataset ", name, " was given no path"))
        .hint(concat(name,
                     ":path=FOLDER; its sub-folders are the domains, and the files' names "
                     "or .txt files beside them say what is asked for"));
  }
}

void Captioned::read(IsFile is_file, const ReadRows& rows, const char* what) {
  const CaptionedFiles found = captioned_files(path_, is_file, name_, apart_ == "folder");
  folder_ = found.folder;
  info_.questions = {apart_ == "folder" ? "caption, unseen folder" : "caption, unseen file"};
  if (apart_ == "folder") {
    std::set<std::string> folders;
    for (const auto& [name, paths] : found.domains) {
      for (const fs::path& file : paths)
        folders.insert(folder_of(file));
    }
    held_folders_ = tenth_of(folders);
  }
  for (const auto& [name, paths] : found.domains)
    add(name, paths, rows);
  tell_left_out(what);
  if (domains_.empty()) {
    throw Error(Exit::input, concat("'", path_, "' holds no ", what, " to train on"))
        .hint("moe data says which files are read");
  }
}

bool Captioned::is_held(const fs::path& file, const std::string& hash) const {
  return apart_ == "folder" ? held_folders_.contains(folder_of(file)) : in_tenth(hash);
}

void Captioned::add(const std::string& name, const Paths& files, const ReadRows& rows) {
  Domain domain;
  std::set<std::string> seen;
  std::string hashes;
  for (const fs::path& file : files) {
    if (limit_ > 0 && Index(domain.train.size() + domain.valid.size()) >= limit_)
      break;
    Item item;
    try {
      item = {rows(file), caption_of(file, caption_)};
    } catch (const Error& e) {
      if (!folder_ || e.code() != Exit::input)
        throw;
      if (broken_++ == 0)
        first_broken_ = e.what();
      continue;
    }
    const std::string hash = hash_text(item.rows);
    if (!seen.insert(hash).second) {
      ++copies_;
      continue;
    }
    const bool held = is_held(file, hash);
    hashes += hash + item.caption + "\n";
    (held ? domain.valid : domain.train).push_back(std::move(item));
  }
  if (domain.train.empty())
    return;
  domains_.push_back(std::move(domain));
  Index trained = 0;
  for (const Item& item : domains_.back().train)
    trained += rows_of(sample(item));
  add_domain(name, trained, Index(domains_.back().valid.size()));
  info_.content_hash.push_back(hash_bytes(std::as_bytes(std::span(hashes))));
}

void Captioned::tell_left_out(const char* what) {
  if (broken_ > 0) {
    info_.notes.push_back(concat(name_, ": ", broken_, " of the ", what,
                                 "s cannot be read and are left out; the first: ", first_broken_));
  }
  if (copies_ > 0)
    info_.notes.push_back(
        concat(name_, ": ", copies_, " ", what, "s that stood there before are left out"));
}

Sample Captioned::sample(const Item& item) const {
  return {.row_count = item.rows.rows(),
          .rows = item.rows,
          .question = question_ + " ",
          .answer = item.caption,
          .kind = 0};
}

Sample Captioned::train_sample(int domain, Rng& rng) const {
  const auto& all = domains_[std::size_t(domain)].train;
  return sample(all[std::size_t(rng.below(Index(all.size())))]);
}

Sample Captioned::valid_sample(int domain, Index n, Wanted) const {
  return sample(domains_[std::size_t(domain)].valid[std::size_t(n)]);
}

}  // namespace moe
