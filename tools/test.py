"""Evaluate a checkpoint of a classifier of MMPretrain or of a detector of MMDetection."""

import argparse
import json
from pathlib import Path

from arguments import add_run_arguments, run, run_config_of

from mmengine.dist import is_main_process
from mmengine.registry import METRICS

from gcp_mm._io import check_writable, plain, write_atomically
from gcp_mm.checkpoints import load_pretrained
from gcp_mm.checks import check_config, raise_errors, warnings_in
from gcp_mm.runtime import launch, set_tta, unwrap


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_run_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out', help='write the predictions to this .pkl file, or the metrics to this .json file'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='merge the predictions of several views of an image: by tta_model and tta_pipeline of '
        'the config or, without them, of the image and its mirror image',
    )
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write images with the predictions drawn into this dir')
    parser.add_argument('--interval', type=int, default=1, help='draw every N-th image')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show an image')
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.json')):
        parser.error(f'--out {args.out}: expected a file name that ends in .pkl or .json')
    return args


def draw_predictions(cfg, args):
    """Turn on the visualization hook that every stock config of either framework has."""
    hook = cfg.default_hooks.visualization
    out_dir = str(Path(args.show_dir).resolve()) if args.show_dir else None
    if hook.type.endswith('DetVisualizationHook'):
        hook.update(draw=True, test_out_dir=out_dir)
    else:
        hook.update(enable=True, out_dir=out_dir)
    hook.update(show=args.show, wait_time=args.wait_time, interval=args.interval)


def dump_predictions(runner, path):
    """Add the metric that writes the predictions to a file; MMDetection's encodes masks.

    Its attribute `failed` is the error if it cannot: it is no reason to lose the other metrics.
    """
    scope = 'mmdet' if runner.default_scope.scope_name == 'mmdet' else 'mmengine'

    class Dump(METRICS.get(f'{scope}.DumpDetResults' if scope == 'mmdet' else 'DumpResults')):
        failed = None

        def compute_metrics(self, results):
            try:
                return super().compute_metrics(results)
            except Exception as error:  # raised once the metrics are printed
                self.failed = error
                return {}

    dump = Dump(out_file_path=path)
    runner.test_evaluator.metrics.append(dump)
    return dump


def write_metrics(metrics, path, dump):
    """Print the metrics and, if `path` is a .json file, write them to it; raise `dump.failed`."""
    content = json.dumps(plain(metrics))
    print(content)
    if dump and dump.failed:
        raise dump.failed
    if path.endswith('.json'):
        write_atomically(path, content.encode())


def main():
    args = parse_args()
    if args.out:
        check_writable(args.out)
    cfg = run_config_of(args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.tta:
        set_tta(cfg)
    if args.show or args.show_dir:
        draw_predictions(cfg, args)
    loaded = []
    findings = check_config(cfg, 'test', loaded=loaded)
    raise_errors(findings)

    def test(runner):
        for text in warnings_in(findings):
            runner.logger.warning(text)
        # mmengine only logs the keys that do not match, and evaluates random weights.
        load_pretrained(unwrap(runner.model), args.checkpoint, trust=args.trust)
        dump = None
        if args.out and args.out.endswith('.pkl'):
            dump = dump_predictions(runner, args.out)
        metrics = runner.test()
        if args.out and is_main_process():
            write_metrics(metrics, args.out, dump)

    launch(cfg, test, loaded)


if __name__ == '__main__':
    run(main)
