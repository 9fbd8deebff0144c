"""Say what a config's data are, and what is missing of them, before a job starts."""

import argparse
import sys
from contextlib import redirect_stdout

import gcp_mm  # noqa: F401  registers its datasets
from gcp_mm.engine import add_config_arguments, data_checks, read_config


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    complete = True
    for name, check in data_checks(read_config(parser.parse_args())):
        print(name, flush=True)  # before a check that may take minutes
        try:
            with redirect_stdout(sys.stderr):  # what the frameworks say meanwhile
                found = check()
        except (FileNotFoundError, ValueError) as error:
            found = f'MISSING {error}'
            complete = False
        print(f'  {found}')
    raise SystemExit(0 if complete else 1)


if __name__ == '__main__':
    main()
