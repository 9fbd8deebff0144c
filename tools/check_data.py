"""Say what a config's data are, and what is missing of them, before a job starts."""

import argparse
import sys
from contextlib import redirect_stdout

from arguments import add_config_arguments, add_trust_argument, config_of
from tqdm import tqdm

import gcp_mm  # noqa: F401  registers its datasets
from gcp_mm.checks import data_checks, find_bad_images


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    add_trust_argument(parser)
    parser.add_argument(
        '--images', action='store_true', help='decode every image too, and list the bad ones'
    )
    parser.add_argument('--workers', type=int, help='processes for --images (default: CPUs)')
    args = parser.parse_args()
    cfg = config_of(args)
    complete = True
    for name, check in data_checks(cfg):
        print(name, flush=True)  # before a check that may take minutes
        try:
            with redirect_stdout(sys.stderr):  # what the frameworks say meanwhile
                found = check()
        except (FileNotFoundError, ValueError) as error:
            found = f'MISSING {error}'
            complete = False
        print(f'  {found}')
    if args.images and complete:
        complete = not list_bad_images(cfg, args.workers)
    elif args.images:
        print('images: not decoded while something is missing')
    raise SystemExit(0 if complete else 1)


def list_bad_images(cfg, workers):
    """Print a line for each image that cannot be used; returns their number."""
    number = 0
    for path, reason in find_bad_images(cfg, workers):
        number += 1
        tqdm.write(f'BAD {path}: {reason}')
    print(f'images: {number:,} cannot be used' if number else 'images: all can be used')
    return number


if __name__ == '__main__':
    main()
