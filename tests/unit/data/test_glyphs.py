"""Glyphs: families kept apart, classes that show their character, fonts that lack one left out."""

import json
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.subset import Subsetter
from fontTools.ttLib import TTFont
from fontTools.ttLib.tables._g_l_y_f import Glyph
from PIL import Image, ImageFont

from gcp_mm._io import sha256
from gcp_mm.data.glyphs import CLASSES, draw_glyph, find_fonts, write_glyphs

FONTS = Path(matplotlib.get_data_path()) / 'fonts/ttf'
DEJAVU = ('DejaVuSans', 'DejaVuSans-Bold', 'DejaVuSans-Oblique', 'DejaVuSansMono', 'DejaVuSerif')


@pytest.fixture(scope='module')
def fonts_folder(tmp_path_factory):
    """Five families, one of them of more styles than are drawn, and a font without letters."""
    folder = tmp_path_factory.mktemp('fonts')
    for name in (*DEJAVU, 'cmr10', 'cmss10', 'STIXSizOneSymReg'):
        shutil.copy(FONTS / f'{name}.ttf', folder)
    return folder


@pytest.fixture(scope='module')
def glyphs(fonts_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'glyphs'
    assert write_glyphs(root, [fonts_folder], size=32, val_families=3) is True
    return root


def test_families_are_kept_apart(glyphs):
    fonts = json.loads((glyphs / 'fonts.json').read_text())
    families = {
        split: {font['family'] for font in fonts if font['split'] == split}
        for split in ('train', 'val')
    }
    assert {split: len(names) for split, names in families.items()} == {'train': 4, 'val': 1}
    assert not families['train'] & families['val']
    assert all(sha256(FONTS / font['file']) == font['sha256'] for font in fonts)
    for split in families:
        count = sum(font['split'] == split for font in fonts)
        folders = sorted(path.name for path in (glyphs / split).iterdir())
        assert folders == sorted(CLASSES)
        assert {len(list(path.iterdir())) for path in (glyphs / split).iterdir()} == {count}


def test_an_image_shows_its_character_in_the_middle(glyphs):
    """Of the first font: the ink's box has equal margins, and classes differ."""
    fonts = json.loads((glyphs / 'fonts.json').read_text())
    images = {
        name: np.asarray(Image.open(glyphs / fonts[0]['split'] / name / '0000.png'))
        for name in CLASSES
    }
    assert len({image.tobytes() for image in images.values()}) == 62
    font = ImageFont.truetype(str(FONTS / fonts[0]['file']), round(0.7 * 32))
    for name, image in images.items():
        np.testing.assert_array_equal(image, draw_glyph(font, CLASSES[name], 32))
        rows, cols = np.nonzero(image)
        for places in (rows, cols):
            assert abs(places.min() - (31 - places.max())) <= 1, name


def test_fonts_that_are_left_out(tmp_path):
    """Without a character or its outline, broken, of the same content; other files are not read."""
    whole = FONTS / 'cmr10.ttf'
    (tmp_path / 'a').mkdir()
    for name in ('a/whole.ttf', 'b.TTF'):
        (tmp_path / name).write_bytes(whole.read_bytes())
    font = TTFont(whole)
    subset = Subsetter()
    subset.populate(text=''.join(CLASSES.values()).replace('q', ''))
    subset.subset(font)
    font.save(tmp_path / 'no-q.ttf')
    font = TTFont(whole)
    font['glyf'][font.getBestCmap()[ord('q')]] = Glyph()
    font.save(tmp_path / 'blank-q.ttf')
    (tmp_path / 'broken.otf').write_bytes(b'no font')
    (tmp_path / 'notes.txt').write_text('x')
    assert find_fonts([tmp_path]) == {'cmr10': [tmp_path / 'a/whole.ttf']}


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        (dict(folders=['nowhere']), FileNotFoundError, "FOLDER.*'nowhere'"),
        (dict(val_families=99), ValueError, 'at least 99 families.*found'),
        (dict(size=8), ValueError, 'size.*got 8'),
        (dict(per_family=0), ValueError, 'per_family.*got 0'),
    ],
)
def test_mistakes(options, error, words, fonts_folder, tmp_path):
    with pytest.raises(error, match=words):
        write_glyphs(tmp_path / 'x', **dict(folders=[fonts_folder]) | options)
    assert not (tmp_path / 'x').exists()


def test_command_line(call_tool, capsys, fonts_folder, tmp_path):
    arguments = (fonts_folder, '--out', tmp_path / 'x', '--per-family', 1)
    for word in ('written', 'already complete'):
        call_tool('tools/make_glyphs.py', *arguments)
        out = capsys.readouterr().out
        assert out.startswith(f'{tmp_path}/x: {word}, ')
        assert '62 classes' in out
    with pytest.raises(ValueError, match='name another, or remove it'):
        call_tool('tools/make_glyphs.py', *arguments[:-1], 2)
