"""Small trees in the layouts of ImageNet-C and ImageNet-P, for tests."""

import cv2
import numpy as np
from PIL import Image

# Labels 0 and 923: the order of the folders alone would say 0 and 1.
WNIDS = ('n01440764', 'n07579787')
LABELS = (0, 923)


def write_image(path, rng, size=(32, 32)):
    """A JPEG of coarse noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.BICUBIC).save(path, quality=85)


def write_video(path, rng, frames=4, size=32):
    """A drifting pattern as .mp4, .npy or a folder of PNGs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    pattern = np.asarray(coarse.resize((size, size), Image.BICUBIC))
    video = np.stack([np.roll(pattern, 5 * i, axis=1) for i in range(frames)])
    if path.suffix == '.npy':
        np.save(path, video)
    elif path.suffix == '.mp4':
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 1, (size, size))
        for frame in video:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
        writer.release()
    else:
        path.mkdir()
        for i, frame in enumerate(video):
            Image.fromarray(frame).save(path / f'{i}.png')
    return video


def write_trees(root, corruptions, perturbations, images=(2, 2), wnids=WNIDS):
    """``root/{clean,c,p}``: so many `images` of each class in every part."""
    rng = np.random.default_rng(0)
    for wnid, count in zip(wnids, images, strict=True):
        for i in range(count):
            name = f'ILSVRC2012_val_{i:08d}'
            write_image(root / 'clean' / wnid / f'{name}.JPEG', rng, size=(60, 40))
            for corruption in corruptions:
                for severity in '12345':
                    write_image(root / 'c' / corruption / severity / wnid / f'{name}.JPEG', rng)
            for number, perturbation in enumerate(perturbations):
                ending = ('.mp4', '.npy', '')[(number + i) % 3]
                write_video(root / 'p' / perturbation / wnid / f'{name}{ending}', rng)
