# Copyright (c) mmfishnet authors. All rights reserved.
import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from fish import TINY
from mmfishnet.engine.hooks import compile_in_place
from mmfishnet.models import FishNet, PreActResNet


def gradients(rank, compiled):
    """And statistics, of one step in float64, each stage computed twice; of
    the smaller network, since compiling takes a while."""
    torch.manual_seed(0)
    model = PreActResNet((1, 1, 1, 1), base_channels=8, out_indices=(1, 3),
                         with_cp=True).double().train()
    if compiled:
        compile_in_place(model, dynamic=False, backend='aot_eager')
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
        model = FishNet(TINY, norm_cfg=dict(type=kind), norm_eval=True)
        features = model.double().train()(x)
        sum(f.square().mean() for f in features).backward()
        found.append([*features, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*found, rtol=0, atol=0)
    model.norm_eval = False
    with pytest.raises(ValueError, match='GPU'):
        model.train()(x)


def train(rank, folder):
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank,
                            world_size=2)
    check_sync_bn()
    for variant in (dict(out_indices=(0, 1, 2, 3), frozen_stages=2),
                    dict(out_indices=(0, ), down_sample='conv'),
                    dict(out_indices=(1, 2), with_cp=True)):
        torch.manual_seed(0)
        model = DistributedDataParallel(
            FishNet(TINY, **variant).train(), find_unused_parameters=False)
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
    torch.testing.assert_close(gradients(rank, True), gradients(rank, False))
    dist.destroy_process_group()


def test_two_processes_use_all_parameters_and_agree(tmp_path):
    """Forked from a process that has computed no gradient yet."""
    subprocess.run([sys.executable, __file__, tmp_path], check=True, env={
        **os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})


if __name__ == '__main__':
    start_processes(train, (sys.argv[1], ), nprocs=2, start_method='fork')
