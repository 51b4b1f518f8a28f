// The texts that a spec names, before any tokenizer: what the datasets `text` and `system` are made
// of, and what a tokenizer is trained on.
#pragma once
#include <functional>

#include "datasets/stream.h"

namespace moe {

using DomainSink = std::function<void(DomainText&&)>;

struct TextOptions {
  std::filesystem::path path;
  std::string glob, domain, limit;
  Reading reading;
  SpecialText special;
  bool whole = false;        // all of it is for split=valid
  bool from_input() const {  // path=-: the standard input, read once a process
    return path == "-";
  }
};
TextOptions text_options(Spec&);  // calls done()
// Domain by domain, those without a document among them; throws Error where all are.
void text_domains(const TextOptions&, const DomainSink&);

struct SystemOptions {
  std::string root;
  Index bytes = 0;  // of a domain, at most
  SpecialText special;
};
SystemOptions system_options(Spec&);  // calls done()
void system_domains(const SystemOptions&, const DomainSink&);

// The option `special` of a spec: own, text or ids. It is part of the resolved spec only where it
// was given.
SpecialText special_option(Spec&);

// The specs with special= set where they read text and leave it open.
std::vector<std::string> with_special(const std::vector<std::string>& specs,
                                      const std::string& special);
// The domains of those specs that name text, in their order.
void each_text_domain(const std::vector<std::string>& specs, const DomainSink&);
// Calls `each` for every stretch of text that training reads of these specs; those that name no
// text give none.
void each_training_text(const std::vector<std::string>& specs,
                        const std::function<void(std::string_view)>& each);

}  // namespace moe
