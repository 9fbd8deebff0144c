"""Feature vectors: from the network, to a file, and what they are good for."""

import copy
import json
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from mmpretrain.apis import FeatureExtractor
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from gcp_mm import get_model
from gcp_mm.ops import global_covariance_pooling
from gcp_mm.studies.feature_file import Features, UnfinishedFeatures, read_features
from gcp_mm.studies.feature_quality import check_comparable, cosines, linear_svm, retrieval
from gcp_mm.studies.features import extract_features
from tests.helpers.runs import CLS

CLASSES = ('0', '1', '7')


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return get_model('resnet18-gcp_1xb64-5e_digits')


@pytest.fixture(scope='module')
def folders(digits, tmp_path_factory):
    """Folders of 8 and of 3 digits of three classes, one of the digits a folder deeper."""
    root = tmp_path_factory.mktemp('folders')
    for split, count in (('train', 8), ('val', 3)):
        for name in CLASSES:
            (root / split / name / 'deep').mkdir(parents=True)
            for number, path in enumerate(sorted((digits / split / name).iterdir())[:count]):
                shutil.copy(path, root / split / name / ('deep' if number == 1 else ''))
    return root


@pytest.fixture(scope='module')
def extracted(model, folders, tmp_path_factory):
    """The features of both folders."""
    out = tmp_path_factory.mktemp('features')
    for split in ('train', 'val'):
        extract_features(model, folders / split, out / f'{split}.npz', batch_size=5)
    return {split: read_features(out / f'{split}.npz') for split in ('train', 'val')}


