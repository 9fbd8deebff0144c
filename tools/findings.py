"""The table of findings that several tools print."""

import sys
from collections.abc import Iterable
from contextlib import redirect_stdout

from arguments import printable
from startup import Screen

from gcp_mm.checks import Finding

SIGNS = dict(ok='ok', warning='WARNING', error='ERROR', skipped='skipped')


def print_findings(findings: Iterable[Finding]) -> int:
    """Print a line for each finding as it comes; returns 1 if one of them is an error, else 0.

    What the frameworks print meanwhile goes to the standard error.
    """
    failed = False
    out = sys.stdout
    with redirect_stdout(Screen(sys.stderr)):
        for finding in findings:
            line = f'{finding.check:<11} {SIGNS[finding.status]:<7} {finding.text}'
            print(printable(line), file=out, flush=True)
            failed |= finding.status == 'error'
    return int(failed)
