// Formulas on counts and joint counts: what the definitions of docs/metrics.md come down to once
// the trace is counted. Worked example throughout: counts J = {{3,1},{0,4}} (rows: label, columns:
// expert), N = 8.
#pragma once
#include "lib/core/matrix.h"

namespace moe {

using Counts = Matrix<std::int64_t>;

double entropy_bits(std::span<const std::int64_t> counts);  // {4,4}: 1; nothing: 0
std::vector<std::int64_t> column_sums(const Counts&);       // {3,5}
std::vector<std::int64_t> row_sums(const Counts&);          // {4,4}

// Plug-in mutual information of row and column in bits: J: 0.5488; independent: 0; no counts: NaN
double mutual_information_bits(const Counts&);
// Mutual information less what rows and columns of these sums share at random, over the mean of
// their entropies less the same (Vinh, Epps, Bailey 2010): 1 = the same partition, 0 on average at
// random.
// {{2,0},{0,2}}: 1; {{1,1},{1,1}}: -1/2; one row or one column in use, or nothing: 0
double adjusted_mutual_information(const Counts&);
// Pairs of tokens in one row and one column, less what rows and columns of these sums share at
// random, over the mean of the pairs in rows and in columns less the same (Hubert and Arabie 1985).
// {{2,0},{0,2}}: 1; {{1,1},{1,1}}: -1/2; nothing to adjust (all in one, or each alone): 0
double adjusted_rand(const Counts&);
// sum over rows of the largest cell, over the total (crosslayer_predictability). J: (3+4)/8 =
// 0.875; no counts: NaN
double best_guess_share(const Counts&);
// domain_max_lift: max q_row(col)/q(col) over columns that were used. J: column 0: (3/4)/(3/8) = 2;
// no counts: NaN
double max_lift(const Counts&);
// domain_tv: (rows,rows), half the L1 distance of the rows' shares. J: 0.5 (|3/4-0|+|1/4-1|) =
// 0.75. Rows without counts: NaN
Matrix<double> total_variation(const Counts&);

// Every row that has counts weighs the same, however many it has.
// (rows,columns) of all shares of a column, those of each row. J: column 0: (3/4, 0): {1, 0};
// column 1: (1/4, 1): {0.2, 0.8}. A row without counts, a column without any: NaN
Matrix<double> balanced_shares(const Counts&);
// Information of row and column where every row is as likely. J: H(3/8, 5/8) - H(1/4)/2 = 0.5488;
// no counts: NaN
double balanced_information_bits(const Counts&);
// (rows,rows) Jensen-Shannon divergence of the rows' shares in bits. J: 0.5488 off the diagonal,
// the balanced information of the two. Rows without counts: NaN
Matrix<double> jensen_shannon_bits(const Counts&);

// Pair counts N_ij of one layer, diagonal N_i, over T tokens. N = {{5,2},{2,4}}, T = 8:
// P(1|0) = 2/5; N_i = 0: row 0; diagonal 1
Matrix<double> coactivation_conditional(const Counts& pairs);
// ln(2*8/20)/-ln(2/8) = -0.1610
Matrix<double> coactivation_npmi(const Counts& pairs, std::int64_t tokens);
// 2*8/(5*4) = 0.8; none: 0
double coactivation_max_lift(const Counts& pairs, std::int64_t tokens);

// R^2 of the least-squares line of y on x over pairs i < j of two (E,E) matrices (gate_expert_r2).
// Fewer than 3 pairs: NaN
double pair_r2(View<const float> x, View<const float> y);

}  // namespace moe
