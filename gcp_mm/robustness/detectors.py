"""Evaluation of a detector on its config's test images under the corruptions of COCO-C."""

import copy
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log
from torch.utils.data import Dataset

from .._io import plain, sha256, size_and_time
from ..checks import check_config, raise_errors
from ..checks.data import build_dataset, find_annotated, find_datasets, is_remote
from ..checks.dataloaders import find_bad_images, image_loader
from ..runtime import only_job
from .corruptions import CorruptImage, versions
from .errors import CORRUPTIONS, SEVERITIES
from .evaluation import run_missing, run_part, set_checkpoint
from .results import config_hash, new_results, resume_results


def evaluate_detector(
    cfg: Config,
    checkpoint: str | Path,
    *,
    corruptions: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    out: str | Path | None = None,
    skip_bad: bool = False,
    trust: bool = False,
) -> tuple[Path, dict] | None:
    """Evaluate a checkpoint on clean and corrupted images, where the results lack them.

    The dataset, the evaluator and the loop are those of the config's test.

    Args:
        cfg: config of a detector of MMDetection, of :func:`gcp_mm.runtime.load_config`; changed in
            place.
        checkpoint: local file of its weights.
        corruptions: some of the 15 `CORRUPTIONS`.
        severities: some of 1 to 5.
        out: JSON file of the results, resumed if it exists; by default robustness.json in the work
            dir.
        skip_bad: leave out and list images that cannot be loaded, instead of stopping.
        trust: read a checkpoint that holds Python objects, which executes what is in it.

    Returns:
        The file of the results, and the results; None in all but the first of several processes.

    Raises:
        BlockingIOError: if another process writes `out`.
        FileNotFoundError, ModuleNotFoundError, ValueError: for wrong arguments, an absent file or
            package, or results of another evaluation in `out`; before anything is written.
        ValueError: for an image that cannot be evaluated, unless `skip_bad`; with `skip_bad`, for a
            metric that cannot leave out images; if the clean images give no metric.
    """
    set_checkpoint(cfg, checkpoint)
    for key in ('test_dataloader', 'test_evaluator'):
        if not cfg.get(key):
            raise ValueError(f'{key}: the config has none; set it, such as to the val_ one')
    loader = cfg.test_dataloader
    loader.persistent_workers = False  # of one part
    raise_errors(check_config(cfg, 'test'))
    lists = find_lists(loader, cfg.default_scope)
    images = [image for _, listed in lists for image in listed]
    out = Path(out or Path(cfg.work_dir, 'robustness.json'))
    tested = {key: cfg.get(key) for key in ('test_evaluator', 'test_cfg')}
    tested |= {key: loader.get(key) for key in ('dataset', 'batch_size')}
    identity = dict(
        test_sha256=config_hash(tested),
        images_sha256=_images_hash(images, cfg.test_evaluator),
        packages=versions(),
    )
    with only_job(cfg, out):
        new = dict(new_results(cfg, checkpoint, {}, **identity), images=0)
        results = resume_results(out, new if skip_bad else dict(new, skipped=[]))
        done = results['parts']
        parts = {'clean': None} | {f'{c}/{s}': (c, s) for c in corruptions for s in severities}

        def prepare(runner):
            found = [results.get('skipped')]
            if found[0] is None and is_main_process():
                found = [find_skipped(lists)]
            broadcast_object_list(found)
            results['skipped'] = found[0]
            dataset = runner.test_loop.dataloader.dataset
            if found[0]:
                _leave_out(dataset, runner.test_loop.evaluator, images, found[0])
            # They share one list of images and annotations, which is read once.
            for key, part in parts.items():
                parts[key] = corrupt_images(dataset, *part) if part else dataset

        def measure(runner, key):
            part = dict(loader, dataset=parts[key])
            metrics = plain(run_part(runner, part, runner.test_loop.evaluator))
            numbers = {name: each for name, each in metrics.items() if type(each) in (int, float)}
            if key == 'clean':
                if not numbers:
                    raise ValueError(
                        'test_evaluator: it gives no metric on the clean images; does it read '
                        'annotations, and does the detector find anything?'
                    )
                results['images'] = len(runner.test_loop.dataloader.dataset)
                return numbers
            if absent := [metric for metric in done['clean'] if metric not in numbers]:
                # CocoMetric gives no metric if there are no predictions at all.
                text = f'{key}: no predictions; {", ".join(absent)} count as 0'
                print_log(text, logger='current', level=logging.WARNING)
            return {metric: numbers.get(metric, 0.0) for metric in done['clean']}

        return run_missing(cfg, checkpoint, out, results, parts, measure, prepare, trust=trust)


