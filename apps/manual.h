// Manual pages in the language of man(7), from the options and registries.
#pragma once
#include <string>

namespace CLI {
class App;
}  // namespace CLI

namespace moe {

// moe(1) of the program, moe-VERB(1) of a verb.
std::string manual_page(const CLI::App&);

}  // namespace moe
