# Copyright (c) mmfishnet authors. All rights reserved.
import json

import matplotlib.image
import pytest
import torch
from torch import nn

import benchmark_tables as rows
from benchmark_report import check_marks, write_markdown
from benchmark_runs import (
    Call,
    Setting,
    build,
    largest_error,
    measure_section,
)
from fish import TINY
from mmfishnet.models import FishNet
from step_memory import Meter, measure_kept_bytes


@pytest.fixture
def small(monkeypatch):
    """A small fish in the place of FishNet-150, and as its own peer."""
    monkeypatch.setattr(rows, 'FishNet',
                        lambda depth, **kwargs: FishNet(TINY, **kwargs))
    monkeypatch.setitem(rows.BACKBONES, rows.AUTHORS,
                        rows.BACKBONES[rows.OURS])


def test_meter():
    """Bytes by hand, views aside, and what dies is no longer counted."""
    a, b = torch.ones(1000), torch.ones(1000)
    with Meter() as meter:
        c = a + b
        d = c.view(10, 100)[2:]
        del c, d
        e = a * b
        e.add_(a)
    assert meter.peak == 4000
    with Meter() as meter:
        kept = [a + b for _ in range(3)]
    assert meter.peak == len(kept) * 4000


@pytest.mark.parametrize('regime', ['fixed', 'affine', 'live'])
def test_every_variant_is_the_same_function(small, regime, tmp_path):
    variants = [v for v in rows.VARIANTS['step'] if not v.compiled]
    results = measure_section(
        'step', (2, 3, 64, 96),
        [(rows.AUTHORS, rows.PLAIN), *((rows.OURS, v) for v in variants)],
        Setting(rounds=1, min_run_time=0.001, log=lambda text: None), regime)
    theirs, *ours = results
    assert theirs.ratio == 1
    assert all(r.seconds > 0 and r.ratio > 0 for r in ours)
    for result in ours:
        low, high = (1e-4, 1) if 'bf16' in result.variant else (0, 1e-3)
        assert low <= result.output_error < high
        # In bfloat16, of a network that has learned nothing, the gradients
        # of the first layers are little but rounding; live norms of a dozen
        # values pass on more of it.
        bound = 10 if low else 0.1 if regime == 'live' else high
        assert low <= result.grad_error < bound
    plain, recomputed = ours[:2]
    # Of half of what layers keep, little is left where a fish is so small.
    assert recomputed.kept < 0.85 * plain.kept
    assert recomputed.kept < recomputed.peak < plain.peak
    # One network, one variant: the same bytes.
    assert plain.kept == theirs.kept
    marks = {what: ratio for what, ratio, *_ in check_marks(results)}
    key = ('Training step, norms and stem fixed, 2x3x64x96, fp32, with_cp: '
           'kept')
    if regime == 'fixed':
        assert marks[key] == pytest.approx(recomputed.kept / theirs.kept)
        write_markdown(results, 'this machine', tmp_path / 'a.md')
        assert (f'| {key} | {marks[key]:.3f} | 0.12 | missed |'
                in (tmp_path / 'a.md').read_text())
    else:
        assert key not in marks


def test_bytes_counted_on_meta_are_those_of_the_cpu(small):
    """And what a library offers to be lean keeps less of the same function."""
    cases = [(rows.OURS, rows.PLAIN), (rows.OURS, rows.WITH_CP),
             (rows.LAYERS, rows.PLAIN)]
    counted, computed = (
        measure_section('step', (2, 3, 64, 64), cases, Setting(
            device, rounds=1, min_run_time=0.001, log=lambda text: None),
            'live') for device in ('meta', 'cpu'))
    for a, b in zip(counted, computed, strict=True):
        assert (a.kept, a.held) == pytest.approx((b.kept, b.held), rel=0.01)
        # On the CPU the image and the features are laid out anew.
        assert 0.75 * b.peak < a.peak <= b.peak
        assert a.seconds is None
    lean, recomputed, layers = counted
    assert recomputed.kept < lean.kept < 0.65 * layers.kept
    marks = {what for what, *_ in check_marks(counted)}
    assert not any(what.endswith(f'seconds of {rows.LAYERS}')
                   for what in marks)


@pytest.mark.parametrize('name', ['ResNet-50', 'DenseNet-161'])
def test_lean_peers_are_the_same_function(name):
    x = torch.randn(1, 3, 64, 64)
    found = []
    for variant in rows.PLAIN, rows.WITH_CP:
        model = build(name, variant, 'cpu', 'affine')
        outputs = Call('step', model, x, variant).values()[0]
        found.append((outputs, measure_kept_bytes(model, x)))
    (plain, kept), (lean, less) = found
    assert largest_error(lean, plain) < 1e-5 and less < 0.5 * kept


@pytest.mark.parametrize('name', rows.REGIMES)
def test_peers_follow_the_regime(name):
    regime = rows.REGIMES[name]
    stem = nn.Sequential(nn.Conv2d(3, 48, 3), nn.BatchNorm2d(48))
    peer = rows.Peer((stem, nn.Sequential(nn.BatchNorm2d(48))), regime).train()
    norms = rows.find_norms(peer)
    assert {type(norm) for norm in norms} == {
        nn.GroupNorm if name == 'gn' else nn.BatchNorm2d}
    trained = {n for n, p in peer.named_parameters() if p.requires_grad}
    assert {n.partition('.')[0] for n in trained} == {
        'fixed': set(), 'affine': {'1'}}.get(name, {'0', '1'})
    before = peer(torch.randn(2, 3, 8, 8)), peer(torch.randn(2, 3, 8, 8))
    moved = any(int(norm.num_batches_tracked) for norm in norms
                if name != 'gn')
    assert moved is (name == 'live') and before[0].shape == (2, 48, 6, 6)


def test_tool(small, call_tool, tmp_path):
    done = call_tool('analysis_tools/benchmark', '--quick', '--no-compile',
                     '--networks', rows.OURS, '--sections', 'inference',
                     'step', 'growth', 'dial', '--out-dir', tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / 'benchmark.json').read_text())
    assert [r['variant'] for r in content['results']
            if r['section'] == 'inference'] == [
                v.name for v in rows.VARIANTS['inference'] if not v.compiled
            ]
    one, larger, batch = content['growth']
    assert larger['kept'] / one['kept'] == pytest.approx(96**2 / 64**2, 0.02)
    assert batch['kept'] / one['kept'] == pytest.approx(2, 0.02)
    for name in ('benchmark.png', 'growth.png'):
        assert matplotlib.image.imread(tmp_path / name).std() > 0.05
    assert content['dial']['eager'][1] == 1
    assert content['dial']['eager, with_cp'][0] < content['dial']['eager'][0]
    wrong = call_tool('analysis_tools/benchmark', '--shapes', '1x64',
                      '--out-dir', tmp_path)
    assert wrong.stderr.startswith("error: --shapes: '1x64'")