def corrupt_images(dataset: Dataset, corruption: str, severity: int) -> Dataset:
    """A shallow copy of a dataset with `CorruptImage` right after the loading of an image.

    Raises:
        ValueError: for another corruption or severity, or if the dataset, or one of those that it
            concatenates, loads no image.
    """
    dataset = copy.copy(dataset)
    if hasattr(dataset, 'datasets'):
        dataset.datasets = [corrupt_images(each, corruption, severity) for each in dataset.datasets]
        return dataset
    steps = dataset.pipeline.transforms if hasattr(dataset, 'pipeline') else []
    at = [i for i, step in enumerate(steps, 1) if isinstance(step, LoadImageFromFile)]
    if not at:
        raise ValueError(
            f'test_dataloader: the pipeline of {type(dataset).__name__} loads no image by '
            'LoadImageFromFile or LoadCheckedImage, after which it could be corrupted'
        )
    step = CorruptImage(corruption, severity)
    dataset.pipeline = Compose([*steps[: at[0]], step, *steps[at[0] :]])
    return dataset


def find_lists(dataloader: dict, scope: str | None) -> list[tuple[dict, list[dict]]]:
    """Config of each local dataset of the frameworks, and what it knows of each of its images."""
    local = [config for config in find_datasets(dataloader) if not is_remote(config)]
    built = [(config, build_dataset(config, scope, serialize_data=False)) for config in local]
    return [(config, dataset.data_list) for config, dataset in built if dataset]


def _images_hash(images, evaluator):
    """SHA-256 of the annotations of images, and of their paths, sizes and times."""
    digest = hashlib.sha256(config_hash(dict(images=plain(images))).encode())
    for path in (Path(image['img_path']) for image in images):
        digest.update(f'{path} {size_and_time(path) if path.exists() else None}\n'.encode())
    for path in (each['ann_file'] for each in find_annotated(evaluator)):
        digest.update((sha256(path) if Path(path).exists() else path).encode())
    return digest.hexdigest()


def find_skipped(lists: Sequence[tuple[dict, list[dict]]]) -> list[dict]:
    """Images of :func:`find_lists` that cannot be loaded, each with the reason."""
    bad = {}
    for config, images in lists:
        loader = image_loader(config.get('pipeline', []))
        bad.update(find_bad_images(images, loader, None, 'images'))
    return [dict(file=path, reason=f'{path}: {reason}') for path, reason in bad.items()]


def _leave_out(dataset, evaluator, images, skipped):
    """Leave images out of the dataset and of what is expected of the predictions, in place."""
    files = {each['file'] for each in skipped}
    kept = [i for i, image in enumerate(images) if image['img_path'] not in files]
    if not isinstance(dataset, BaseDataset):
        raise ValueError(
            f'skip_bad: expected one dataset to leave images of, got {type(dataset).__name__}'
        )
    dataset.get_subset_(kept)
    for metric in evaluator.metrics:
        if not hasattr(metric, 'img_ids'):  # of CocoMetric
            raise ValueError(
                f'skip_bad: {type(metric).__name__} cannot leave images out; remove them from the '
                f'annotations: {", ".join(sorted(files)[:5])}'
            )
        metric.img_ids = [images[i]['img_id'] for i in kept]
