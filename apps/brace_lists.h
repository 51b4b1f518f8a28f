// What a shell makes of a spec that was not quoted: bash writes "--data=text:glob={a,b}" as two
// options, and ends the command at a ";". Both leave something that may parse.
#pragma once
#include <string>
#include <vector>

namespace moe {

// A sentence for each two words beside each other, "--data=NAME:..." or "NAME:...", whose specs
// differ in the value of one option alone, as a brace list that the shell took apart would leave
// them. Paths are excepted: they mean the same either way.
std::vector<std::string> brace_list_notes(const std::vector<std::string>& words);
// What to do about a word that nobody asked for, where it looks like part of a spec; or "".
std::string brace_list_hint(const std::string& word);

}  // namespace moe
