"""Run a script with gcp_mm imported first: ``python -m gcp_mm SCRIPT ARGUMENTS...``.

For scripts that need mmcv's operators before they read a config and its `custom_imports`, such as
MMDetection's tools/test.py.
"""

import runpy
import sys
from pathlib import Path

if __name__ == '__main__':
    if len(sys.argv) == 1:
        raise SystemExit('usage: python -m gcp_mm SCRIPT ARGUMENTS...')
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)  # as Python does for a script
    runpy.run_path(sys.argv[0], run_name='__main__')
