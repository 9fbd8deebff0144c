"""Feature vectors: from the network, to a file, and their evaluation."""

import json
import shutil

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
from gcp_mm.studies.feature_quality import check_comparable, cosines, linear_svm, retrieval
from gcp_mm.studies.features import Features, extract_features, read_features
from tests.helpers.runs import CLS

CLASSES = ['0', '1', '7']


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
        extract_features(model, folders / split, out / f'{split}.npy', batch_size=5)
    return {split: read_features(out / f'{split}.npy') for split in ('train', 'val')}


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
    extract_features(model, folders / 'val', tmp_path / 'x.npy', stage, batch_size=2, workers=1)
    features = read_features(tmp_path / 'x.npy')
    assert features.classes == CLASSES
    assert features.labels == [0] * 3 + [1] * 3 + [2] * 3
    assert features.stage == stage
    paths = [folders / 'val' / file for file in features.files]
    assert sorted(paths) == sorted((folders / 'val').rglob('*.png'))
    folder_names = [path.relative_to(folders / 'val').parts[0] for path in paths]
    assert [CLASSES.index(name) for name in folder_names] == features.labels
    for path, vector in zip(paths, features.vectors, strict=True):
        (expected,) = FeatureExtractor(model)(str(path), stage=stage)
        expected = expected[-1] if isinstance(expected, tuple) else expected
        expected = expected.mean(dim=(1, 2)) if stage == 'backbone' else expected
        np.testing.assert_allclose(vector, expected, rtol=1e-3, atol=1e-4)


def test_half_precision_halves_the_file(model, folders, extracted, tmp_path):
    out = tmp_path / 'half.npy'
    extract_features(model, folders / 'val', out, dtype='float16')
    half, full = read_features(out).vectors, extracted['val'].vectors
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, full, rtol=1e-3, atol=1e-4)
    assert out.stat().st_size == 128 + half.nbytes == 128 + full.nbytes // 2


@pytest.fixture
def stopped(model, folders, tmp_path):
    """A run that stopped at an image cut short, after two batches of four; it is mended since."""
    folder = shutil.copytree(folders / 'train', tmp_path / 'in')
    broken = sorted((folder / '1').glob('*.png'))[2]
    content = broken.read_bytes()
    broken.write_bytes(content[:-40])
    with pytest.raises(ValueError, match=rf"image '{broken}' .*truncated"):
        extract_features(model, folder, tmp_path / 'x.npy', batch_size=4)
    assert not (tmp_path / 'x.npy').exists()
    broken.write_bytes(content)
    return folder


def test_stopped_run_continues(model, stopped, extracted, tmp_path, monkeypatch):
    seen = []
    extract = model.extract_feat
    monkeypatch.setattr(
        model, 'extract_feat', lambda x, **kw: (seen.append(len(x)), extract(x, **kw))[1]
    )
    extract_features(model, stopped, tmp_path / 'x.npy', batch_size=5)
    assert seen == [5, 5, 5, 1]
    features, expected = read_features(tmp_path / 'x.npy'), extracted['train']
    np.testing.assert_allclose(features.vectors, expected.vectors, rtol=1e-3, atol=1e-4)
    assert (features.files, features.labels) == (expected.files, expected.labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'x.json', 'x.npy']


