"""The real share of spot machines: what the settings come to at every size."""

import pytest

from lodestream.deploy.spot import first_on_demand, spot_shares


def test_seventy_percent_of_two_to_fifty():
    shares = {one.workers: one for one in spot_shares(2, 50, 0.7)}
    assert (shares[50].machines, shares[50].spot) == (51, 36)
    assert shares[2].spot == 0
    assert shares[15].spot == 1, "the first spot machine"
    assert 14 not in shares
    assert round(shares[50].share, 3) == 0.706


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.3, 0.5, 0.7, 0.99, 1.0])
@pytest.mark.parametrize("most", [1, 2, 7, 50, 500])
def test_nothing_comes_nearer_at_the_largest_size(most, ratio):
    kept = first_on_demand(most, ratio)
    got = spot_shares(1, most, ratio)[-1]
    assert got.workers == most
    machines = most + 1
    possible = [0, *(machines - n for n in range(1, machines + 1))]  # the driver is never a spot machine
    assert abs(got.share - ratio) == pytest.approx(min(abs(spot / machines - ratio) for spot in possible))
    assert got.spot < machines
    assert kept is None or kept >= 1


def test_shares_grow_with_the_cluster():
    shares = [one.share for one in spot_shares(1, 200, 0.4)]
    assert shares == sorted(shares)
    assert len({one.workers for one in spot_shares(3, 3, 0.7)}) == 1
