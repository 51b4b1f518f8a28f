// Products of every row of one matrix with every row of another, in double: what Gram matrices and
// cosines are made of. A product is a sum of eight, one for each remainder of the column by eight,
// each in the order of the columns: the same bits for any number of threads and whatever the
// processor can do.
#pragma once
#include "lib/core/matrix.h"

namespace moe {

// (rows of a, rows of b) from (n,d) and (m,d). Throws Error(bug) where the columns differ.
Matrix<double> row_products(View<const float> a, View<const float> b);
Matrix<double> row_products(View<const double> a, View<const double> b);
// (n,n), of the rows of one matrix with each other.
Matrix<double> row_products(View<const float> a);
Matrix<double> row_products(View<const double> a);

}  // namespace moe
