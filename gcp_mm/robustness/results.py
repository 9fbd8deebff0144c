"""The JSON file of an evaluation's results, which grows part by part."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from .._io import check_made_with, read_json, sha256, size_and_time, write_atomically
from .baseline import Robustness, load_baseline, mean_of
from .errors import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, performance
from .stability import PERTURBATIONS

MOST = dict(error=1, flip_probability=1, top5_distance=18)  # of the numbers of a part
FIELDS = dict(name=str, checkpoint=str, identity=dict, roots=dict, regenerated=list, parts=dict)
STAMP = 'GENERATED.json'  # in a set that tools/make_corruptions.py has made


def new_results(cfg: Config, checkpoint: str | Path, roots: Mapping[str, str], **identity) -> dict:
    """Results without any parts yet.

    Args:
        cfg: config of the network.
        checkpoint: local file of its weights.
        roots: folder by benchmark: 'clean', 'imagenet-c' and 'imagenet-p'.
        **identity: other settings that parts have to share, as JSON types.
    """
    model = dict(model=cfg.model, data_preprocessor=cfg.get('data_preprocessor'))
    roots = {key: Path(root).resolve() for key, root in roots.items()}
    return dict(
        name=Path(cfg.filename).stem,
        config=cfg.filename,
        checkpoint=str(checkpoint),
        identity=dict(
            checkpoint_sha256=sha256(checkpoint),
            model_sha256=config_hash(model),
            **identity,
        ),
        roots={key: str(root) for key, root in roots.items()},
        regenerated=[key for key, root in roots.items() if (root / STAMP).is_file()],
        parts={},
    )


def config_hash(config: Mapping) -> str:
    """SHA-256 of a part of a config."""
    return hashlib.sha256(json.dumps(config, default=str, sort_keys=True).encode()).hexdigest()


def resume_results(path: Path, new: dict) -> dict:
    """The results in a file if there is one, else `new`.

    Args:
        path: file of an earlier evaluation, or a path where there is none.
        new: results of :func:`new_results`.

    Raises:
        ValueError: if the file holds results of another evaluation; the message names the
            difference.
    """
    if not path.exists():
        return new
    results = read_results(path)
    # A root may be new: parts of another benchmark follow.
    roots = results['roots'] = {**new['roots'], **results['roots']}
    check_made_with(path, results['identity'] | roots, new['identity'] | new['roots'])
    results['regenerated'] = sorted({*results['regenerated'], *new['regenerated']})
    return results


def check_files(path: Path, results: dict, folders: Mapping[str, Path]) -> None:
    """Check that the files of the parts that results hold are those that were evaluated.

    Args:
        path: file of the results.
        results: of :func:`resume_results`.
        folders: folder by part.

    Raises:
        ValueError: if a file was added, removed or changed since; the message names the folder.
    """
    for key in folders.keys() & results['parts'].keys():
        if results.get('files', {}).get(key) != files_hash(folders[key]):
            raise ValueError(
                f'{path} holds results of other files than {str(folders[key])!r} has; give '
                'another `out`, or remove it'
            )


def files_hash(folder: Path) -> str:
    """SHA-256 of the names, sizes and times of all files in the folder of a part."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        digest.update(f'{path.relative_to(folder)} {size_and_time(path)}\n'.encode())
    return digest.hexdigest()


def read_results(path: str | Path) -> dict:
    """Read a file of :func:`write_results`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has other content.
    """
    try:
        results = read_json(path, **FIELDS)
        parts = results['parts']
        if is_of_detector(results):
            performance(parts)
        else:
            robustness_of(results)
        for key, part in parts.items():
            for name in part.keys() & MOST.keys():
                if not 0 <= part[name] <= MOST[name]:
                    raise ValueError(f'{key}: expected {name} from 0 to {MOST[name]}')
        for each in [results] if is_of_detector(results) else parts.values():
            ''.join(item['reason'] for item in each['skipped'])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f'{str(path)!r} holds no results of tools/test_robustness.py, or damaged ones: '
            f'{type(error).__name__}: {error}'
        ) from error
    return results


def read_baseline(paths: Sequence[str | Path] = ()) -> Robustness:
    """The network that metrics are normalized by.

    Args:
        paths: results of a classifier, or of runs of it with several seeds, which are averaged; by
            default the numbers are AlexNet's.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file has other content, or results of other corruptions and perturbations.
    """
    networks = [robustness_of(read_results(path)) for path in paths]
    if len(networks) > 1:
        return mean_of(f'the mean of {len(networks)} networks', networks)
    return networks[0] if networks else load_baseline()


def write_results(path: str | Path, results: dict) -> None:
    """Write results atomically."""
    write_atomically(path, (json.dumps(results, indent=2) + '\n').encode())


def is_of_detector(results: Mapping) -> bool:
    """Whether results are those of a detector, not of a classifier."""
    return 'images' in results


def robustness_of(results: dict) -> Robustness:
    """The raw numbers in results of a classifier, without the corruptions that lack a severity.

    Raises:
        ValueError: for results of a detector.
    """
    if is_of_detector(results):
        raise ValueError(
            f'{results["name"]!r} is a detector: it has no errors of classification; its mPC and '
            'rPC are in the .md file beside its results'
        )
    parts = results['parts']
    errors, flips, distances = {}, {}, {}
    for name in CORRUPTIONS + EXTRA_CORRUPTIONS:
        keys = [f'imagenet-c/{name}/{severity}' for severity in SEVERITIES]
        if all(key in parts for key in keys):
            errors[name] = [parts[key]['error'] for key in keys]
    for name in PERTURBATIONS:
        if part := parts.get(f'imagenet-p/{name}'):
            flips[name], distances[name] = part['flip_probability'], part['top5_distance']
    return Robustness(
        name=results['name'],
        clean_error=parts['clean']['error'] if 'clean' in parts else None,
        corruption_error=errors,
        flip_probability=flips,
        top5_distance=distances,
        regenerated=results['regenerated'],
    )
