// Files with captions: what `images` and `sounds` share. Which files, in which domain, in which
// split, and what each is called.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "datasets/files.h"
#include "datasets/samples.h"

namespace moe {

// The files of a folder (or one file) by domain: sub-folders of the path.
struct CaptionedFiles {
  std::map<std::string, Paths> domains;
  bool folder = false;
};
// together: sub-folders are no domains. Where is_file() takes a name with the ending .clip, folders
// of such names are files: they are listed in place of what is in them. Throws Error(input) where
// there is no such path.
CaptionedFiles captioned_files(const std::string& path,
                               bool (*is_file)(const std::filesystem::path&),
                               const std::string& name, bool together = false);
// What a file is called: "auto" a .txt file beside it, or its name; "name"; "folder".
std::string caption_of(const std::filesystem::path&, const std::string& how);

class Captioned : public Samples {
 public:
  using IsFile = bool (*)(const std::filesystem::path&);
  // Rows of a file. Throws Error(input) naming it.
  using ReadRows = std::function<Matrix<float>(const std::filesystem::path&)>;

 protected:
  using Samples::Samples;
  // Reads path=, caption=, apart=, question= and limit= of the spec; the derived maker its own
  // before, then signal_is(), then read().
  void read_options(Spec&, const std::string& name);
  // `what`: "picture"; `rows` are at most those of the signal. A file that cannot be read is
  // refused where it was named itself, and told and left out of a folder.
  void read(IsFile, const ReadRows& rows, const char* what);

 private:
  struct Item {
    Matrix<float> rows;
    std::string caption;
  };
  struct Domain {
    std::vector<Item> train, valid;
  };
  bool is_held(const std::filesystem::path&, const std::string& hash) const;
  void add(const std::string& name, const Paths&, const ReadRows&);
  void tell_left_out(const char* what);
  Sample sample(const Item&) const;
  Sample train_sample(int domain, Rng&) const override;
  Sample valid_sample(int domain, Index n, Wanted) const override;

  std::string name_, path_, caption_, apart_, question_;
  Index limit_ = 0;
  bool folder_ = false;
  std::set<std::string> held_folders_;  // with apart=folder
  Index broken_ = 0, copies_ = 0;
  std::string first_broken_;
  std::vector<Domain> domains_;
};

}  // namespace moe
