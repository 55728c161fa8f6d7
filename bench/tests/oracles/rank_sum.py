"""Writes rank_sum.csv: exact p-values of the two-sided rank-sum test, by enumerating every choice of the first sample.

Mid-ranks come from scipy.stats.rankdata. Two-sided: the share of choices whose rank sum is at least as far from its mean as the one
observed. Run: python3 bench/tests/oracles/rank_sum.py > bench/tests/oracles/rank_sum.csv
"""

import itertools
import random

from scipy.stats import rankdata


def p_values(a, b):
    ranks = [2 * rank for rank in rankdata(list(a) + list(b))]
    mean = len(a) * (len(ranks) + 1)
    observed = abs(sum(ranks[: len(a)]) - mean)
    distances = [abs(sum(choice) - mean) for choice in itertools.combinations(ranks, len(a))]
    return [sum(d >= limit for d in distances) / len(distances) for limit in (observed, max(distances))]


cases = [
    ([1, 1, 1], [2, 2, 2]),
    ([2] * 6, [4] * 6),
    ([2, 2, 2, 2, 4, 4], [4] * 6),
    ([4] * 7, [2] * 7),
    ([2, 2, 2, 4, 4, 4, 4], [4] * 7),
    ([1] * 6, [1] * 6),
    ([1, 2, 3], [4, 5, 6]),
    ([1], [2, 3, 4, 5, 6, 7]),
    (range(7), range(7, 14)),
    ([16] * 5 + [64] * 2, [16] * 7),
]
random.seed(20261125)
for sizes in [(3, 4), (5, 5), (6, 6), (7, 7), (8, 5), (7, 11)]:
    for values in (3, 5, 9, 1000):
        draw = lambda size, shift: [random.randrange(values) + shift for _ in range(size)]
        cases += [(draw(sizes[0], 0), draw(sizes[1], 0)), (draw(sizes[0], 0), draw(sizes[1], values // 2))]
print("# written by rank_sum.py")
print("a,b,p,least_p")
for a, b in cases:
    p, least = p_values(a, b)
    print(",".join([" ".join(map(str, a)), " ".join(map(str, b)), f"{p:.12f}", f"{least:.12f}"]))
