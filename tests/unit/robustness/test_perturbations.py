"""The sequences of ImageNet-P against closed forms of what moves, and by how much."""

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import center_of_mass, gaussian_filter
from sklearn.datasets import load_sample_image
from torchvision.transforms.functional import center_crop

from gcp_mm.robustness.perturbations import perturb
from gcp_mm.robustness.stability import PERTURBATIONS

RANDOM = {'gaussian_noise', 'shot_noise', 'snow'}
SIZE, RESIZE = 64, 96  # of a frame, and of the image's short side
EDGE = (RESIZE - SIZE) // 2


def make_rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope='module')
def photo():
    """A photograph, (96, 143, 3), with some texture everywhere."""
    image = Image.fromarray(load_sample_image('china.jpg'))
    return np.asarray(image.resize((143, RESIZE)))


def blob(row, column, sigma=4.0, height=RESIZE, width=RESIZE):
    """A white Gaussian on black whose center is at a point; (height, width, 3) uint8."""
    rows, columns = np.indices((height, width))
    square = (rows - row) ** 2 + (columns - column) ** 2
    return np.repeat((255 * np.exp(-square / (2 * sigma**2)))[..., None], 3, axis=2).astype(
        np.uint8
    )


def middle(image):
    return np.asarray(center_crop(Image.fromarray(image), SIZE))


def frames_of(image, name, size=SIZE):
    return perturb(image, name, size, make_rng())[..., 0].astype(float)


@pytest.mark.parametrize('name', PERTURBATIONS)
def test_every_sequence(photo, name):
    before = photo.copy()
    frames = perturb(photo, name, SIZE, make_rng())
    assert frames.shape == (41 if name == 'translate' else 31, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(photo, before)
    steps = np.abs(np.diff(frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert (steps > 0).all()
    assert np.array_equal(perturb(photo, name, SIZE, make_rng()), frames)
    other = perturb(photo, name, SIZE, make_rng(1))
    assert np.array_equal(other, frames) == (name not in RANDOM)


def test_size_of_imagenet_p():
    image = np.asarray(Image.fromarray(load_sample_image('flower.jpg')).resize((341, 256)))
    for name in ('snow', 'tilt'):
        assert perturb(image, name, 224, make_rng()).shape == (31, 224, 224, 3)


@pytest.mark.parametrize('name', ['gaussian_noise', 'shot_noise'])
def test_noise_begins_clean_and_is_as_strong_as_published(photo, name):
    assert np.array_equal(perturb(photo, name, SIZE, make_rng())[0], middle(photo))
    x = 128 / 255
    frames = frames_of(np.full((RESIZE, RESIZE, 3), 128, np.uint8), name)
    wanted = dict(gaussian_noise=0.03, shot_noise=np.sqrt(x / 300))[name]
    assert frames[1:].std() / 255 == pytest.approx(wanted, rel=0.02)
    assert frames[1:].mean() == pytest.approx(128 - 0.5, abs=0.1)  # values are cut, not rounded
    # Independent from frame to frame
    noise = frames[1:] - frames[1:].mean()
    assert np.abs(np.mean(noise[1:] * noise[:-1])) < 0.02 * noise.var()


def test_translate_moves_by_whole_pixels(photo):
    frames = perturb(photo, 'translate', SIZE, make_rng())
    left = round((photo.shape[1] - SIZE) / 2)
    for i, frame in enumerate(frames):
        start = left - (i - 20)
        assert np.array_equal(frame, photo[EDGE : EDGE + SIZE, start : start + SIZE])


def test_translate_brings_in_black(photo):
    square = middle(photo)
    frames = perturb(square, 'translate', SIZE, make_rng())
    assert not frames[0][:, -20:].any()
    assert not frames[40][:, :20].any()
    assert np.array_equal(frames[40][:, 20:], square[:, :-20])


def test_rotate_is_clockwise_by_degrees(photo):
    h, w = photo.shape[:2]
    for i, frame in enumerate(perturb(photo, 'rotate', SIZE, make_rng())):
        matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), -(i - 15), 1)
        left = round((w - SIZE) / 2)
        wanted = cv2.warpAffine(photo, matrix, (w, h))[EDGE : EDGE + SIZE, left : left + SIZE]
        inner = (slice(4, -4),) * 2  # corners of the image come in near the frame's
        assert np.abs(frame[inner].astype(float) - wanted[inner]).mean() < 1.5


def test_scale_goes_from_two_fifths_to_somewhat_more_than_one():
    frames = frames_of(blob(47.5, 47.5, sigma=12), 'scale')
    for i, frame in enumerate(frames):
        rows = np.indices(frame.shape)[0] - 31.5
        inside = np.abs(rows[:, 0]) < 28
        profile = frame[:, 31:33].mean(axis=1)
        # log of a Gaussian is a parabola: its curvature gives the width
        seen = inside & (profile > 40)
        curvature = np.polyfit(rows[seen, 0], np.log(profile[seen]), 2)[0]
        assert np.sqrt(-1 / (2 * curvature)) == pytest.approx(12 * (0.4 + 0.025 * i), rel=0.03)


def test_tilt_is_a_plane_before_a_camera():
    """A pinhole camera sees a point of the turned plane where similar triangles put it."""
    row, column = 36.0, 60.0
    frames = frames_of(blob(row, column, sigma=2), 'tilt')
    f = np.hypot(RESIZE, RESIZE)
    for i, frame in enumerate(frames):
        angle = np.deg2rad(i - 15)
        x, y, z = column - 48, row - 48, 1
        x, z = x * np.cos(angle) - z * np.sin(angle), x * np.sin(angle) + z * np.cos(angle)
        y, z = y * np.cos(angle) - z * np.sin(angle), y * np.sin(angle) + z * np.cos(angle)
        wanted = 48 + y * f / (f + z) - EDGE, 48 + x * f / (f + z) - EDGE
        assert center_of_mass(frame) == pytest.approx(wanted, abs=0.15)


def test_zoom_blur_is_a_running_mean_of_enlargements():
    """On a ramp: enlarging by s divides the slope by s."""
    ramp = np.linspace(0, 255, RESIZE)
    image = np.repeat(np.broadcast_to(ramp, (RESIZE, RESIZE))[..., None], 3, axis=2).astype(
        np.uint8
    )
    frames = perturb(image, 'zoom_blur', SIZE, make_rng())
    assert np.array_equal(frames[0], middle(image))
    slope = 255 / (RESIZE - 1)
    for i, frame in enumerate(frames):
        wanted = slope * np.mean([1 / (1 + 0.004 * j) for j in range(i + 1)])
        seen = np.polyfit(np.arange(SIZE), frame[..., 0].mean(axis=0), 1)[0]
        assert seen == pytest.approx(wanted, rel=0.01)


def test_brightness_adds_to_the_value_of_hsv(photo):
    clean = middle(photo)
    frames = perturb(photo, 'brightness', SIZE, make_rng())
    assert np.array_equal(frames[15], clean)
    hue, saturation = cv2.split(cv2.cvtColor(clean, cv2.COLOR_RGB2HSV_FULL))[:2]
    for i, frame in enumerate(frames):
        value = (clean.max(axis=2) + 255 * 0.02 * (i - 15)).clip(0, 255)
        assert np.abs(frame.max(axis=2) - value).max() < 1.01
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV_FULL).astype(float)
        colored = (saturation > 60) & (value > 80)
        assert np.abs(hsv[..., 1] - saturation)[colored].max() < 8
        turn = np.abs(hsv[..., 0] - hue)[colored]
        assert np.minimum(turn, 256 - turn).max() < 8
    black = perturb(np.zeros((SIZE, SIZE, 3), np.uint8), 'brightness', SIZE, make_rng())
    assert [int(frame.max()) for frame in black[14:18]] == [0, 0, 5, 10]
    assert (black == black[..., :1]).all()


