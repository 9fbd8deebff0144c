"""Classify pictures and videos, or detect objects in them, and draw what was found.

The output folder gets vis/, the inputs with what was found drawn, in their own folders and under
their own names, and predictions.json. With --covariance it also gets covariance/, for each picture
the matrix that the pooling layer gave and the channels that decided its class. See docs/demo.md.
"""

import argparse
import json
from contextlib import closing
from itertools import islice
from pathlib import Path

import mmcv
from arguments import add_config_arguments, add_trust_argument, config_of
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from tqdm import tqdm

from gcp_mm import get_model
from gcp_mm.checkpoints import check_checkpoint_file
from gcp_mm.studies.files import (
    VideoOutput,
    count_frames,
    find_inputs,
    is_video,
    plan_outputs,
    read_pictures,
    read_video,
)
from gcp_mm.studies.predictors import Classifier, Detector


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file, or address')
    parser.add_argument(
        'inputs', nargs='+', metavar='input', help='pictures, videos, and folders of them'
    )
    parser.add_argument('--out-dir', type=Path, required=True, help='where the results go')
    parser.add_argument('--force', action='store_true', help='write to a folder that is not empty')
    parser.add_argument('--device', default=get_device(), help='default: %(default)s')
    parser.add_argument('--batch-size', type=int, default=1, help='pictures at a time; default: 1')
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='SCORE',
        help='detectors: leave out objects without a higher score; default: 0.3',
    )
    parser.add_argument(
        '--covariance',
        action='store_true',
        help='classifiers with GlobalCovariancePooling: show what decided each class',
    )
    add_trust_argument(parser)
    args = parser.parse_args()
    if args.batch_size < 1:
        parser.error(f'--batch-size {args.batch_size}: expected at least 1')
    if args.score_thr is not None and not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr {args.score_thr}: expected 0 to 1')
    return args


def process(network, frames, write, outputs, args, bar):
    """Run the network over frames, as :func:`read_pictures` yields them, and write what it finds.

    Args:
        write: writes a drawing, (image BGR, planned path), and returns where it is.

    Returns:
        A record for each frame.
    """
    records = []
    while batch := list(islice(frames, args.batch_size)):
        results = network([image for _, _, image in batch])
        for (file, number, _), found in zip(batch, results, strict=True):
            drawing, covariance = outputs[file]
            record = dict(input=str(file)) | ({} if number is None else dict(frame=number))
            written = write(found.drawing[..., ::-1], drawing)
            record['drawing'] = written.relative_to(args.out_dir).as_posix()
            record |= found.record
            if found.covariance is not None:
                path = covariance if number is None else covariance / f'{number:06d}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                found.covariance.savefig(path, dpi=100)
                record['covariance']['picture'] = path.relative_to(args.out_dir).as_posix()
            records.append(record)
        bar.update(len(batch))
    return records


def write_picture(image, path):
    mmcv.imwrite(image, str(path))
    return path


def main():
    args = parse_args()
    cfg = config_of(args)
    scope = cfg.get('default_scope')
    if scope == 'mmdet' and args.covariance:
        raise ValueError(f'--covariance is for classifiers, and {args.config} is a detector')
    if scope != 'mmdet' and args.score_thr is not None:
        raise ValueError(f'--score-thr is for detectors, and {args.config} is a classifier')
    check_checkpoint_file(args.checkpoint)
    inputs = find_inputs(args.inputs)
    outputs = plan_outputs(inputs, args.out_dir, args.force)
    with DefaultScope.overwrite_default_scope(scope):
        model = get_model(cfg, args.checkpoint, args.device, args.trust)
        if scope == 'mmdet':
            network = Detector(model, 0.3 if args.score_thr is None else args.score_thr)
        else:
            network = Classifier(model, args.covariance)
        counts = count_frames(inputs)
        with tqdm(total=sum(counts.values()), desc=str(args.out_dir), unit='picture') as bar:
            common = outputs, args, bar
            pictures = read_pictures(file for file in inputs if not is_video(file))
            records = process(network, pictures, write_picture, *common)
            for file in filter(is_video, inputs):
                with closing(VideoOutput(file)) as video:
                    frames = read_video(file, counts[file])
                    records += process(network, frames, video.write, *common)
    content = dict(config=args.config, checkpoint=args.checkpoint, predictions=records)
    path = args.out_dir / 'predictions.json'
    path.write_text(json.dumps(content) + '\n')
    print(f'{path}: {len(records)} predictions, drawn in {args.out_dir / "vis"}')


if __name__ == '__main__':
    main()
