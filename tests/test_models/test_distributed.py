# Copyright (c) mmfishnet authors. All rights reserved.
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from mmfishnet.engine.hooks import compile_in_place
from mmfishnet.models import FishNet

SMALL = dict(
    stem_channels=8,
    tail=(1, 1, 1),
    tail_channels=(16, 16, 32),
    bridge=1,
    body=(1, 1, 1),
    head=(1, 1, 1),
    body_transfer=(1, 1, 1),
    head_transfer=(1, 1, 1))
OUT_INDICES = (0, ), (3, ), (1, 2), (0, 1, 2, 3)


def gradients(rank, compiled):
    """And statistics, of one step in float64, each stage computed twice."""
    torch.manual_seed(0)
    model = FishNet(SMALL, with_cp=True).double().train()
    if compiled:
        compile_in_place(model, backend='aot_eager')
    model = DistributedDataParallel(model)
    torch.manual_seed(rank)
    features = model(torch.randn(2, 3, 32, 64, dtype=torch.double))
    sum(f.square().mean() for f in features).backward()
    return [*(p.grad for p in model.parameters()), *model.buffers()]


def check_sync_bn():
    """Fixed statistics are a batch norm's; for others torch wants GPUs."""
    x = torch.randn(2, 3, 32, 64, dtype=torch.double)
    found = []
    for kind in 'BN', 'SyncBN':
        torch.manual_seed(0)
        model = FishNet(SMALL, norm_cfg=dict(type=kind), norm_eval=True)
        features = model.double().train()(x)
        sum(f.square().mean() for f in features).backward()
        found.append([*features, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*found, rtol=0, atol=0)
    model.norm_eval = False
    with pytest.raises(ValueError, match='GPU'):
        model.train()(x)


def train(results):
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    check_sync_bn()
    for out_indices in OUT_INDICES:
        for variant in (dict(frozen_stages=2),
                        dict(down_sample='conv', with_cp=True)):
            torch.manual_seed(0)
            model = FishNet(SMALL, out_indices=out_indices, **variant)
            model = DistributedDataParallel(
                model.train(), find_unused_parameters=False)
            optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9)
            torch.manual_seed(rank)
            # The second forward raises if the first left a gradient out.
            for _ in range(2):
                features = model(torch.randn(2, 3, 32, 64))
                optimizer.zero_grad()
                sum(f.square().mean() for f in features).backward()
                optimizer.step()
                weights = parameters_to_vector(model.parameters())
                both = [torch.empty_like(weights) for _ in range(2)]
                dist.all_gather(both, weights.detach())
                # After every step, to the bit.
                assert torch.equal(*both)
    torch.save([p.grad for p in model.parameters()], f'{results}/{rank}.pth')
    torch.testing.assert_close(gradients(rank, True), gradients(rank, False))
    dist.destroy_process_group()


def test_two_processes_use_all_parameters_and_agree(tmp_path):
    subprocess.run([
        sys.executable, '-m', 'torch.distributed.run', '--standalone',
        '--local_addr=127.0.0.1', '--nproc_per_node=2', __file__, tmp_path
    ], check=True)
    a, b = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    assert len(a) > 100
    for x, y in zip(a, b):
        torch.testing.assert_close(x, y)


if __name__ == '__main__':
    train(sys.argv[1])