@pytest.mark.parametrize(
    'name',
    [
        'resnet18-gcp_8xb32-lradju_in1k',
        'resnet50-gcp-8k_8xb32-lrnorm_in1k',
        'mobilenet-v2-gcp_4xb48-lradju_in1k',
        'shufflenet-v2-gcp_4xb256-lradju_in1k',
    ],
)
def test_extract_feat_of_gcp_classifiers_is_the_covariance_vector(name):
    net = get_model(name, head=dict(num_classes=2))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (vector,) = net.extract_feat(x, stage='neck')
        (features,) = net.extract_feat(x, stage='backbone')
        expected = global_covariance_pooling(net.neck.reduction(features), method='newton_schulz')
        torch.testing.assert_close(vector, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(net.head.fc(vector), net(x))
        torch.testing.assert_close(net.extract_feat(x, stage='pre_logits'), vector)
    assert vector.shape == (2, net.head.in_channels)


@pytest.mark.parametrize('stage', ['neck', 'backbone', 'pre_logits'])
def test_file_holds_what_mmpretrains_extractor_gives(model, folders, tmp_path, stage):
    extract_features(model, folders / 'val', tmp_path / 'x.npz', stage, batch_size=2, workers=1)
    features = read_features(tmp_path / 'x.npz')
    assert features.classes == CLASSES
    assert features.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert features.stage == stage
    paths = [folders / 'val' / file for file in features.files]
    assert sorted(paths) == sorted((folders / 'val').rglob('*.png'))
    assert [CLASSES.index(path.relative_to(folders / 'val').parts[0]) for path in paths] == (
        features.labels.tolist()
    )
    for path, vector in zip(paths, features.vectors, strict=True):
        (expected,) = FeatureExtractor(model)(str(path), stage=stage)
        expected = expected[-1] if isinstance(expected, tuple) else expected
        expected = expected.mean(dim=(1, 2)) if stage == 'backbone' else expected
        np.testing.assert_allclose(vector, expected, rtol=1e-3, atol=1e-4)


def test_half_precision_halves_the_file(model, folders, extracted, tmp_path):
    extract_features(model, folders / 'val', tmp_path / 'half.npz', dtype='float16')
    half, full = read_features(tmp_path / 'half.npz'), extracted['val']
    assert half.vectors.dtype == np.float16
    np.testing.assert_allclose(half.vectors, full.vectors, rtol=1e-3, atol=1e-4)
    assert (tmp_path / 'half.npz').stat().st_size < 0.52 * full.path.stat().st_size


@pytest.fixture
def stopped(model, folders, tmp_path):
    """A run that stopped at an image cut short, after two batches of four; it is mended since."""
    folder = shutil.copytree(folders / 'train', tmp_path / 'in')
    broken = sorted((folder / '1').glob('*.png'))[2]
    content = broken.read_bytes()
    broken.write_bytes(content[:-40])
    with pytest.raises(ValueError, match=rf"image '{broken}' cannot be read \(.*truncated"):
        extract_features(model, folder, tmp_path / 'x.npz', batch_size=4)
    assert not (tmp_path / 'x.npz').exists()
    broken.write_bytes(content)
    return folder


def test_stopped_run_goes_on_after_its_last_whole_row(
    model, stopped, extracted, tmp_path, monkeypatch
):
    rows = tmp_path / 'x.npz.partial' / 'rows'
    whole = rows.stat().st_size
    assert whole == 8 * 8256 * 4
    with rows.open('ab') as file:
        file.write(b'part of a row')
    seen = []
    extract = model.extract_feat
    monkeypatch.setattr(
        model, 'extract_feat', lambda x, **kw: (seen.append(len(x)), extract(x, **kw))[1]
    )
    extract_features(model, stopped, tmp_path / 'x.npz', batch_size=5)
    assert seen == [1, 5, 5, 5, 1]  # the first tells the length of a vector
    features = read_features(tmp_path / 'x.npz')
    np.testing.assert_allclose(features.vectors, extracted['train'].vectors, rtol=1e-3, atol=1e-4)
    assert features.files == extracted['train'].files
    assert not rows.parent.exists()


def test_beginning_of_other_features_is_not_continued(model, stopped, tmp_path):
    out = tmp_path / 'x.npz'
    with pytest.raises(ValueError, match=r'other stage, length\); .*--force'):
        extract_features(model, stopped, out, stage='backbone')
    other = get_model('resnet18-gcp_1xb64-5e_digits')
    with pytest.raises(ValueError, match=r'other network\)'):
        extract_features(other, stopped, out)
    extract_features(model, stopped, out, stage='backbone', force=True)
    assert read_features(out).vectors.shape == (24, 512)


def test_existing_file_is_kept_without_force(model, folders, tmp_path):
    (tmp_path / 'x.npz').write_text('precious')
    with pytest.raises(FileExistsError, match='--force'):
        extract_features(model, folders / 'val', tmp_path / 'x.npz')
    assert (tmp_path / 'x.npz').read_text() == 'precious'
    extract_features(model, folders / 'val', tmp_path / 'x.npz', force=True)
    assert read_features(tmp_path / 'x.npz').vectors.shape == (9, 8256)


def test_large_rows_never_are_in_memory_together(tmp_path):
    rng = np.random.default_rng(0)
    rows = UnfinishedFeatures(tmp_path / 'x.npz', 16, 1 << 19, 'float32', dict(stage='neck'))
    tracemalloc.start()
    with rows.appending() as append:
        for seed in range(16):
            append(rng.random((1, 1 << 19), dtype=np.float32) + seed)
    rows.finish(labels=np.arange(16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with np.load(tmp_path / 'x.npz') as archive:
        assert archive['features'].nbytes == 1 << 25 > 4 * peak
        assert np.floor(archive['features'].min(axis=1)).tolist() == list(range(16))
        assert archive['labels'].tolist() == list(range(16))


def test_wrong_arguments_are_refused(model, folders, tmp_path):
    out = tmp_path / 'x.npz'
    for error, words, arguments in (
        (
            FileNotFoundError,
            "folder '.*nowhere' does not exist",
            (model, tmp_path / 'nowhere', out),
        ),
        (ValueError, 'no folders of classes', (model, folders / 'val/0/deep', out)),
        (ValueError, r'ends in \.npz', (model, folders / 'val', tmp_path / 'x.npy')),
        (ValueError, "stage: .*got 'head'", (model, folders / 'val', out, 'head')),
        (TypeError, 'expected a classifier.*got Linear', (torch.nn.Linear(1, 1), folders, out)),
    ):
        with pytest.raises(error, match=words):
            extract_features(*arguments)
    folder = shutil.copytree(folders / 'val', tmp_path / 'in')
    (folder / 'empty').mkdir()
    with pytest.raises(ValueError, match="1 of 4 class folders hold no image, one is 'empty'"):
        extract_features(model, folder, out)
    for path in folder.rglob('*.png'):
        path.unlink()
    with pytest.raises(ValueError, match='Found 0 files'):
        extract_features(model, folder, out)
    with pytest.raises(ValueError, match=r'model\.eval\(\)'):
        extract_features(copy.deepcopy(model).train(), folders / 'val', out)
    assert not out.exists()
    assert not (tmp_path / 'x.npz.partial').exists()


def test_images_of_several_sizes_are_refused_in_one_batch(model, folders, tmp_path):
    folder = shutil.copytree(folders / 'val', tmp_path / 'in')
    path = min((folder / '7').glob('*.png'))
    Image.open(path).resize((40, 48)).save(path)
    with pytest.raises(ValueError, match=r'several sizes, .*\(3, 48, 40\).*--batch-size 1'):
        extract_features(model, folder, tmp_path / 'x.npz')
    extract_features(model, folder, tmp_path / 'x.npz', batch_size=1)
    assert np.isfinite(read_features(tmp_path / 'x.npz').vectors).all()


def test_overflow_of_half_precision_is_found(folders, tmp_path):
    net = get_model('resnet18-gcp_1xb64-5e_digits')
    net.neck.reduction[0].norm.weight.data *= 1e7
    with pytest.raises(ValueError, match=r'image .* not finite in float16'):
        extract_features(net, folders / 'val', tmp_path / 'x.npz', dtype='float16')


def test_unreadable_files_of_features(tmp_path):
    with pytest.raises(FileNotFoundError, match='no file'):
        read_features(tmp_path / 'x.npz')
    (tmp_path / 'x.npz').write_bytes(b'PK')
    with pytest.raises(ValueError, match=r'no \.npz file'):
        read_features(tmp_path / 'x.npz')
    np.savez(tmp_path / 'y.npz', features=np.zeros((1, 2)), labels=np.zeros(1))
    with pytest.raises(ValueError, match='lacks classes, files, network, stage'):
        read_features(tmp_path / 'y.npz')


def features_of(vectors, labels, **kwargs):
    files = tuple(f'{i}.png' for i in range(len(vectors)))
    settings = dict(path='x.npz', classes=('a', 'b', 'c'), files=files, stage='neck', network='0')
    return Features(vectors=vectors, labels=labels, **{**settings, **kwargs})


@pytest.fixture
def sets():
    """120 vectors to train on and 60 to test, of three classes that overlap."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(3, 20))
    labels = np.arange(180) % 3
    vectors = (1 + centres[labels] + 2 * rng.normal(size=(180, 20))).astype(np.float32)
    return features_of(vectors[:120], labels[:120]), features_of(vectors[120:], labels[120:])


def normalised(features):
    return features.vectors / np.linalg.norm(features.vectors, axis=1, keepdims=True)


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_cosines(sets, monkeypatch, dtype):
    monkeypatch.setattr('gcp_mm.studies.feature_quality.BLOCK', 50)
    a, b = (features_of(s.vectors.astype(dtype), s.labels) for s in sets)
    expected = normalised(sets[0]) @ normalised(sets[1]).T
    # A sum of 20 products, or vectors that were rounded
    atol = 20 * np.finfo(np.float32).eps if dtype == np.float32 else np.finfo(np.float16).eps
    np.testing.assert_allclose(cosines(a, b), expected, atol=atol)
    a.vectors[70] = 0
    with pytest.raises(ValueError, match=r"vector of '70\.png' is zero"):
        cosines(a, b)


def one_vs_all(train, train_labels, test, test_labels, c):
    """Accuracy in percent of scikit-learn's linear SVMs on the vectors themselves."""
    svm = OneVsRestClassifier(SVC(kernel='linear', C=c)).fit(train, train_labels)
    return 100 * svm.score(test, test_labels)


def test_linear_svm_is_one_vs_all_on_the_vectors_themselves(sets):
    train, test = sets
    x, y = normalised(train), train.labels
    grams = (cosines(train, train), y, cosines(test, train), test.labels)
    candidates = (100, 0.01, 1, 0.3)
    expected = {c: one_vs_all(x, y, normalised(test), test.labels, c) for c in candidates}
    assert len(set(expected.values())) == 4
    for c in candidates:
        assert linear_svm(*grams, [c]) == (pytest.approx(expected[c]), c)
    fit, held = train_test_split(np.arange(120), test_size=0.2, stratify=y, random_state=0)
    held_out = {c: one_vs_all(x[fit], y[fit], x[held], y[held], c) for c in candidates}
    best = max(held_out, key=held_out.get)
    assert sorted(held_out.values())[-2] < held_out[best]
    assert linear_svm(*grams, candidates) == (pytest.approx(expected[best]), best)


def test_c_is_the_smaller_of_equals_and_needs_vectors_to_choose_by():
    labels = np.arange(40) % 2
    vectors = np.stack([labels, 1 - labels], axis=1)
    gram = vectors @ vectors.T
    assert linear_svm(gram, labels, gram, labels, [100, 1]) == (100, 1)
    with pytest.raises(ValueError, match=r'too few to choose C by.*--C 1'):
        linear_svm(gram[:3, :3], labels[:3], gram[:3, :3], labels[:3], [1, 2])
    with pytest.raises(ValueError, match='at least 2 classes, got 1'):
        linear_svm(gram, np.zeros(40), gram, np.zeros(40), [1])


def test_retrieval_by_hand():
    # Rankings: query 0 finds 1, 0, 3, 2; query 1 finds 3, 2, 0, 1.
    similarities = np.array([[0.5, 0.9, -0.3, 0.1], [0.2, 0.1, 0.4, 0.8]])
    metrics = retrieval(similarities, np.array([0, 1]), np.array([0, 1, 0, 1]), (1, 2))
    # Relevant at ranks 2, 4 (query 0) and 1, 4 (query 1).
    assert metrics == pytest.approx(
        {'recall@1': 50, 'recall@2': 100, 'mAP': 100 * ((1 / 2 + 2 / 4) / 2 + (1 + 2 / 4) / 2) / 2}
    )


@pytest.mark.parametrize('same', [False, True])
def test_retrieval_is_scikit_learns(sets, monkeypatch, same):
    monkeypatch.setattr('gcp_mm.studies.feature_quality.BLOCK', 25)
    gallery, queries = sets
    gallery = queries if same else gallery
    metrics = retrieval(cosines(queries, gallery), queries.labels, gallery.labels, same=same)
    search = NearestNeighbors(metric='cosine', algorithm='brute').fit(gallery.vectors)
    near = search.kneighbors(None if same else queries.vectors, 8, return_distance=False)
    hits = gallery.labels[near] == queries.labels[:, None]
    for k in (1, 2, 4, 8):
        assert metrics[f'recall@{k}'] == pytest.approx(100 * hits[:, :k].any(axis=1).mean())
    scores = normalised(queries) @ normalised(gallery).T
    precisions = []
    for i, label in enumerate(queries.labels):
        keep = np.arange(len(gallery.labels)) != i if same else slice(None)
        precisions.append(average_precision_score((gallery.labels == label)[keep], scores[i][keep]))
    assert metrics['mAP'] == pytest.approx(100 * np.mean(precisions))
    assert 34 < metrics['recall@1'] < 100


def test_query_without_a_match_is_refused():
    with pytest.raises(ValueError, match='query 1, of label 2'):
        retrieval(np.ones((2, 2)), np.array([0, 2]), np.array([0, 1]))
    with pytest.raises(ValueError, match='query 2, of label 1'):
        retrieval(np.ones((3, 3)), np.array([0, 0, 1]), np.array([0, 0, 1]), same=True)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(stage='backbone'), "their stage: 'neck' and 'backbone'"),
        (dict(network='1'), "their network: '0' and '1'"),
        (dict(classes=('a', 'b')), r"their classes: 3, 'a' \.\.\. and 2, 'a'"),
        (dict(vectors=np.ones((60, 3))), 'their length: 20 and 3'),
    ],
)
def test_features_that_do_not_compare_are_refused(sets, change, words):
    train, test = sets
    check_comparable(train, test)
    other = dict(vectors=test.vectors, labels=test.labels) | change
    with pytest.raises(ValueError, match=words):
        check_comparable(train, features_of(**other))


