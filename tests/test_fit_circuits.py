"""The fit that made the shipped table, on its cheapest entries."""

import runpy

import pytest

from gcp_mm.ops.circuit import CIRCUITS

from .conftest import ROOT

FIT = runpy.run_path(str(ROOT / 'tools/fit_circuits.py'))


@pytest.mark.parametrize(('kind', 'squarings'), [('gram', 4), ('covariance', 4), ('gram', 3)])
def test_fit_of_three_iterations(kind, squarings):
    circuit = FIT['fit'](kind, 3, squarings, 10, seed=0)
    assert len(circuit['steps']) == squarings
    assert circuit == FIT['fit'](kind, 3, squarings, 10, seed=0)
    assert circuit['max_error_of_p'] < (1e-6 if squarings == 4 else 1e-4)


def test_table_holds_what_the_script_fits():
    assert [(kind, iterations) for kind, iterations, *_ in FIT['FITS']] == list(CIRCUITS)
    for kind, iterations, squarings, _ in FIT['FITS']:
        assert len(CIRCUITS[kind, iterations].a) == squarings
