// What the formats that only count have in common: tables [layers][experts] as JSON lists or
// arrays.
#pragma once
#include <string>
#include <vector>

#include "lib/files/json_cursor.h"
#include "lib/files/number_array.h"
#include "lib/import/inputs.h"
#include "lib/import/sink.h"

namespace moe {

// [layers][experts] at the cursor, said as one step.
void say_count_lists(JsonCursor&, std::int64_t step, ImportSink&);
// An array [layers, experts] of counts; floats have to be whole.
void say_count_array(const NumberArray&, std::int64_t step, ImportSink&);
// One count out of an array, refused where it is NaN, negative or no whole number.
std::int64_t count_at(const NumberArray&, Index place);

}  // namespace moe