def test_tools(call_tool, model, folders, extracted, tmp_path, capsys):
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'x.pth')
    for split in ('train', 'val'):
        call_tool(
            *('tools/extract_features.py', CLS, tmp_path / 'x.pth', folders / split),
            *(tmp_path / f'{split}.npz', '--batch-size', 5, '--workers', 0, '--device', 'cpu'),
        )
        features = read_features(tmp_path / f'{split}.npz')
        np.testing.assert_array_equal(features.vectors, extracted[split].vectors)
    files = (tmp_path / 'train.npz', tmp_path / 'val.npz')
    capsys.readouterr()
    call_tool('tools/evaluate_features.py', *files, '--C', 1, '--out', tmp_path / 'x.json')
    results = json.loads((tmp_path / 'x.json').read_text())
    train, val = extracted['train'], extracted['val']
    top1 = one_vs_all(normalised(train), train.labels, normalised(val), val.labels, 1)
    assert results['linear SVM'] == dict(top1=pytest.approx(top1), C=1)
    assert results['retrieval'] == pytest.approx(
        retrieval(cosines(val, train), val.labels, train.labels)
    )
    printed = capsys.readouterr().out
    assert '24 train and 9 test, 3 classes' in printed
    assert f'{results["retrieval"]["mAP"]:.2f} %' in printed
    call_tool('tools/evaluate_features.py', files[0], '--out', tmp_path / 'one.json')
    assert json.loads((tmp_path / 'one.json').read_text())['retrieval'] == pytest.approx(
        retrieval(cosines(train, train), train.labels, train.labels, same=True)
    )


def test_a_folder_of_something_else_is_kept(tmp_path):
    other = tmp_path / 'x.npz.partial' / 'notes.txt'
    other.parent.mkdir()
    other.write_text('mine')
    with pytest.raises(FileExistsError, match=r'x\.npz\.partial exists and is not'):
        UnfinishedFeatures(tmp_path / 'x.npz', 1, 1, 'float32', dict(stage='neck'))
    assert other.read_text() == 'mine'
