# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import os.path as osp

from mmengine.hooks import Hook
from mmengine.registry import HOOKS as MMENGINE_HOOKS

from ...registry import HOOKS


@HOOKS.register_module()
class ShowHook(Hook):
    """Save pictures of predictions in folders as the images are.

    MMDetection's and MMPretrain's hooks put all into one folder, where of two
    images of one name the second replaces the first.

    Args:
        hook (dict): Config of such a hook.
        key (str): Its argument, and attribute, for the folder.
    """

    def __init__(self, hook: dict, key: str) -> None:
        self.hook = MMENGINE_HOOKS.build(hook)
        self.key = key
        self.folder = getattr(self.hook, key)
        self.drawn = 0

    def after_test_iter(self, runner, batch_idx, data_batch, outputs) -> None:
        """Save the pictures of a batch, one by one."""
        prefixes = getattr(runner.test_dataloader.dataset, 'data_prefix', {})
        for i, sample in enumerate(outputs):
            path = osp.dirname(sample.get('img_path', ''))
            # In the images' folder of the data set, or beside all of them.
            inner = [
                osp.relpath(path, prefix) for prefix in prefixes.values()
                if isinstance(prefix, str) and osp.abspath(path).startswith(
                    osp.join(osp.abspath(prefix), ''))
            ]
            folder = osp.join(self.folder, min(inner, key=len, default=''))
            setattr(self.hook, self.key, folder.rstrip('/'))
            one = dict(inputs=data_batch['inputs'][i:i + 1])
            self.hook.after_test_iter(runner, self.drawn, one, [sample])
            self.drawn += 1
