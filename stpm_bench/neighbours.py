"""Nearest neighbours and greedy k-centre selection: exact, in bounded memory."""

import torch
from tqdm import tqdm

# Rows of queries and of the bank multiplied at once: the products take 16 MB.
QUERIES, BANK = 1024, 4096
# Number of points that k_centre updates for every new centre; the others are updated later.
SHORTLIST = 4096


def nearest(queries: torch.Tensor, bank: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each query's Euclidean distance to its nearest row of `bank`, and that row's index.

    ||q - b||^2 is smallest where q.b - ||b||^2 / 2 is largest, so the search is one matrix product.
    That form suffers from cancellation, so it is used only to find the neighbour; the distance is
    then computed from the difference itself. A row is missed only in favour of one whose squared
    distance is within rounding (about 1e-6 of the largest squared norm) of the smallest, so centre
    the data first. Of rows at the same distance the first is taken, up to the same rounding.

    Args:
        queries: (Q, C) float32.
        bank: (B, C) float32, at least one row.

    Returns:
        (Q,) float32 and (Q,) int64.
    """
    distances = queries.new_empty(len(queries))
    indices = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    offsets = -bank.square().sum(1) / 2
    for start in range(0, len(queries), QUERIES):
        some = queries[start : start + QUERIES]
        best = some.new_full((len(some),), -torch.inf)
        found = indices[start : start + QUERIES]
        for first in range(0, len(bank), BANK):
            rows = slice(first, first + BANK)
            value, index = torch.addmm(offsets[rows], some, bank[rows].T).max(1)
            better = value > best
            best = torch.where(better, value, best)
            found.copy_(torch.where(better, index + first, found))
        distances[start : start + QUERIES] = (some - bank[found]).norm(dim=1)
    return distances, indices


def k_centre(
    points: torch.Tensor, count: int, first: int, title: str = "k-centre", progress: bool = False
) -> torch.Tensor:
    """Choose `count` rows of `points`: `first`, then each time the row farthest from all chosen.

    Gonzalez' greedy k-centre, PatchCore's algorithm 1; of rows equally far away the first is
    chosen, and none twice. The choice is the same as that of the plain loop, which reads all points
    for every centre. Here only a shortlist of the farthest points is updated for every centre. The
    other points are updated for several new centres in one matrix product, once the farthest point
    of the shortlist is no farther than they may be: distances only shrink, so the old distances are
    upper bounds.

    Args:
        points: (N, C) float32, centred, so that computing distances by a matrix product is accurate
            enough.
        count: 1 to N.
        title, progress: of the progress bar, and whether there is one.

    Returns:
        (count,) int64 indices in the order of the choice.
    """
    norms = points.square().sum(1)
    squared = torch.full_like(norms, torch.inf)  # to the nearest centre; -inf for a centre itself
    chosen = [first]
    met = 0  # how many of the centres all points have been compared with
    with tqdm(total=count, initial=1, desc=title, unit="centre", disable=not progress) as bar:
        while len(chosen) < count:
            centres = torch.tensor(chosen[met:], device=points.device)
            for start in range(0, len(points), BANK):
                rows = slice(start, start + BANK)
                reach = torch.addmm(-norms[centres] / 2, points[rows], points[centres].T).amax(1)
                squared[rows] = torch.minimum(squared[rows], norms[rows] - 2 * reach)
            squared[centres] = -torch.inf
            met = len(chosen)
            shortlist = squared.topk(min(SHORTLIST, len(points))).indices.sort().values
            near, near_norms, far = points[shortlist], norms[shortlist], squared[shortlist]
            others = far.min()  # no point outside the shortlist is farther
            farthest = int(squared.argmax())
            while len(chosen) < count:
                chosen.append(farthest)
                centre = points[farthest]
                to_centre = near_norms - 2 * (near @ centre) + norms[farthest]
                far = torch.minimum(far, to_centre)
                far[shortlist == farthest] = -torch.inf
                value, place = far.max(0)
                if not value > others:
                    break
                farthest = int(shortlist[place])
            bar.update(len(chosen) - bar.n)
    return torch.tensor(chosen, device=points.device)
