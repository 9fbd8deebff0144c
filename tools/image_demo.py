"""Classify images and videos, or detect objects in them, and draw what was found.

The network is CONFIG and CHECKPOINT, or a file of tools/export.py (.onnx, .pt2 or .pt). The output
folder gets vis/, the inputs with what was found drawn, and predictions.json. With
--covariance it also gets covariance/, for each image the matrix that the pooling layer gave and
the channels that decided its class. See docs/guides/prediction.md.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from arguments import (
    add_options_argument,
    add_trust_argument,
    check_outputs,
    config_of,
    device,
    printable,
    run,
)

import cv2
import mmcv
import numpy as np
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.utils import scandir
from tqdm import tqdm

from gcp_mm import get_model
from gcp_mm._io import write_atomically, write_figure
from gcp_mm.data import IMAGE_SUFFIXES, count_suffixes
from gcp_mm.export import FORMATS, read_export
from gcp_mm.studies.inferencers import Classifier, Detector, ExportedClassifier

USAGE = """image_demo.py [options] CONFIG CHECKPOINT INPUT... --out-dir DIR
       image_demo.py [options] EXPORTED INPUT... --out-dir DIR"""
VIDEO_EXTENSIONS = ('.mp4', '.avi', '.m4v', '.mkv', '.mov', '.mpeg', '.mpg', '.webm')


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, usage=USAGE)
    add = parser.add_argument
    add('config', metavar='CONFIG', help='config file, or the name of a config; or EXPORTED')
    add('inputs', nargs='+', metavar='INPUT', help='images, videos, and folders of them')
    add_options_argument(parser)
    add('--out-dir', type=Path, required=True, help='where the results go')
    add('--force', action='store_true', help='write to a folder that is not empty')
    add('--device', type=device, help=f'default: {get_device()}')
    add(
        '--score-thr',
        type=float,
        help='detectors: leave out objects with this score or a lower one; default: 0.3',
    )
    add('--covariance', action='store_true', help='GCP classifiers: draw what decided each class')
    add_trust_argument(parser)
    args = parser.parse_intermixed_args()
    if Path(args.config).suffix in FORMATS:
        args.checkpoint = None
    else:
        args.checkpoint, *args.inputs = args.inputs
        if Path(args.checkpoint).suffix in ('.onnx', '.pt2'):
            parser.error(f'{args.checkpoint} holds its network: leave out {args.config}')
        if not args.inputs:
            parser.error(
                f'expected CONFIG CHECKPOINT INPUT..., got {args.config} {args.checkpoint}'
            )
    args.inputs = [Path(path) for path in args.inputs]
    return args


def find_inputs(paths):
    """The files at paths, and below those that are folders: {file: path below a common folder}."""
    files = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f'input {str(path)!r} does not exist')
        if path.is_dir():
            names = [n for n in sorted(scandir(path, recursive=True)) if '/.' not in f'/{n}']
            taken = [n for n in names if n.lower().endswith((*IMAGE_SUFFIXES, *VIDEO_EXTENSIONS))]
            files += [path / name for name in taken]
            if left_out := count_suffixes({*names} - {*taken}):
                print(f'{path}: left out by suffix: {left_out}', file=sys.stderr)
        else:
            files.append(path)
    if not files:
        names = ', '.join(repr(str(path)) for path in paths)
        raise ValueError(f'inputs: no image or video is in {names}')
    files = {Path(os.path.abspath(file)): file for file in files}
    common = os.path.commonpath([full.parent for full in files])
    return {file: full.relative_to(common) for full, file in files.items()}


def read_frames(file, loader):
    """Yield (number, image) of each frame of a video, or (None, an image), as loader gives it."""
    if file.suffix.lower() in VIDEO_EXTENSIONS:
        video = mmcv.VideoReader(str(file))
        gray = str(loader.color_type).startswith('grayscale')
        for number, frame in enumerate(video):
            yield number, cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if gray else frame
        if video.position < video.frame_cnt:
            raise ValueError(f'only {video.position} of {video.frame_cnt} frames can be read')
    else:
        image = loader.load(dict(img_path=str(file)))
        raw = None if image.any() else cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if raw is not None and raw.any():  # its 16 bits hold little
            raise ValueError(
                f'its values are {raw.dtype} up to {raw.max()}, and loading as 8 bits makes it '
                'black; convert it to 8 bits'
            )
        yield None, image


def draw(predict, file, path, out_dir, records):
    """Draw what the network finds in an image or in each frame, and add it to the records."""
    video, before, target = None, len(records), out_dir / f'vis/{path}.mp4'
    part = target.with_name(f'{target.stem}.{os.getpid()}.part.mp4')
    try:
        for number, image in read_frames(file, predict.loader):
            drawing, found, figure = predict(image)
            drawing = np.ascontiguousarray(drawing[..., ::-1])
            record = dict(input=str(file))
            if number is None:
                record['drawing'] = f'vis/{path}.png'
                content = cv2.imencode('.png', drawing)[1].tobytes()
                write_atomically(out_dir / record['drawing'], content)
            else:
                record |= dict(drawing=f'vis/{path}.mp4', frame=number)
                video = video or open_video(part, file, drawing)
                video.write(drawing)
            records.append(record | found)
            if figure:
                frame = '' if number is None else f'/{number:06d}'
                picture = found['covariance']['picture'] = f'covariance/{path}{frame}.png'
                write_figure(out_dir / picture, figure, dpi=100)
    finally:
        if video and not close_video(video, part, target, len(records) - before):
            del records[before:]  # which name the drawing
            raise OSError('its drawing was not written to the end; make room on the disk')
    if len(records) == before:
        raise ValueError('OpenCV finds no frame in it')


def open_video(path, source, drawing):
    path.parent.mkdir(parents=True, exist_ok=True)
    fps = mmcv.VideoReader(str(source)).fps or 25  # some files do not say
    codec = cv2.VideoWriter_fourcc(*'mp4v')
    video = cv2.VideoWriter(str(path), codec, fps, drawing.shape[1::-1])
    if not video.isOpened():
        raise OSError(f'OpenCV has no encoder for {str(path)!r}; install opencv-python')
    return video


def close_video(video, part, target, frames):
    """Finish a drawing; it gets its name, and True is returned, if all of its frames are in it."""
    video.release()
    with mmcv.VideoReader(str(part)) as written:  # OpenCV does not say that the disk is full
        whole = written.frame_cnt == frames
    if whole:
        part.replace(target)
    else:
        part.unlink(missing_ok=True)
    return whole


def load(cfg, args):
    """What predicts with CONFIG and CHECKPOINT or, where there is no config, with EXPORTED."""
    if cfg is None:
        exported = read_export(args.config)
        try:
            return ExportedClassifier(exported, exported.metadata)
        except ValueError as error:
            text = f'{args.config!r} does not say how images are prepared, or what logits mean'
            raise ValueError(f'{text}: {error}; give CONFIG CHECKPOINT instead') from error
    model = cfg, args.checkpoint, args.device or get_device(), args.trust
    if cfg.get('default_scope') == 'mmdet':
        return Detector(*model, 0.3 if args.score_thr is None else args.score_thr)
    return Classifier(get_model(*model), args.covariance)


def main():
    args = parse_args()
    if args.checkpoint is None:
        if args.covariance or args.cfg_options or args.device:
            raise ValueError(
                '--covariance, --cfg-options, --device: an exported file has none of them; leave '
                f'them out, or give CONFIG CHECKPOINT in place of {args.config!r}'
            )
        cfg, scope, about = None, 'mmpretrain', dict(exported=args.config)
    else:
        cfg = config_of(args)
        scope = cfg.get('default_scope')
        about = dict(config=args.config, checkpoint=args.checkpoint)
    if scope == 'mmdet' and args.covariance:
        raise ValueError(f'--covariance is for classifiers, and {args.config!r} is a detector')
    if scope != 'mmdet' and args.score_thr is not None:
        raise ValueError(f'--score-thr is for detectors, and {args.config!r} is a classifier')
    if args.out_dir.exists() and any(args.out_dir.iterdir()) and not args.force:
        text = f'{str(args.out_dir)!r} is not empty; name another, or use --force'
        raise ValueError(f'--out-dir: {text}')
    inputs, records, failed = find_inputs(args.inputs), [], {}
    drawings = [f'{path}{end}' for path in inputs.values() for end in ('.png', '.mp4')]
    pictures = [f'{part}/{name}' for part in ('vis', 'covariance') for name in drawings]
    check_outputs(
        [args.out_dir, *(args.out_dir / name for name in ('predictions.json', *pictures))],
        [args.config, args.checkpoint, *inputs],
        [path for path in args.inputs if path.is_dir()],
    )
    with DefaultScope.overwrite_default_scope(scope):
        predict = load(cfg, args)
        for file, path in tqdm(inputs.items(), unit='file'):
            try:
                draw(predict, file, path, args.out_dir, records)
            except (OSError, ValueError) as error:
                failed[str(file)] = str(error)
                tqdm.write(f'{str(file)!r}: {printable(str(error))}')
    path = args.out_dir / 'predictions.json'
    content = about | dict(predictions=records, failed=failed)
    write_atomically(path, f'{json.dumps(content)}\n'.encode())
    print(printable(f'{path}: {len(records)} predictions, drawn in {args.out_dir / "vis"}'))
    if failed:
        names = ', '.join(map(repr, failed))
        sys.exit(f'{len(failed)} of {len(inputs)} files failed: {names}')


if __name__ == '__main__':
    run(main)
