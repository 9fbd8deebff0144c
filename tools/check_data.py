"""Check the datasets of a config, and report missing files."""

import argparse

from arguments import add_config_arguments, add_trust_argument, config_of, print_findings, run

from gcp_mm.checks import run_checks


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    add_trust_argument(parser)
    parser.add_argument(
        '--images', action='store_true', help='decode every image too, and list the bad ones'
    )
    parser.add_argument('--workers', type=int, help='processes for --images (default: CPUs)')
    args = parser.parse_args()
    level = 'images' if args.images else 'data'
    raise SystemExit(print_findings(run_checks(config_of(args), level=level, workers=args.workers)))


if __name__ == '__main__':
    run(main)