def test_a_run_stopped_before_its_last_step_continues(model, folders, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr('pathlib.Path.replace', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract_features(model, folders / 'val', tmp_path / 'x.npy')
    extract_features(model, folders / 'val', tmp_path / 'x.npy')
    assert read_features(tmp_path / 'x.npy').vectors.shape == (9, 8256)


def test_partial_file_of_other_features_is_not_continued(model, stopped, tmp_path):
    out = tmp_path / 'x.npy'
    with pytest.raises(ValueError, match=r'other stage, images\); .*--force'):
        extract_features(model, stopped, out, stage='backbone')
    other = get_model('resnet18-gcp_1xb64-5e_digits')
    with pytest.raises(ValueError, match=r'other network, images\)'):
        extract_features(other, stopped, out)
    extract_features(model, stopped, out, stage='backbone', force=True)
    assert read_features(out).vectors.shape == (24, 512)


def test_existing_file_is_kept_without_force(model, folders, tmp_path):
    (tmp_path / 'x.npy').write_text('precious')
    with pytest.raises(FileExistsError, match='--force'):
        extract_features(model, folders / 'val', tmp_path / 'x.npy')
    assert (tmp_path / 'x.npy').read_text() == 'precious'
    extract_features(model, folders / 'val', tmp_path / 'x.npy', force=True)
    assert read_features(tmp_path / 'x.npy').vectors.shape == (9, 8256)
    (tmp_path / 'x.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'x\.json'):
        read_features(tmp_path / 'x.npy')


def test_a_full_disk_is_found_before_the_array_is_made(model, folders, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=9 * 8256 * 4 - 1)
    monkeypatch.setattr('shutil.disk_usage', lambda _: usage)
    with pytest.raises(OSError, match='297,216 bytes and 297,215 are free'):
        extract_features(model, folders / 'val', tmp_path / 'x.npy')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('error', 'words', 'changes'),
    [
        (FileNotFoundError, 'nowhere', dict(folder='nowhere')),
        (RuntimeError, 'Found 0 files', dict(folder='0/deep')),
        (ValueError, r"ends in \.npy, got '.*x\.npz'", dict(out='x.npz')),
        (ValueError, "stage: .*got 'head'", dict(stage='head')),
        (TypeError, 'ImageClassifier, got a Linear', dict(model=torch.nn.Linear(1, 1))),
        (ValueError, r'model\.eval\(\)', dict(training=True)),
    ],
)
def test_wrong_arguments_are_refused(model, folders, tmp_path, error, words, changes):
    model = changes.get('model', model).train(changes.get('training', False))
    folder, out = changes.get('folder', '.'), tmp_path / changes.get('out', 'x.npy')
    try:
        with pytest.raises(error, match=words):
            extract_features(model, folders / 'val' / folder, out, changes.get('stage', 'neck'))
    finally:
        model.eval()
    assert not list(tmp_path.iterdir())


def test_images_of_several_sizes_need_batches_of_one(model, folders, tmp_path):
    folder = shutil.copytree(folders / 'val', tmp_path / 'in')
    path = min((folder / '7').glob('*.png'))
    Image.open(path).resize((40, 48)).save(path)
    with pytest.raises(RuntimeError, match=r'equal size.*\[3, 48, 40\]'):
        extract_features(model, folder, tmp_path / 'x.npy')
    extract_features(model, folder, tmp_path / 'x.npy', batch_size=1)
    assert np.isfinite(read_features(tmp_path / 'x.npy').vectors).all()


def test_overflow_of_half_precision_is_found(folders, tmp_path):
    net = get_model('resnet18-gcp_1xb64-5e_digits')
    net.neck.reduction[0].norm.weight.data *= 1e7
    with pytest.raises(ValueError, match=r"image '0/.*': .*not finite in float16"):
        extract_features(net, folders / 'val', tmp_path / 'x.npy', dtype='float16')


def features_of(vectors, labels, **kwargs):
    files = [f'{i}.png' for i in range(len(vectors))]
    settings = dict(classes=['a', 'b', 'c'], files=files, stage='neck', network='0')
    return Features(vectors=vectors, labels=labels.tolist(), **{**settings, **kwargs})


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
def test_cosines(sets, dtype):
    a, b = (features.vectors.astype(dtype) for features in sets)
    expected = normalised(sets[0]) @ normalised(sets[1]).T
    # A sum of 20 products, or vectors that were rounded
    atol = 20 * np.finfo(np.float32).eps if dtype == np.float32 else np.finfo(np.float16).eps
    np.testing.assert_allclose(cosines(a, b), expected, atol=atol)
    a[70] = 0
    assert not cosines(a, b)[70].any()


def one_vs_all(train, train_labels, test, test_labels, c):
    """Accuracy in percent of scikit-learn's linear SVMs on the vectors themselves."""
    svm = OneVsRestClassifier(SVC(kernel='linear', C=c)).fit(train, train_labels)
    return 100 * svm.score(test, test_labels)


def test_linear_svm_is_one_vs_all_on_the_vectors_themselves(sets):
    train, test = sets
    x, y = normalised(train), np.array(train.labels)
    grams = (x @ x.T, y, normalised(test) @ x.T, test.labels)
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
    with pytest.raises(ValueError, match='least populated class'):
        linear_svm(gram[:3, :3], labels[:3], gram[:3, :3], labels[:3], [1, 2])


def test_retrieval_by_hand():
    # Rankings: query 0 finds 1, 0, 3, 2; query 1 finds 3, 2, 0, 1.
    similarities = np.array([[0.5, 0.9, -0.3, 0.1], [0.2, 0.1, 0.4, 0.8]])
    metrics = retrieval(similarities, [0, 1], [0, 1, 0, 1])
    # Relevant at ranks 2, 4 (query 0) and 1, 4 (query 1).
    expected = {'recall@1': 50, 'recall@2': 100, 'recall@4': 100, 'recall@8': 100}
    expected['mAP'] = 100 * ((1 / 2 + 2 / 4) / 2 + (1 + 2 / 4) / 2) / 2
    assert metrics == pytest.approx(expected)


def test_equal_similarities_count_against_a_query():
    metrics = retrieval(np.zeros((1, 2)), [0], [0, 1])
    assert (metrics['recall@1'], metrics['recall@2'], metrics['mAP']) == (0, 100, 50)


@pytest.mark.parametrize('same', [False, True])
def test_retrieval_is_that_of_nearest_neighbours(sets, same):
    gallery, queries = sets
    gallery = queries if same else gallery
    gallery_labels, query_labels = np.array(gallery.labels), np.array(queries.labels)
    scores = normalised(queries) @ normalised(gallery).T
    metrics = retrieval(scores, queries.labels, gallery.labels, same=same)
    search = NearestNeighbors(metric='cosine', algorithm='brute').fit(gallery.vectors)
    near = search.kneighbors(None if same else queries.vectors, 8, return_distance=False)
    hits = gallery_labels[near] == query_labels[:, None]
    for k in (1, 2, 4, 8):
        assert metrics[f'recall@{k}'] == pytest.approx(100 * hits[:, :k].any(axis=1).mean())
    precisions = []
    for i, label in enumerate(query_labels):
        keep = np.arange(len(gallery_labels)) != i if same else slice(None)
        precisions.append(average_precision_score((gallery_labels == label)[keep], scores[i][keep]))
    assert metrics['mAP'] == pytest.approx(100 * np.mean(precisions))
    assert 34 < metrics['recall@1'] < 100


def test_query_without_a_match_is_refused():
    with pytest.raises(ValueError, match='query 1, of label 2'):
        retrieval(np.ones((2, 2)), [0, 2], [0, 1])
    with pytest.raises(ValueError, match='query 2, of label 1'):
        retrieval(np.ones((3, 3)), [0, 0, 1], [0, 0, 1], same=True)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(stage='backbone'), "their stage: 'neck' and 'backbone'"),
        (dict(network='1'), "their network: '0' and '1'"),
        (dict(classes=['a', 'b']), r"their classes: \['a', 'b', 'c'\] and \['a', 'b'\]"),
    ],
)
def test_features_that_do_not_compare_are_refused(sets, change, words):
    train, test = sets
    check_comparable(train, test)
    with pytest.raises(ValueError, match=words):
        check_comparable(train, features_of(test.vectors, np.array(test.labels), **change))


