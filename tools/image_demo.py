"""Classify pictures and videos, or detect objects in them, and draw what was found.

The output folder gets vis/, the inputs with what was found drawn, and predictions.json. With
--covariance it also gets covariance/, for each picture the matrix that the pooling layer gave and
the channels that decided its class. See docs/demo.md.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
from arguments import add_config_arguments, add_trust_argument, config_of
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.utils import scandir
from tqdm import tqdm

from gcp_mm import get_model
from gcp_mm._io import write_atomically
from gcp_mm.data import IMAGE_SUFFIXES, LoadCheckedImage, count_suffixes
from gcp_mm.studies.inferencers import Classifier, Detector

VIDEO_EXTENSIONS = ('.mp4', '.avi', '.m4v', '.mkv', '.mov', '.mpeg', '.mpg', '.webm')


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    add = parser.add_argument
    add('checkpoint', help='checkpoint file, or address')
    add('inputs', nargs='+', type=Path, help='pictures, videos, and folders of them')
    add('--out-dir', type=Path, required=True, help='where the results go')
    add('--force', action='store_true', help='write to a folder that is not empty')
    add('--device', default=get_device(), help='default: %(default)s')
    add('--score-thr', type=float, default=0.3, help='of drawn objects; default: %(default)s')
    add('--covariance', action='store_true', help='GCP classifiers: draw what decided each class')
    add_trust_argument(parser)
    return parser.parse_args()


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
        raise ValueError(f'inputs: no picture or video is in {", ".join(map(str, paths))}')
    files = {Path(os.path.abspath(file)): file for file in files}
    common = os.path.commonpath([full.parent for full in files])
    return {file: full.relative_to(common) for full, file in files.items()}


def read_frames(file):
    """Yield (number, (H, W, 3) uint8 BGR) of each frame of a video, or (None, a picture)."""
    if file.suffix.lower() in VIDEO_EXTENSIONS:
        video = mmcv.VideoReader(str(file))
        yield from enumerate(video)
        if video.position < video.frame_cnt:
            raise ValueError(f'only {video.position} of {video.frame_cnt} frames can be read')
    else:
        yield None, LoadCheckedImage().load(dict(img_path=str(file)))


def draw(predict, file, path, out_dir, records):
    """Draw what the network finds in a picture or in each frame, and add it to the records."""
    video, before = None, len(records)
    for number, image in read_frames(file):
        drawing, found, figure = predict(image)
        drawing = np.ascontiguousarray(drawing[..., ::-1])
        record = dict(input=str(file))
        if number is None:
            record['drawing'] = f'vis/{path}.png'
            mmcv.imwrite(drawing, str(out_dir / record['drawing']))
        else:
            record |= dict(drawing=f'vis/{path}.mp4', frame=number)
            video = video or open_video(out_dir / record['drawing'], file, drawing)
            video.write(drawing)
        records.append(record | found)
        if figure:
            part = '' if number is None else f'/{number:06d}'
            picture = found['covariance']['picture'] = f'covariance/{path}{part}.png'
            (out_dir / picture).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(out_dir / picture, dpi=100)
    if video:
        video.release()
    if len(records) == before:
        raise ValueError('OpenCV finds no frame in it')


def open_video(path, source, drawing):
    path.parent.mkdir(parents=True, exist_ok=True)
    fps = mmcv.VideoReader(str(source)).fps or 25  # some files do not say
    codec = cv2.VideoWriter_fourcc(*'mp4v')
    video = cv2.VideoWriter(str(path), codec, fps, drawing.shape[1::-1])
    if not video.isOpened():
        raise OSError(f'OpenCV has no encoder for {path}; install opencv-python')
    return video


def main():
    args = parse_args()
    cfg = config_of(args)
    scope = cfg.get('default_scope')
    if scope == 'mmdet' and args.covariance:
        raise ValueError(f'--covariance is for classifiers, and {args.config} is a detector')
    if args.out_dir.exists() and any(args.out_dir.iterdir()) and not args.force:
        raise ValueError(f'--out-dir: {args.out_dir} is not empty; name another, or use --force')
    inputs, records, failed = find_inputs(args.inputs), [], {}
    with DefaultScope.overwrite_default_scope(scope):
        model = cfg, args.checkpoint, args.device, args.trust
        if scope == 'mmdet':
            predict = Detector(*model, args.score_thr)
        else:
            predict = Classifier(get_model(*model), args.covariance)
        for file, path in tqdm(inputs.items(), unit='file'):
            try:
                draw(predict, file, path, args.out_dir, records)
            except (OSError, ValueError) as error:
                failed[str(file)] = str(error)
                tqdm.write(f'{file}: {error}')
    path = args.out_dir / 'predictions.json'
    about = dict(config=args.config, checkpoint=args.checkpoint)
    content = about | dict(predictions=records, failed=failed)
    write_atomically(path, f'{json.dumps(content)}\n'.encode())
    print(f'{path}: {len(records)} predictions, drawn in {args.out_dir / "vis"}')
    if failed:
        sys.exit(f'{len(failed)} of {len(inputs)} files failed: {", ".join(failed)}')


if __name__ == '__main__':
    main()
