"""Evaluate a checkpoint of a classifier of MMPretrain or of a detector of MMDetection."""

import argparse
from pathlib import Path

import mmengine
from arguments import add_run_arguments, run, run_config_of
from mmengine.dist import is_main_process
from mmengine.registry import METRICS

from gcp_mm.checkpoints import load_pretrained
from gcp_mm.checks import check_config, raise_errors, warnings_in
from gcp_mm.runtime import launch, unwrap


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_run_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out', help='write the predictions to this .pkl file, or the metrics to this .json file'
    )
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write images with the predictions drawn into this dir')
    parser.add_argument('--interval', type=int, default=1, help='draw every so many images')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show an image')
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.json')):
        parser.error(f'--out {args.out}: expected a file name that ends in .pkl or .json')
    return args


def draw_predictions(cfg, args):
    """Turn on the visualisation hook that every stock config of either framework has."""
    hook = cfg.default_hooks.visualization
    out_dir = str(Path(args.show_dir).resolve()) if args.show_dir else None
    if hook.type.endswith('DetVisualizationHook'):
        hook.update(draw=True, test_out_dir=out_dir)
    else:
        hook.update(enable=True, out_dir=out_dir)
    hook.update(show=args.show, wait_time=args.wait_time, interval=args.interval)


def dump_predictions(runner, path):
    """Add the metric that writes the predictions to a file; MMDetection's encodes masks."""
    scope = 'mmdet' if runner.default_scope.scope_name == 'mmdet' else 'mmengine'
    dump = dict(type='DumpDetResults' if scope == 'mmdet' else 'DumpResults', _scope_=scope)
    runner.test_evaluator.metrics.append(METRICS.build(dict(dump, out_file_path=path)))


def main():
    args = parse_args()
    cfg = run_config_of(args)
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        draw_predictions(cfg, args)
    findings = check_config(cfg, 'test')
    raise_errors(findings)

    def test(runner):
        for text in warnings_in(findings):
            runner.logger.warning(text)
        # mmengine only logs the keys that do not match, and evaluates random weights.
        load_pretrained(unwrap(runner.model), args.checkpoint, trust=args.trust)
        if args.out and args.out.endswith('.pkl'):
            dump_predictions(runner, args.out)
        metrics = runner.test()
        if args.out and args.out.endswith('.json') and is_main_process():
            mmengine.dump(metrics, args.out)

    launch(cfg, test)


if __name__ == '__main__':
    run(main)