def test_tools(call_tool, model, folders, extracted, tmp_path, capsys):
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'x.pth')
    files = [tmp_path / f'{split}.npy' for split in ('train', 'val')]
    for file in files:
        call_tool(
            *('tools/extract_features.py', CLS, tmp_path / 'x.pth', folders / file.stem, file),
            *('--batch-size', 5, '--workers', 0, '--device', 'cpu'),
        )
        vectors = read_features(file).vectors
        np.testing.assert_array_equal(vectors, extracted[file.stem].vectors)
    capsys.readouterr()
    call_tool('tools/evaluate_features.py', *files, '--C', 1, '--out', tmp_path / 'x.json')
    results = json.loads((tmp_path / 'x.json').read_text())
    assert json.loads(capsys.readouterr().out) == results
    train, val = extracted['train'], extracted['val']
    top1 = one_vs_all(normalised(train), train.labels, normalised(val), val.labels, 1)
    assert results['linear SVM'] == dict(top1=pytest.approx(top1), C=1)
    scores = normalised(val) @ normalised(train).T
    assert results['retrieval'] == pytest.approx(retrieval(scores, val.labels, train.labels))
    call_tool('tools/evaluate_features.py', files[0], '--out', tmp_path / 'one.json')
    scores = normalised(train) @ normalised(train).T
    assert json.loads((tmp_path / 'one.json').read_text())['retrieval'] == pytest.approx(
        retrieval(scores, train.labels, train.labels, same=True)
    )