def test_motion_blur_smears_a_point_along_a_line():
    image = np.zeros((RESIZE, RESIZE, 3), np.uint8)
    image[48, 48] = 255
    frames = frames_of(image, 'motion_blur')
    weights = np.exp(-(np.arange(21) ** 2) / (2 * 3**2))
    weights *= 255 / weights.sum()
    # The last is horizontal; what a pixel takes from its right, a point gives to its left.
    row = frames[30][48 - EDGE]
    assert np.abs(row[48 - EDGE - 20 : 48 - EDGE + 1][::-1] - weights).max() <= 0.5
    assert frames[30].sum() == row.sum()
    reach = weights @ np.arange(21) / 255
    for i, frame in enumerate(frames):
        angle = np.deg2rad(4 * (i - 30))
        center = np.array(center_of_mass(frame)) - (48 - EDGE)
        assert center == pytest.approx((-reach * np.sin(angle), -reach * np.cos(angle)), abs=0.3)


def test_snow_is_one_layer_that_turns():
    black = np.zeros((160, 160, 3), np.uint8)
    frames = frames_of(black, 'snow', size=160)
    ground = int(255 * 0.15 * 0.5)
    assert (frames >= ground).all()
    for frame in frames:
        assert np.median(frame) == ground
        assert np.array_equal(frame, np.rot90(frame, 2))
        # No snow falls or melts; borders, which are repeated, may add some.
        assert frame.sum() == pytest.approx(frames[0].sum(), rel=0.1)
    # Flakes are drawn out along 4 i - 150 degrees, so brightness changes most across that.
    for i, frame in enumerate(frames):
        down, right = np.gradient(gaussian_filter(frame, 1))
        across = np.arctan2(2 * (down * right).sum(), (right**2 - down**2).sum()) / 2
        off = np.rad2deg(across) - 90 - (4 * i - 150)
        assert abs((off + 90) % 180 - 90) < 10
