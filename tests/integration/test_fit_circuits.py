"""The fit that made the shipped table, on its cheapest entries."""

import runpy

import pytest

from gcp_mm.ops.circuit import CIRCUITS
from tests.helpers.runs import ROOT

FIT = runpy.run_path(str(ROOT / 'tools/fit_circuits.py'))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'squarings', 'reach'), [('gram', 4, 4), ('covariance', 4, 2), ('gram', 3, 3)]
)
def test_fit_of_three_iterations(kind, squarings, reach):
    circuit = FIT['fit'](kind, 3, squarings, reach, 10, seed=0)
    assert len(circuit['a']) == squarings
    assert circuit == FIT['fit'](kind, 3, squarings, reach, 10, seed=0)
    for j, row in enumerate(circuit['b'][:-1], start=1):
        assert [b != 0 for b in row] == [i > j - reach for i in range(1, j + 1)]
    assert circuit['max_error_of_p'] < (1e-6 if squarings == 4 else 1e-4)


def test_table_holds_what_the_script_fits():
    assert [(kind, iterations) for kind, iterations, *_ in FIT['FITS']] == list(CIRCUITS)
    for kind, iterations, squarings, reach, _ in FIT['FITS']:
        circuit = CIRCUITS[kind, iterations]
        assert len(circuit.a) == squarings
        assert max(sum(b != 0 for b in row) for row in circuit.b[:-1]) == min(reach, squarings - 1)
